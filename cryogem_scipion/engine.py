"""The one way to the engine: a subprocess, in Scipion's own Python or in an environment of the user's choice."""

import functools
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pyworkflow.exceptions import PyworkflowException

from cryogem.config import COMMANDS, build_config, config_to_json
from cryogem.errors import CryogemError
from cryogem.io.files import write_json
from cryogem_scipion.constants import CRYOGEM_ENV_ACTIVATION

_LAUNCHER = Path(__file__).resolve().with_name('launcher.py')
_BEAT = 0.05                                # s between two signs of life of a window that waits
_ERROR_MARK = 'ERROR: '
_MISSING = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")


class CryogemJobError(PyworkflowException):
    """The engine failed; the message is its own last sentence. Scipion shows it without a traceback."""


def tellInOneSentence(step: Callable) -> Callable:
    """Make a step show its errors as one sentence: those of our own code and of the disk, as those of the engine."""
    @functools.wraps(step)
    def run(*args, **kwargs):
        try:
            return step(*args, **kwargs)
        except CryogemError as error:
            raise CryogemJobError(str(error)) from error
        except OSError as error:
            raise CryogemJobError(f'{error.filename or "a file"} cannot be used: {error.strerror or error}; check '
                                  'permissions and free space') from error
    return run


def runCryogem(protocol, command: str, values: dict) -> None:
    """Run one command of the engine and wait for it; Stop kills it with the protocol.

    Parameters
    ----------
    protocol : the running protocol; gives the log, the GPU and the folder for the settings.
    values : settings by key, as in `cryogem.config`.

    Raises
    ------
    ConfigError : a setting is wrong; found before a process is started.
    CryogemJobError : the engine failed.
    """
    path = Path(protocol._getExtraPath(f'{command}.json'))
    write_json(path, config_to_json(build_config(COMMANDS[command], values)))
    program, arguments = getCommandLine(protocol.getPlugin(), protocol.usesGpu(), command, str(path))
    log = protocol.getStderrLog()
    logStart = os.path.getsize(log) if os.path.exists(log) else 0
    try:
        protocol.runJob(program, arguments, numberOfMpi=1)
    except subprocess.CalledProcessError as error:
        raise CryogemJobError(explainFailure(command, error.returncode, log, logStart)) from None


def askEngine(plugin, command: str, values: dict, folder: str, keepAlive: Callable[[], None] = lambda: None) -> Path:
    """Run one command of the engine outside a protocol, for a wizard, and wait; it is short and stays on the CPU.

    Parameters
    ----------
    values : settings by key, without the output.
    folder : receives the settings, the log, and the output folder, which is returned.
    keepAlive : called while the engine works, to keep a window alive; what it raises ends the engine.

    Raises
    ------
    ConfigError : a setting is wrong; found before a process is started.
    CryogemJobError : the engine failed.
    """
    output, path, log = (os.path.join(folder, command + suffix) for suffix in ('', '.json', '.stderr'))
    config = build_config(COMMANDS[command], {**values, 'output': output, 'device': 'cpu'})
    write_json(Path(path), config_to_json(config))
    program, arguments = getCommandLine(plugin, False, command, path)
    with open(log, 'w', encoding='utf-8') as stderr:
        process = subprocess.Popen(f'{program} {arguments}', shell=True, env=plugin.getEnviron(),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                                   start_new_session=True)
        exitCode = _waitFor(process, keepAlive)
    if exitCode:
        raise CryogemJobError(explainFailure(command, exitCode, log))
    return Path(output)


def _waitFor(process: subprocess.Popen, keepAlive: Callable[[], None]) -> int:
    """Return the exit code of a process that leads a session; it and its children die if the waiting is given up."""
    try:
        while True:
            try:
                return process.wait(_BEAT)
            except subprocess.TimeoutExpired:
                keepAlive()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def getCommandLine(plugin, usesGpu: bool, command: str, configPath: str) -> tuple[str, str]:
    """Return program and arguments for the shell; Scipion puts the ids of the GPUs in place of %(GPU)s."""
    activation = plugin.getEnvActivation()
    before, program = '', f'{shlex.quote(sys.executable)} -m cryogem'
    if activation:
        conda = plugin.getCondaActivationCmd() if 'conda' in activation else ''
        before, program = f'{conda} {activation} && '.lstrip(), f'python {shlex.quote(str(_LAUNCHER))}'
    arguments = f'{command} --config {shlex.quote(configPath)}'
    if usesGpu:                                         # both strings are then %-formatted
        before, program, arguments = (text.replace('%', '%%') for text in (before, program, arguments))
        program = 'CUDA_VISIBLE_DEVICES=%(GPU)s ' + program
    return before + program, arguments


def explainFailure(command: str, exitCode: int, log: str, logStart: int = 0) -> str:
    """Return one sentence on why the engine failed: its last `ERROR:` line, else what the exit code says.

    Parameters
    ----------
    log : run.stderr of the protocol; need not exist.
    logStart : where the engine began to write, bytes.
    """
    if os.path.exists(log):
        with open(log, encoding='utf-8', errors='replace') as file:
            file.seek(logStart)
            errors = [line for line in file if line.startswith(_ERROR_MARK)]
        if errors:
            message = errors[-1].removeprefix(_ERROR_MARK).strip()
            missing = _MISSING.match(message)
            return message if missing is None else (
                f'the environment of the engine has no package {missing[1]!r}; install the requirements of the plugin '
                f"there, or make an environment with 'scipion3 installb cryogem' (see {CRYOGEM_ENV_ACTIVATION})")
    if exitCode in (-9, 137):
        return f'cryogem {command} was killed, most likely for want of memory; use fewer threads or smaller crops'
    return f'cryogem {command} ended with exit code {exitCode}; see the last lines of run.stderr'
