"""`cryogem merge`: the end of a run that was made in shards."""

from pathlib import Path

from cryogem.commands.making import check_complete, complete_dataset, report_dataset
from cryogem.config import MergeConfig
from cryogem.dataset import layout
from cryogem.dataset.plan import read_plan
from cryogem.dataset.reader import load_ensemble, read_calibration
from cryogem.dataset.writer import remove_half_written
from cryogem.errors import InputError


def run(config: MergeConfig, output: Path) -> None:
    """Check that all shards are there, then write tables, stacks and manifest."""
    if not (output / layout.OUTLINE).exists():
        raise InputError(f'output {str(output)!r} holds no shards of a simulate or generate run; '
                         'give the folder that they were written to')
    plan = read_plan(output, 'output')
    check_complete(output, plan, config.workers)
    remove_half_written(output)                         # shards leave that to the end: others may be writing
    ensemble = load_ensemble(output, read_calibration(output, 'output'))
    report_dataset(complete_dataset(output, plan, ensemble), output)
