"""Writes a dataset folder. A micrograph is finished when its record is there; tables come from the records."""

import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cryogem import __version__
from cryogem.dataset import layout, tables
from cryogem.errors import InputError, OutputError
from cryogem.imaging.calibration import Calibration
from cryogem.imaging.exposure import Exposure, expose_particles
from cryogem.io.files import compute_checksum, make_folder, read_json, replace_when_done, write_json, write_text
from cryogem.io.mrc import StackWriter, read_micrograph, write_image, write_volume
from cryogem.io.star import write_tables
from cryogem.records import Micrograph
from cryogem.specimen.ensemble import Ensemble

logger = logging.getLogger(__name__)

_ALWAYS_FREE = {'workers', 'device', 'continue', 'output'}                      # may differ when a run is continued


def check_output(
    folder: Path, description: dict[str, Any], continue_run: bool, free: Collection[str] = ('n_micrographs',)
) -> None:
    """Check, before any work, that a run may write into a folder: it is new, empty, or holds the run to be continued.

    Parameters
    ----------
    description : what `cryogem.config.describe_run` gives.
    free : settings that may differ from those the run was started with.

    Raises
    ------
    OutputError : the folder holds something else, or a run with other settings.
    """
    if _is_free(folder):
        return
    config = folder / layout.CONFIG
    if not continue_run:
        raise OutputError(f'output {str(folder)!r} is not empty; choose another folder, or say --continue')
    if not config.exists():
        raise OutputError(f'output {str(folder)!r} holds no cryogem run to continue; choose another folder')
    _check_same_run(folder, read_json(config, 'output'), description, free)


def check_empty(folder: Path) -> None:
    """Check, before any work, that a folder whose run cannot be continued is new or empty.

    Raises
    ------
    OutputError : it is a file, or holds something.
    """
    if not _is_free(folder):
        raise OutputError(f'output {str(folder)!r} is not empty; choose another folder')


def start_dataset(folder: Path, description: dict[str, Any]) -> None:
    """Make the folders of a run and write its config.json (`description`)."""
    for name in layout.FOLDERS:
        make_folder(folder / name)
    write_json(folder / layout.CONFIG, description)


def write_specimen(folder: Path, ensemble: Ensemble, calibration: Calibration) -> None:
    """Write the maps as they are projected, their masks, and the calibration."""
    for index, volume in enumerate(ensemble.volumes):
        write_volume(layout.volume_path(folder, index), volume.density, volume.pixel_size)
        write_volume(layout.mask_path(folder, index), volume.mask, volume.pixel_size)
    write_json(folder / layout.CALIBRATION, calibration.to_json())


def write_micrograph(folder: Path, exposure: Exposure, image: np.ndarray) -> None:
    """Write all files of one micrograph; its record, with the checksums of the others, comes last.

    Parameters
    ----------
    image : (h, w) float32 finished micrograph, grey values.
    """
    record = exposure.record
    write_image(layout.micrograph_path(folder, record.name), image.astype(np.float32), record.pixel_size)
    write_image(layout.clean_path(folder, record.name), exposure.clean, record.pixel_size)
    write_image(layout.instance_mask_path(folder, record.name), exposure.instance_mask, record.pixel_size)
    with replace_when_done(layout.semantic_mask_path(folder, record.name)) as temporary:
        Image.fromarray(np.where(exposure.instance_mask > 0, 255, 0).astype(np.uint8)).save(temporary, format='PNG')
    write_tables(layout.coordinates_path(folder, record.name), {'': tables.build_coordinates(record)})
    checksums = {str(path.relative_to(folder)): compute_checksum(path) for path in _list_files(folder, record.name)}
    write_json(layout.record_path(folder, record.name), {'record': record.to_json(), 'checksums': checksums})


def is_finished(folder: Path, name: str) -> bool:
    """Say whether a micrograph is there with all its files, unchanged since they were written."""
    path = layout.record_path(folder, name)
    if not path.exists():
        return False
    try:
        checksums = read_json(path, 'output')['checksums']
        return all(compute_checksum(folder / file) == checksum for file, checksum in checksums.items())
    except (InputError, OSError, KeyError, TypeError):
        logger.info('%s is incomplete and will be made again', name)
        return False


