"""What the commands read: real micrographs with picks and CTFs, and maps."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryogem.config import MicroscopeConfig, SimulateConfig
from cryogem.dataset.reader import split_weight
from cryogem.errors import ConfigError, InputError
from cryogem.imaging.calibration import Calibration, RealMicrograph, measure_frame_power
from cryogem.imaging.grey import measure_grey_scale
from cryogem.imaging.resampling import resample_centers, resample_image
from cryogem.io.files import find_by_stem, find_files
from cryogem.io.mrc import read_micrograph, read_micrograph_header, read_volume
from cryogem.io.star import read_coordinates, read_tables
from cryogem.records import Ctf
from cryogem.specimen.orientation import ViewPreference
from cryogem.specimen.volume import PreparedVolume, flatten_solvent

logger = logging.getLogger(__name__)

_MEASURED_SIDE = 1024                       # px of a file whose spectrum beyond the working Nyquist frequency is taken


def choose_device(device: str) -> torch.device:
    """Return the torch device of the setting `device`; ranks of torchrun share the GPUs of their computer.

    Raises
    ------
    ConfigError : a GPU is asked for that torch does not see.
    """
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cuda' and 'LOCAL_RANK' in os.environ and torch.cuda.is_available():
        return torch.device('cuda', int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
    chosen = torch.device(device)
    if chosen.type == 'cuda' and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f'device {device!r} is not there: torch sees {torch.cuda.device_count()} GPUs; '
                          'say cpu or auto')
    return chosen


def find_pixel_size(patterns: Sequence[str], pixel_size: float | None) -> float:
    """Return the pixel size (Å/px) of the real micrographs: what is said, else that of the first header."""
    return read_micrograph_header(find_files(patterns, 'micrographs')[0], pixel_size)[1]


def read_real_micrographs(config: MicroscopeConfig, working_pixel_size: float) -> list[RealMicrograph]:
    """Read the real micrographs with their picks and CTFs, at the working pixel size.

    Raises
    ------
    InputError : names do not match, pixel sizes differ, or a file cannot be used.
    """
    files = find_by_stem(find_files(config.micrographs, 'micrographs'), 'micrographs')
    picks = match_coordinates(config.coordinates, files)
    ctfs = read_ctfs(Path(config.ctfs), list(files), config) if config.ctfs else {}
    frames = read_frames(files, picks, config.pixel_size, working_pixel_size)
    return [dataclasses.replace(one, ctf=ctfs.get(one.name)) for one in frames]


def read_frames(
    files: dict[str, Path], picks: dict[str, Path], pixel_size: float | None, working_pixel_size: float
) -> list[RealMicrograph]:
    """Read micrographs by name with their picks and bring both to the working pixel size.

    Parameters
    ----------
    pixel_size : Å/px, or None to take it from the headers.

    Raises
    ------
    InputError : pixel sizes differ, picks lie outside, or a file cannot be used.
    """
    first = read_micrograph_header(next(iter(files.values())), pixel_size)[1]
    frames = []
    for name, path in files.items():
        image, own = read_real_image(path, pixel_size)
        if abs(own / first - 1) > 0.01:
            raise InputError(f'micrographs differ in pixel size: {str(path)!r} has {own:g} Å/px, the first one '
                             f'{first:g}; run sets of one pixel size apart')
        resampled = resample_image(image, first, working_pixel_size)
        centers = read_coordinates(picks[name]) if name in picks else np.empty((0, 2))
        _check_inside(centers, image.shape, name)
        frames.append(RealMicrograph(name, resampled, resample_centers(centers, image.shape, resampled.shape),
                                     original_power=_measure_whole(image),
                                     original_shape=(image.shape[0], image.shape[1])))
    return frames


def _measure_whole(image: np.ndarray) -> np.ndarray:
    """Return the (N_SHELLS,) spectrum of an (h, w) file, grey values² per px; outlying pixels do not count.

    Of the whole frame, or of the middle of a large one, which costs a fraction and has several modes for each shell:
    in smaller tiles the finest Thon rings would run into each other.
    """
    middle = image[tuple(slice((length - side) // 2, (length + side) // 2) for length, side in zip(
        image.shape, (min(length, _MEASURED_SIDE) for length in image.shape), strict=True))]
    scale = measure_grey_scale(middle)
    return measure_frame_power(scale.normalise(middle)) * scale.sd ** 2


def read_real_image(path: Path, pixel_size: float | None) -> tuple[np.ndarray, float]:
    """Read one real micrograph: (h, w) float32 and its pixel size, Å/px.

    Raises
    ------
    InputError : as `read_micrograph`, or all its pixels are equal.
    """
    image, own = read_micrograph(path, pixel_size)
    if image.min() == image.max():
        raise InputError(f'micrograph {str(path)!r} is constant ({image.flat[0]:g}); leave it out')
    return image, own


def read_ctfs(path: Path, names: Sequence[str], config: MicroscopeConfig) -> dict[str, Ctf]:
    """Read the CTF of each micrograph from a RELION micrographs STAR file, by file name without folder and extension.

    Raises
    ------
    InputError : columns are missing, a value is no number, or a micrograph has no row.
    """
    blocks = read_tables(path)
    rows = next((table for table in blocks.values() if 'rlnMicrographName' in table and 'rlnDefocusU' in table), None)
    if rows is None:
        raise InputError(f'ctfs {str(path)!r} has no table with rlnMicrographName and rlnDefocusU; '
                         'give the micrographs.star of a CTF estimation')
    groups = blocks['optics'].to_dict('records') if 'optics' in blocks else []
    optics = {int(row['rlnOpticsGroup']): row for row in groups}
    try:
        ctfs = {Path(row['rlnMicrographName']).stem: _build_ctf(row, optics, config) for row in rows.to_dict('records')}
    except ValueError as error:
        raise InputError(f'ctfs {str(path)!r} hold a value that is no number: {error}; correct it') from error
    missing = [name for name in names if name not in ctfs]
    if missing:
        raise InputError(f'ctfs {str(path)!r} has no row for micrograph {missing[0]!r} ({len(missing)} of {len(names)} '
                         'are missing); give the table of the same micrographs')
    return ctfs


def read_maps(
    volumes: Sequence[str], volume_pixel_size: float | None, config: SimulateConfig
) -> tuple[list[PreparedVolume], list[float]]:
    """Read and mask maps; return them, at their own pixel sizes, and their weights.

    Parameters
    ----------
    volumes : as the setting `volume`.
    volume_pixel_size : of all maps, Å/px; None: as their headers say.
    config : how they are masked and filtered.
    """
    prepared, weights = [], []
    given = read_volume(Path(config.mask), config.volume_pixel_size or 1.0)[0] if config.mask else None
    for volume in volumes:
        path, weight = split_weight(volume)
        density, pixel_size = read_volume(Path(path), volume_pixel_size)
        if given is not None and given.shape != density.shape:
            raise InputError(f'mask {config.mask!r} has a box of {given.shape[0]} px and volume {path!r} one of '
                             f'{density.shape[0]}; give a mask sampled as the map')
        prepared.append(flatten_solvent(density, pixel_size, config.mask_threshold, config.low_pass, given))
        weights.append(weight)
        if prepared[-1].diameter > density.shape[0] * pixel_size:
            logger.warning('map %s: its particle of %.0f Å is cut at the walls of its box of %.0f Å; give the map in a '
                           'larger box, or a higher mask_threshold', path, prepared[-1].diameter,
                           density.shape[0] * pixel_size)
        logger.info('map %s: box %d px, %.3g Å/px, particle diameter %.0f Å, middle at z, y, x = %s Å off centre',
                    path, density.shape[0], pixel_size, prepared[-1].diameter,
                    ', '.join(f'{one:.1f}' for one in prepared[-1].find_center_of_mass()))
    return prepared, weights


def read_views(config: SimulateConfig) -> ViewPreference:
    """Return the views that the settings prefer.

    Raises
    ------
    InputError : the angular distribution has no poses.
    """
    if config.preferred_view is not None:
        return ViewPreference(((*config.preferred_view, 0.0),), config.view_spread, is_in_plane_free=True)
    if not config.angular_distribution:
        return ViewPreference()
    names = ['rlnAngleRot', 'rlnAngleTilt', 'rlnAnglePsi']
    tables = read_tables(Path(config.angular_distribution)).values()
    table = next((one for one in tables if all(name in one for name in names)), None)
    if table is None or not len(table):
        raise InputError(f'angular_distribution {config.angular_distribution!r} has no rows with rlnAngleRot, '
                         'rlnAngleTilt and rlnAnglePsi; give the particles.star of a refinement')
    poses = table[names].to_numpy(dtype=float).tolist()
    return ViewPreference(tuple((pose[0], pose[1], pose[2]) for pose in poses), config.view_spread)


def read_forbidden(patterns: Sequence[str], calibration: Calibration) -> tuple[np.ndarray | None, ...]:
    """Return where no particle may lie: one (h, w) bool mask for each real micrograph, or one for all.

    Raises
    ------
    InputError : the masks are named like no micrograph.
    """
    if not patterns:
        return ()
    files = find_by_stem(find_files(patterns, 'exclusion_masks'), 'exclusion_masks')
    names = [one.name for one in calibration.micrographs]
    if len(files) == 1 and not set(files) & set(names):
        return (_read_mask(next(iter(files.values())), calibration.shape),)
    if not set(files) & set(names):
        raise InputError(f'exclusion_masks {str(next(iter(files.values())))!r} and the others are not named like any '
                         f'micrograph ({names[0]!r}, ...); give one mask, or masks of the same names')
    return tuple(_read_mask(files[name], calibration.shape) if name in files else None for name in names)


def match_coordinates(patterns: Sequence[str], micrographs: dict[str, Path]) -> dict[str, Path]:
    """Return the picks of each micrograph by its name; some micrographs may have none, but not all."""
    if not patterns:
        return {}
    picks = find_by_stem(find_files(patterns, 'coordinates'), 'coordinates')
    matched = {name: picks[name] for name in micrographs if name in picks}
    if not matched:
        raise InputError(f'coordinates {str(next(iter(picks.values())))!r} and the others are not named like any '
                         f'micrograph ({next(iter(micrographs))!r}, ...); give files of the same names')
    without = len(micrographs) - len(matched)
    if without:
        logger.warning('%d of %d micrographs have no coordinates and count as without particles',
                       without, len(micrographs))
    return matched


def _read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a mask of any size and bring it to `shape` by its nearest pixels; True where it is not 0."""
    mask, _ = read_micrograph(path, pixel_size=1.0)
    rows, columns = ((np.arange(new) * old // new) for old, new in zip(mask.shape, shape, strict=True))
    return mask[rows[:, None], columns] != 0


def _check_inside(centers_yx: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    """Refuse picks that belong to another frame or binning: more than a tenth of them outside."""
    is_outside = ((centers_yx < -0.5) | (centers_yx > np.array(shape[:2]) - 0.5)).any(axis=1)
    if is_outside.sum() > 0.1 * len(centers_yx):
        raise InputError(f'coordinates of micrograph {name!r} lie outside its {shape[1]} x {shape[0]} px '
                         f'({is_outside.sum()} of {len(centers_yx)}); give them in pixels of that file')


def _build_ctf(row: dict[str, Any], optics: dict[int, dict[str, Any]], config: MicroscopeConfig) -> Ctf:
    """Make the CTF of a STAR row; what the row does not say comes from its optics group, then from the settings."""
    known = {**optics.get(int(row.get('rlnOpticsGroup', 1)), {}), **row}
    defocus = [float(known['rlnDefocusU']), float(known.get('rlnDefocusV', known['rlnDefocusU']))]
    angle = float(known.get('rlnDefocusAngle', 0.0)) + (90.0 if defocus[0] < defocus[1] else 0.0)
    return Ctf(
        max(defocus), min(defocus), angle % 180, float(known.get('rlnVoltage', config.voltage)),
        float(known.get('rlnSphericalAberration', config.spherical_aberration)),
        float(known.get('rlnAmplitudeContrast', config.amplitude_contrast)),
        float(known.get('rlnPhaseShift', 0.0)), float(known.get('rlnCtfBfactor', 0.0)))
