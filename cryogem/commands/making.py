"""What simulate and generate do alike once all is drawn up: make the missing micrographs, then the tables."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryogem.config import GenerateConfig, SimulateConfig, describe_run
from cryogem.dataset import layout
from cryogem.dataset.production import Maker, produce
from cryogem.dataset.reader import read_record
from cryogem.dataset.writer import finish_dataset, is_finished, start_dataset, write_specimen
from cryogem.imaging.calibration import Calibration
from cryogem.io.files import write_json
from cryogem.records import Micrograph, name_micrograph
from cryogem.specimen.ensemble import Ensemble

logger = logging.getLogger(__name__)


def make_dataset(
    command: str, config: SimulateConfig | GenerateConfig, output: Path, calibration: Calibration, ensemble: Ensemble,
    build_maker: Callable[..., Maker], arguments: tuple[Any, ...], box_size: int, symmetry: str,
) -> None:
    """Write a dataset folder; micrographs that are there and whole are kept.

    Parameters
    ----------
    build_maker, arguments : as for `cryogem.dataset.production.produce`.
    box_size : px, of coordinates and particle images.
    symmetry : point group of the particle.
    """
    description = describe_run(command, config)
    start_dataset(output, description)
    write_specimen(output, ensemble, calibration)
    write_json(output / layout.OUTLINE, {'box_size': box_size})
    names = [name_micrograph(config.prefix, index) for index in range(config.n_micrographs)]
    missing = [index for index, name in enumerate(names) if not is_finished(output, name)]
    produce(build_maker, arguments, missing, len(names), config.workers)
    records = [read_record(output, name) for name in names]
    finish_dataset(output, records, description, config.particles, box_size, ensemble, symmetry)
    report_dataset(records, output)


def report_dataset(records: Sequence[Micrograph], output: Path) -> None:
    """Say how much was made, and where frames were too full for the particles they were to hold."""
    placed = sum(1 for record in records for one in record.particles if record.is_center_inside(one))
    wanted = sum(record.n_requested for record in records)
    if placed < 0.98 * wanted:
        logger.warning('the micrographs hold %d particles of the %d that were asked for: there is no room for more; '
                       'ask for fewer, or allow a smaller minimum_distance', placed, wanted)
    logger.info('%d micrographs with %d particles: %s', len(records), placed, output)