def finish_dataset(
    folder: Path, records: Sequence[Micrograph], description: dict[str, Any], particle_stacks: str,
    box_size: int, ensemble: Ensemble, symmetry: str = 'C1',
) -> None:
    """Write the tables, the particle stacks that are asked for, and the manifest.

    Parameters
    ----------
    records : of all micrographs, by index.
    particle_stacks : none, clean, generated or both.
    box_size : px, of coordinates and particle images.
    symmetry : point group; but for C1 the tables also say the equivalent pose in the asymmetric unit.
    """
    has_images, has_clean = particle_stacks in ('generated', 'both'), particle_stacks in ('clean', 'both')
    if has_images:
        _write_image_stack(folder, records, box_size)
    if has_clean:
        _write_clean_stack(folder, records, box_size, ensemble)
        _write_particles(folder / layout.CLEAN_PARTICLES_STAR, records, layout.CLEAN_STACK, box_size, symmetry)
    write_tables(folder / layout.MICROGRAPHS_STAR,
                 {'optics': tables.build_optics(records), 'micrographs': tables.build_micrographs(records)})
    _write_particles(folder / layout.PARTICLES_STAR, records, layout.STACK if has_images else None, box_size, symmetry)
    write_tables(folder / layout.OTHERS_STAR,
                 {'optics': tables.build_optics(records),
                  'particles': tables.build_particles(records, is_listed_pickable=False, symmetry=symmetry)})
    write_text(folder / layout.COORDINATES_TEXT, tables.format_topaz_coordinates(records))
    checksums: dict[str, str] = {}
    for record in records:
        checksums |= read_json(layout.record_path(folder, record.name), 'output')['checksums']
    write_json(folder / layout.MANIFEST, {
        'version': __version__, 'command': description['command'], 'seed': description['seed'], 'box_size': box_size,
        'pixel_size': records[0].pixel_size, 'shape': records[0].shape, 'is_complete': True,
        'n_particles': sum(len(tables.select_particles(record)) for record in records),
        'micrographs': [record.name for record in records], 'checksums': checksums})


def _write_particles(
    path: Path, records: Sequence[Micrograph], stack: str | None, box_size: int, symmetry: str
) -> None:
    write_tables(path, {'optics': tables.build_optics(records, box_size if stack else None),
                        'particles': tables.build_particles(records, stack=stack, symmetry=symmetry)})


def _write_image_stack(folder: Path, records: Sequence[Micrograph], box_size: int) -> None:
    """Cut the pickable particles from the micrographs: bright, normalised to the ring around them, as RELION does."""
    n = sum(len(tables.select_particles(record)) for record in records)
    with StackWriter(folder / layout.STACK, n, box_size, records[0].pixel_size) as stack:
        for record in records:
            image, _ = read_micrograph(layout.micrograph_path(folder, record.name), record.pixel_size)
            contrast = (image - record.grey_mean) / record.grey_sd
            padded = np.pad(-contrast, box_size // 2, mode='edge')        # RELION repeats the border, too
            for particle in tables.select_particles(record):
                x, y = particle.coordinate_xy
                stack.append(_normalise_to_ring(padded[y:y + box_size, x:x + box_size]))


def _write_clean_stack(folder: Path, records: Sequence[Micrograph], box_size: int, ensemble: Ensemble) -> None:
    n = sum(len(tables.select_particles(record)) for record in records)
    with StackWriter(folder / layout.CLEAN_STACK, n, box_size, records[0].pixel_size) as stack:
        for record in records:
            for image in expose_particles(record, tuple(tables.select_particles(record)), ensemble, box_size):
                stack.append(image)


def _normalise_to_ring(image: np.ndarray) -> np.ndarray:
    """Give the area outside the circle of three quarters of the box zero mean and unit sd."""
    box = image.shape[0]
    radius = np.hypot(*np.mgrid[:box, :box] - box // 2)
    ring = image[radius > 0.375 * box]
    return ((image - ring.mean()) / max(float(ring.std()), 1e-12)).astype(np.float32)


def _list_files(folder: Path, name: str) -> list[Path]:
    return [layout.micrograph_path(folder, name), layout.clean_path(folder, name),
            layout.instance_mask_path(folder, name), layout.semantic_mask_path(folder, name),
            layout.coordinates_path(folder, name)]


def _is_free(folder: Path) -> bool:
    """Say whether a folder is new or empty; what is no folder is refused."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f'output {str(folder)!r} is a file; name a folder')
    return not folder.exists() or not any(folder.iterdir())


def _check_same_run(folder: Path, before: dict[str, Any], now: dict[str, Any], free: Collection[str]) -> None:
    """Refuse to mix micrographs of two experiments in one folder."""
    now = json.loads(json.dumps(now))                                     # tuples become lists, as in the file
    for key in sorted(set(before) | set(now)):
        if key not in _ALWAYS_FREE and key not in free and before.get(key) != now.get(key):
            raise OutputError(f'{key} is {now.get(key)!r} but the run in {str(folder)!r} was started with '
                              f'{before.get(key)!r}; use the same value, or another output folder')
