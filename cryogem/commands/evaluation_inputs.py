"""What evaluate reads: generated sets with their truth, real micrographs with picks, and what belongs to them."""

import dataclasses
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryogem.commands.development import build_noise
from cryogem.commands.inputs import match_coordinates, read_ctfs, read_frames
from cryogem.config import (
    CalibrateConfig,
    EvaluateConfig,
    GenerateConfig,
    SimulateConfig,
    build_config,
    read_config_file,
)
from cryogem.dataset import layout
from cryogem.dataset.reader import read_calibration, read_grey_values, read_record
from cryogem.dataset.tables import select_particles
from cryogem.errors import InputError
from cryogem.evaluation.controls import Noise, fit_white_noise
from cryogem.evaluation.frames import Frame, build_frame
from cryogem.imaging.calibration import Calibration
from cryogem.imaging.resampling import resample_centers, resample_image
from cryogem.io.files import find_by_stem, find_files, read_json
from cryogem.io.mrc import read_micrograph
from cryogem.records import Ctf, Micrograph

logger = logging.getLogger(__name__)

# names of columns that no generated set may take
_OTHER_COLUMNS = {'real', 'shipped', 'measured', 'gaussian', 'gaussian_fitted', 'poisson', 'poisson_gaussian'}


@dataclass(frozen=True)
class GeneratedSet:
    """A finished generate run."""

    name: str                               # its column
    folder: Path
    config: GenerateConfig
    calibration: Calibration
    frames: tuple[Frame, ...]
    box_size: int                           # px

    @property
    def sign(self) -> int:
        """-1 where particles are bright in its grey values."""
        return -1 if self.calibration.micrographs[0].grey_sd < 0 else 1


def read_sets(folders: Sequence[str]) -> list[GeneratedSet]:
    """Read finished generate runs; a run that shares its folder's name with another is told apart by a number.

    Raises
    ------
    InputError : a folder holds no finished generate run, or pixel sizes differ.
    """
    sets: list[GeneratedSet] = []
    for folder in map(Path, folders):
        name = Path(os.path.abspath(folder)).name       # of a link its own: it may say more than its target's
        taken = {one.name for one in sets} | _OTHER_COLUMNS
        name = next(one for one in (name, *(f'{name}_{i}' for i in range(2, len(folders) + 3))) if one not in taken)
        sets.append(_read_set(folder, name))
    first = sets[0].calibration.pixel_size
    for one in sets:
        if abs(one.calibration.pixel_size / first - 1) > 0.01:
            raise InputError(f'generated {str(one.folder)!r} has {one.calibration.pixel_size:g} Å/px but '
                             f'{str(sets[0].folder)!r} has {first:g}; evaluate sets of one pixel size together')
    return sets


def read_real(
    patterns: Sequence[str], coordinates: Sequence[str], pixel_size: float | None, calibration: Calibration, sign: int
) -> list[Frame]:
    """Read real micrographs with their picks, at the pixel size of the calibration."""
    files = find_by_stem(find_files(patterns, 'real'), 'real')
    picks = match_coordinates(coordinates, files)
    frames = [build_frame(one.name, one.image, one.centers_yx, sign)
              for one in read_frames(files, picks, pixel_size, calibration.pixel_size)]
    for frame in frames:
        _check_size(f'real: {frame.name}', frame, calibration)
    return frames


def list_labels(frames: Sequence[Frame]) -> list[Ctf | None]:
    """Return the CTF that each micrograph was made with."""
    return [one.record.ctf if one.record else None for one in frames]


def find_real_ctfs(config: EvaluateConfig, frames: Sequence[Frame], calibration: Calibration) -> list[Ctf | None]:
    """Return the CTFs of real micrographs: those of the table, else what the calibration knows, by their names."""
    known = {one.name: one.ctf for one in calibration.micrographs}
    if config.ctfs:
        # what the table does not say of the microscope counts as the defaults of calibrate
        microscope = CalibrateConfig(output=config.output, micrographs=config.real)
        known |= read_ctfs(Path(config.ctfs), [one.name for one in frames], microscope)
    return [known.get(one.name) for one in frames]


