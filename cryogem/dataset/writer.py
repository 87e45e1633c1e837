"""Writes the files of a dataset folder that belong to one micrograph. Its record comes last: then it is finished."""

import dataclasses
import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from cryogem.dataset import exchange, layout, tables
from cryogem.dataset.plan import Plan
from cryogem.errors import InputError, OutputError
from cryogem.imaging.calibration import Calibration
from cryogem.imaging.exposure import Exposure
from cryogem.io.files import (
    compute_checksum,
    format_json,
    make_folder,
    read_json,
    remove_leftovers,
    write_bytes,
    write_json,
    write_text,
    write_text_once,
)
from cryogem.io.mrc import LABEL, write_image, write_volume
from cryogem.io.png import encode_mask
from cryogem.io.star import write_tables
from cryogem.records import Micrograph
from cryogem.specimen.ensemble import Ensemble

logger = logging.getLogger(__name__)

_ALWAYS_FREE = {'workers', 'device', 'continue', 'output', 'shard', 'memory'}  # may differ when a run is continued


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
    """Make the folder of a run and write its config.json (`description`): from now on it can be continued."""
    make_folder(folder)
    write_json(folder / layout.CONFIG, description)


def claim_calibration(folder: Path, calibration: Calibration) -> Calibration:
    """Write the calibration unless another process of the same run has, and return what all of them shall use."""
    path = folder / layout.CALIBRATION
    write_text_once(path, format_json(calibration.to_json()))
    return Calibration.from_json(read_json(path, 'output'))


def write_specimen(folder: Path, ensemble: Ensemble, calibration: Calibration) -> None:
    """Write the maps as they are projected, their masks, and the calibration."""
    make_folder(folder / 'specimen')
    for index, volume in enumerate(ensemble.volumes):
        write_volume(layout.volume_path(folder, index), volume.density, volume.pixel_size)
        write_volume(layout.mask_path(folder, index), volume.mask, volume.pixel_size)
    write_json(folder / layout.CALIBRATION, calibration.to_json())


def write_plan(folder: Path, plan: Plan) -> None:
    """Make the folders that micrographs are written to, and say in outline.json what will come."""
    names = ['micrographs', 'records', 'coordinates']
    names += [name for name, formats in (('clean', {'clean'}), ('masks', {'masks', 'png', 'coco'}),
                                         ('boxes', {'eman', 'cryolo'})) if formats & set(plan.formats)]
    for name in names:
        make_folder(folder / name)
    write_json(folder / layout.OUTLINE, plan.to_json())


def remove_surplus(folder: Path, plan: Plan) -> int:
    """Remove the micrographs beyond those of the plan, left by a longer run; return how many there were."""
    surplus = []
    for path in (folder / 'records').glob(f'{plan.prefix}_*.json'):
        number = path.stem.removeprefix(f'{plan.prefix}_')
        if number.isascii() and number.isdigit() and int(number) > plan.n_micrographs:
            surplus.append(path.stem)
    for name in surplus:
        for path in layout.list_paths(folder, name):
            path.unlink(missing_ok=True)
    return len(surplus)


def remove_half_written(folder: Path) -> None:
    """Remove the temporary files that a killed run left."""
    report = (folder / layout.CALIBRATION_REPORT).parent
    for one in (folder, *(folder / name for name in layout.FOLDERS), report, report / layout.OUTLIERS):
        remove_leftovers(one)


def write_micrograph(folder: Path, exposure: Exposure, image: np.ndarray, plan: Plan) -> None:
    """Write all files of one micrograph; its record, with the checksums of the others, comes last.

    Parameters
    ----------
    exposure, image : record, clean picture, mask and the (h, w) float32 finished micrograph, grey values; all in the
        sampling of the plan.
    """
    record, stored = store_grey_values(exposure.record, image, plan.pixel_type)
    name, size = record.name, record.pixel_size
    files = {layout.micrograph_path(folder, name): write_image(
        layout.micrograph_path(folder, name), stored, size, _describe_scaling(record))}
    if 'clean' in plan.formats:
        path = layout.clean_path(folder, name)
        files[path] = write_image(path, exposure.clean, size)
    if 'masks' in plan.formats:
        path = layout.instance_mask_path(folder, name)
        files[path] = write_image(path, exposure.instance_mask, size)
    if 'png' in plan.formats:
        path = layout.semantic_mask_path(folder, name)
        files[path] = write_bytes(path, encode_mask(exposure.instance_mask > 0))
    files |= _write_labels(folder, record, exposure.instance_mask, plan)
    checksums = {str(path.relative_to(folder)): checksum for path, checksum in files.items()}
    write_text(layout.record_path(folder, name), _format_record(record, checksums))


