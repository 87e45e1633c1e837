"""What simulate, generate and merge do alike once all is drawn up: make the missing micrographs, then the tables."""

import dataclasses
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from cryogem.config import GenerateConfig, SimulateConfig, describe_run
from cryogem.dataset.finishing import Contents, finish_dataset
from cryogem.dataset.plan import Plan
from cryogem.dataset.production import Maker, produce
from cryogem.dataset.team import Team
from cryogem.dataset.writer import (
    check_output,
    is_finished,
    remove_half_written,
    remove_surplus,
    start_dataset,
    write_plan,
    write_specimen,
)
from cryogem.errors import InputError
from cryogem.imaging.calibration import Calibration
from cryogem.progress import Progress
from cryogem.records import name_micrograph
from cryogem.specimen.ensemble import Ensemble

logger = logging.getLogger(__name__)

_SHOWN = 3                                  # names of missing micrographs in a message


def describe_dataset(command: str, config: SimulateConfig | GenerateConfig) -> dict[str, Any]:
    """Return what config.json of a run holds: the same for all its shards."""
    return describe_run(command, dataclasses.replace(config, shard=''))


def enter_output(command: str, config: SimulateConfig | GenerateConfig, output: Path, team: Team) -> None:
    """Check that this run may write into the folder; a shard may join the others of its run.

    Raises
    ------
    OutputError : the folder holds something else, or a run with other settings.
    """
    if team.is_first:
        check_output(output, describe_dataset(command, config), config.continue_ or team.is_shared)
    team.wait()


def make_dataset(
    config: SimulateConfig | GenerateConfig, output: Path, plan: Plan, calibration: Calibration, ensemble: Ensemble,
    team: Team, build_maker: Callable[..., Maker], arguments: tuple[Any, ...],
) -> None:
    """Write a dataset folder; micrographs that are there and whole are kept.

    Of a job array, each shard makes its own part and leaves the tables to `cryogem merge`.

    Parameters
    ----------
    build_maker, arguments : as for `cryogem.dataset.production.produce`.
    """
    def start() -> None:
        if team.is_first:
            start_dataset(output, describe_dataset(plan.command, config))
            if not team.is_shared:                      # other shards may be writing
                remove_half_written(output)
            write_specimen(output, ensemble, calibration)
            write_plan(output, plan)

    team.in_turn(start)
    own = team.list_indices(plan.n_micrographs)
    missing = find_missing(output, plan, own, config.workers)
    produce(build_maker, arguments, missing, len(own), config.workers, team.label)
    team.wait()
    if team.is_shared:
        logger.info('shard %d of %d is done: when all are, run cryogem merge --output %s', team.shard + 1,
                    team.n_shards, output)
    elif team.is_first:
        report_dataset(complete_dataset(output, plan, ensemble), output)


def complete_dataset(output: Path, plan: Plan, ensemble: Ensemble) -> Contents:
    """Write tables and manifest, then remove what a longer run left."""
    contents = finish_dataset(output, plan, ensemble)
    n_surplus = remove_surplus(output, plan)
    if n_surplus:
        logger.info('%d micrographs beyond the %d that were asked for are removed', n_surplus, plan.n_micrographs)
    return contents


def find_missing(output: Path, plan: Plan, indices: range, n_workers: int) -> list[int]:
    """Return those of `indices` whose micrographs are not there or not whole; checksums are compared."""
    names = [name_micrograph(plan.prefix, index) for index in indices]
    if not any((output / 'records').iterdir()):
        return list(indices)
    progress, missing = Progress('micrographs checked', len(names)), []
    with ThreadPoolExecutor(n_workers) as pool:
        for n_checked, (index, is_there) in enumerate(
                zip(indices, pool.map(partial(is_finished, output), names), strict=True), 1):
            if not is_there:
                missing.append(index)
            progress.update(n_checked)
    return missing


def check_complete(output: Path, plan: Plan, n_workers: int) -> None:
    """Check that every micrograph of the plan is there and whole.

    Raises
    ------
    InputError : some are not.
    """
    missing = find_missing(output, plan, range(plan.n_micrographs), n_workers)
    if missing:
        shown = ', '.join(name_micrograph(plan.prefix, index) for index in missing[:_SHOWN])
        more = ', ...' if len(missing) > _SHOWN else ''
        raise InputError(f'output {str(output)!r} lacks {len(missing)} of {plan.n_micrographs} micrographs ({shown}'
                         f'{more}); run the shards that make them again with --continue')


def report_dataset(contents: Contents, output: Path) -> None:
    """Say how much was made, and where frames were too full for the particles they were to hold."""
    if contents.n_inside < 0.98 * contents.n_requested:
        logger.warning('the micrographs hold %d particles of the %d that were asked for: there is no room for more; '
                       'ask for fewer, or allow a smaller minimum_distance', contents.n_inside, contents.n_requested)
    logger.info('%d micrographs with %d particles: %s', contents.n_micrographs, contents.n_inside, output)
