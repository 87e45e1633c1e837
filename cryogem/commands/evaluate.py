"""`cryogem evaluate`: generated micrographs compared with real ones."""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from cryogem.commands.inputs import match_coordinates, read_frames
from cryogem.config import EvaluateConfig, describe_run
from cryogem.dataset import layout
from cryogem.dataset.reader import read_calibration, read_record
from cryogem.dataset.tables import select_particles
from cryogem.dataset.writer import check_empty
from cryogem.errors import InputError
from cryogem.evaluation.gallery import Exhibit, write_gallery
from cryogem.evaluation.spectra import compare_spectra
from cryogem.imaging.calibration import Calibration, measure_frame_power
from cryogem.imaging.grey import GreyScale, measure_grey_scale
from cryogem.imaging.ice import fit_ice, render_ice
from cryogem.io.files import find_by_stem, find_files, make_folder, read_json, write_json
from cryogem.io.mrc import read_micrograph

logger = logging.getLogger(__name__)

_SHOWN = 2                                  # micrographs of each kind in the gallery


def run(config: EvaluateConfig, output: Path) -> None:
    """Compare spectra, write report.json and gallery.png."""
    check_empty(output)
    folder = Path(config.generated)
    calibration = read_calibration(folder, 'generated')
    generated = _read_generated(folder, calibration)
    real = _read_real(config, calibration)
    make_folder(output)
    distance = compare_spectra(_measure_spectra(generated), _measure_spectra(real))
    write_json(output / 'report.json', {
        'n_generated': len(generated), 'n_real': len(real), 'pixel_size': calibration.pixel_size,
        'radial_power_spectrum': dataclasses.asdict(distance)})
    write_json(output / layout.CONFIG, describe_run('evaluate', config))
    write_gallery(output / 'gallery.png', [real[:_SHOWN], generated[:_SHOWN]],
                  calibration.particle_diameter / calibration.pixel_size)
    floor = '' if distance.floor is None else f' (real against real: {distance.floor:.3f})'
    logger.info('log power spectra differ by %.3f rms%s; gallery: %s', distance.log_rms, floor, output / 'gallery.png')


def _read_generated(folder: Path, calibration: Calibration) -> list[Exhibit]:
    exhibits = []
    for name in read_json(folder / layout.MANIFEST, 'generated')['micrographs']:
        record = read_record(folder, name)
        image, _ = read_micrograph(layout.micrograph_path(folder, name), calibration.pixel_size)
        centers = np.array([particle.center_yx for particle in select_particles(record)]).reshape(-1, 2)
        exhibits.append(_exhibit(f'generated: {name}', image, centers, calibration))
    return exhibits


def _read_real(config: EvaluateConfig, calibration: Calibration) -> list[Exhibit]:
    files = find_by_stem(find_files(config.real, 'real'), 'real')
    picks = match_coordinates(config.coordinates, files)
    return [_exhibit(f'real: {one.name}', one.image, one.centers_yx, calibration)
            for one in read_frames(files, picks, config.pixel_size, calibration.pixel_size)]


def _exhibit(caption: str, image: np.ndarray, centers_yx: np.ndarray, calibration: Calibration) -> Exhibit:
    """Bring a micrograph, real or generated, to its own contrast units: both kinds go the same way."""
    if min(image.shape) < 2 * calibration.particle_diameter / calibration.pixel_size:
        raise InputError(f'{caption} is {min(image.shape)} px wide, less than two particles; check pixel_size')
    scale = measure_grey_scale(image)
    sign = -1 if calibration.micrographs[0].grey_sd < 0 else 1
    return Exhibit(caption, GreyScale(scale.mean, sign * scale.sd).normalise(image), centers_yx)


def _measure_spectra(exhibits: list[Exhibit]) -> np.ndarray:
    spectra = []
    for one in exhibits:
        ice = fit_ice(one.contrast, np.ones(one.contrast.shape, dtype=bool))
        spectra.append(measure_frame_power(one.contrast - render_ice(ice, one.contrast.shape)))
    return np.stack(spectra)