def store_grey_values(record: Micrograph, image: np.ndarray, pixel_type: str) -> tuple[Micrograph, np.ndarray]:
    """Return (h, w) grey values as they are stored, and the record with the scaling that restores them.

    int8 reaches from the farthest values on both sides of the mean, cut off at 12 sd, in 254 equal steps.
    """
    if pixel_type == 'float32':
        return record, image.astype(np.float32, copy=False)
    if pixel_type == 'float16':
        return record, image.astype(np.float16)
    mean, sd = float(image.mean(dtype=np.float64)), float(image.std())
    reach = min(max(float(image.max()) - mean, mean - float(image.min())), 12 * sd)
    scale = max(reach, 1e-12) / 127
    stored = np.clip(np.rint((image - np.float32(mean)) / np.float32(scale)), -127, 127).astype(np.int8)
    return dataclasses.replace(record, stored_scale=scale, stored_offset=mean), stored


def is_finished(folder: Path, name: str) -> bool:
    """Say whether a micrograph is there with all its files, unchanged since they were written."""
    path = layout.record_path(folder, name)
    if not path.exists():
        return False
    try:
        checksums = read_json(path, 'output')['checksums']
        return all(compute_checksum(folder / file) == checksum for file, checksum in checksums.items())
    except (InputError, OSError, KeyError, TypeError, AttributeError):
        logger.info('%s is incomplete and will be made again', name)
        return False


def _write_labels(folder: Path, record: Micrograph, instance_mask: np.ndarray, plan: Plan) -> dict[Path, str]:
    """Write coordinates, boxes and outlines; return the checksums of the files."""
    path = layout.coordinates_path(folder, record.name)
    files = {path: write_tables(path, {'': tables.build_coordinates(record)})}
    if 'eman' in plan.formats:
        path = layout.eman_boxes_path(folder, record.name)
        files[path] = write_text(path, exchange.format_eman_boxes(record, plan.box_size))
    if 'cryolo' in plan.formats:
        path = layout.cryolo_boxes_path(folder, record.name)
        files[path] = write_text(path, exchange.format_cryolo_boxes(record, plan.box_size))
    if 'coco' in plan.formats:
        path = layout.instances_path(folder, record.name)
        files[path] = write_text(path, json.dumps(exchange.encode_instances(instance_mask, record)))
    return files


def _describe_scaling(record: Micrograph) -> str:
    """Return the label of the header: with int8, how grey values are restored."""
    if record.stored_scale == 1 and record.stored_offset == 0:
        return LABEL
    return f'{LABEL}: grey = value * {record.stored_scale:.7g} + {record.stored_offset:.7g}'


def _format_record(record: Micrograph, checksums: dict[str, str]) -> str:
    """Return the record as JSON, one particle a line: indenting all would take ten times as long."""
    values = record.to_json()
    particles = ',\n  '.join(map(json.dumps, values.pop('particles')))
    return (f'{{"record": {json.dumps(values)[:-1]}, "particles": [\n  {particles}\n]}},\n'
            f'"checksums": {json.dumps(checksums, indent=1)}}}\n')


def _is_free(folder: Path) -> bool:
    """Say whether a folder is new or empty; what is no folder is refused."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f'output {str(folder)!r} is a file; name a folder')
    return not folder.exists() or not any(one.suffix != '.part' for one in folder.iterdir())


def _check_same_run(folder: Path, before: dict[str, Any], now: dict[str, Any], free: Collection[str]) -> None:
    """Refuse to mix micrographs of two experiments in one folder."""
    now = json.loads(json.dumps(now))                                     # tuples become lists, as in the file
    for key in sorted(set(before) | set(now)):
        if key not in _ALWAYS_FREE and key not in free and before.get(key) != now.get(key):
            raise OutputError(f'{key} is {now.get(key)!r} but the run in {str(folder)!r} was started with '
                              f'{before.get(key)!r}; use the same value, or another output folder')
