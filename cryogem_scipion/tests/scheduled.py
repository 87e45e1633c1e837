"""Wait for the runs of a project that Scipion's schedulers start one after another, and say how they ended.

    python -m cryogem_scipion.tests.scheduled PROJECT SECONDS

The last line is a list in JSON, a run each. Run by test_templates.py in an environment that knows all plugins of the
project: without them its runs could not be read.
"""

import json
import sys
import time
from pathlib import Path

# A scheduler looks for its inputs every one to two minutes. Named sitecustomize.py on PYTHONPATH, it looks often.
SHORT_SLEEPS = """
import sys
import time

if any(argument.endswith('pw_schedule_run.py') for argument in sys.orig_argv):
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 1.5))
"""
_PAUSE = 1.0                                            # s between two looks


def waitForRuns(projectName: str, patience: float) -> list[dict]:
    """Return class, status, error and sizes of outputs of each run once none is active or one has failed.

    What is still active then is stopped.
    """
    from pyworkflow.project import Manager

    from cryogem_scipion.tests.in_process import updateFromDisk
    project = Manager().loadProject(projectName)
    end = time.monotonic() + patience
    while True:
        runs = list(project.getRuns())
        for run in runs:
            updateFromDisk(project, run)
            if run.isFailed():              # also taken for it: a process that ended between the look at its database
                updateFromDisk(project, run)                            # and the one whether it lives
        active = [run for run in runs if run.isActive() or run.isScheduled() or run.isSaved()]
        if not active or any(run.isFailed() for run in runs) or time.monotonic() > end:
            break
        time.sleep(_PAUSE)
    for run in active:
        project.stopProtocol(run)
    return [describeRun(run) for run in runs]


def describeRun(run) -> dict:
    """Return what a test wants to know of a run."""
    return {'class': run.getClassName(), 'status': run.getStatus(),
            'error': run.getErrorMessage() or '', 'stderr': readIfThere(run.getStderrLog()),
            'launches': readIfThere(run.getScheduleLog()).count('Launching the protocol'),
            'outputs': {name: output.getSize() if hasattr(output, 'getSize') else 1
                        for name, output in run.iterOutputAttributes()}}


def readIfThere(path: str) -> str:
    """Return the text of a log, '' before it exists."""
    return Path(path).read_text(encoding='utf-8') if Path(path).exists() else ''


def main() -> None:
    """Print how the runs of a project ended."""
    print(json.dumps(waitForRuns(sys.argv[1], float(sys.argv[2]))))


if __name__ == '__main__':
    main()