def build_noises(one: GeneratedSet, config: EvaluateConfig) -> dict[str, Noise]:
    """Return the noise of each control, by the names of the noise models, from the calibration of a generated set."""
    def finish(model: str, snr: float | None = None) -> Noise:
        changed = dataclasses.replace(one.config, model=model, snr=snr or 0.1)
        return build_noise(changed, one.calibration)

    noises: dict[str, Noise] = {name: finish(name) for name in ('measured', 'gaussian')}
    noises['gaussian_fitted'] = fit_white_noise(lambda snr: finish('gaussian', snr))
    return noises | {name: finish(name) for name in ('poisson', 'poisson_gaussian')}


def find_symmetry(one: GeneratedSet, config: EvaluateConfig) -> str:
    """Return the point group: what is said, else that of the simulate run, else C1."""
    if config.symmetry:
        return config.symmetry.upper()
    path = Path(one.config.dataset) / layout.CONFIG
    if path.exists():
        return build_config(SimulateConfig, read_config_file(path)).symmetry.upper()
    logger.warning('the simulate run %s is not there any more, so symmetry counts as C1; say --symmetry', path.parent)
    return 'C1'


def _read_set(folder: Path, name: str) -> GeneratedSet:
    calibration = read_calibration(folder, 'generated')
    manifest = read_json(folder / layout.MANIFEST, 'generated')
    if manifest.get('command') != 'generate':
        raise InputError(f'generated {str(folder)!r} holds a {manifest.get("command")} run; '
                         'give the output folder of cryogem generate')
    config = build_config(GenerateConfig, read_config_file(folder / layout.CONFIG))
    frames = tuple(_read_generated(folder, one, calibration) for one in manifest['micrographs'])
    box_size = int(manifest['box_size'])        # in px of the files, which may be finer than the working ones
    if manifest['pixel_size'] != calibration.pixel_size:
        box_size = 2 * math.ceil(box_size * manifest['pixel_size'] / calibration.pixel_size / 2)
    return GeneratedSet(name, folder, config, calibration, frames, box_size)


def _read_generated(folder: Path, name: str, calibration: Calibration) -> Frame:
    record = read_record(folder, name)
    image, clean = read_grey_values(folder, record), None
    if layout.clean_path(folder, name).exists():
        clean, _ = read_micrograph(layout.clean_path(folder, name), record.pixel_size)
        clean = resample_image(clean, record.pixel_size, calibration.pixel_size)
    image = resample_image(image, record.pixel_size, calibration.pixel_size)
    record = _scale_record(record, image.shape, calibration.pixel_size)
    centers = np.array([particle.center_yx for particle in select_particles(record)]).reshape(-1, 2)
    sign = -1 if calibration.micrographs[0].grey_sd < 0 else 1
    frame = build_frame(name, image, centers, sign, record, clean)
    _check_size(f'generated: {name}', frame, calibration)
    return frame


def _scale_record(record: Micrograph, shape: tuple[int, ...], pixel_size: float) -> Micrograph:
    """Return the record of a micrograph that was brought to the working pixel size and to (h, w) `shape`."""
    if record.shape == shape:
        return record
    centers = np.array([one.center_yx for one in record.particles]).reshape(-1, 2)
    centers = resample_centers(centers, record.shape, shape)
    particles = tuple(dataclasses.replace(one, center_yx=(float(y), float(x)))
                      for one, (y, x) in zip(record.particles, centers, strict=True))
    return dataclasses.replace(record, shape=(shape[0], shape[1]), pixel_size=pixel_size, particles=particles)


def _check_size(caption: str, frame: Frame, calibration: Calibration) -> None:
    if min(frame.contrast.shape) < 2 * calibration.particle_diameter / calibration.pixel_size:
        raise InputError(f'{caption} is {min(frame.contrast.shape)} px wide, less than two particles; check pixel_size')
