"""In which pixels a run works and in which it writes."""

import dataclasses
import math

import numpy as np

from cryogem.config import GenerateConfig, SimulateConfig, choose_box_size
from cryogem.dataset.plan import Plan
from cryogem.errors import ConfigError
from cryogem.imaging.background import evaluate_background_power
from cryogem.imaging.calibration import Calibration
from cryogem.imaging.exposure import Exposure
from cryogem.imaging.noise_fit import evaluate_gain
from cryogem.imaging.refinement import FineGrid
from cryogem.imaging.spectrum import N_SHELLS, spread_shells
from cryogem.records import Micrograph


def build_plan(
    command: str, config: SimulateConfig | GenerateConfig, calibration: Calibration, box_length: float, symmetry: str
) -> Plan:
    """Return what a run writes.

    Parameters
    ----------
    box_length : Å, of the box where the settings do not say it in px.

    Raises
    ------
    ConfigError : the original sampling is not known, or the grey values do not fit the type of pixels.
    """
    pixel_size, shape = choose_output(config.output_sampling, calibration)
    if config.pixel_type == 'float16':
        check_half_precision(calibration)
    formats = () if config.formats == ('none',) else config.formats
    return Plan(
        command=command, seed=config.seed, prefix=config.prefix, n_micrographs=config.n_micrographs,
        pixel_size=pixel_size, shape=shape,
        box_size=config.box_size or choose_box_size(box_length, pixel_size), symmetry=symmetry,
        particles=config.particles, formats=formats, pixel_type=config.pixel_type)


def choose_output(output_sampling: str, calibration: Calibration) -> tuple[float, tuple[int, int]]:
    """Return pixel size (Å/px) and shape (h, w) of what is written.

    Raises
    ------
    ConfigError : the original sampling is wanted, and the calibration does not know it.
    """
    if output_sampling == 'working':
        return calibration.pixel_size, calibration.shape
    if calibration.original_pixel_size is None or calibration.original_shape is None:
        raise ConfigError("output_sampling cannot be 'original': the calibration does not say the original pixel size; "
                          'calibrate again with this version')
    if calibration.original_pixel_size > calibration.pixel_size * (1 + 1e-6):
        raise ConfigError("output_sampling cannot be 'original': the original pixels of "
                          f'{calibration.original_pixel_size:g} Å are larger than the working ones of '
                          f'{calibration.pixel_size:g} Å; leave it at working')
    return calibration.original_pixel_size, calibration.original_shape


def check_half_precision(calibration: Calibration) -> None:
    """Refuse float16 where its 11 bits would coarsen the grey values.

    Raises
    ------
    ConfigError : a step of float16 is more than a fiftieth of the sd somewhere, or a value too large for it.
    """
    for one in calibration.micrographs:
        largest = abs(one.grey_mean) + 12 * abs(one.grey_sd)
        if largest > 65504 or largest * 2 ** -11 > 0.02 * abs(one.grey_sd):
            raise ConfigError(f'pixel_type float16 cannot hold the grey values of {one.name!r}, {one.grey_mean:.4g} ± '
                              f'{abs(one.grey_sd):.4g}, to a fiftieth of their sd; use int8, which has a scale, or '
                              'float32')


def cover_output(calibration: Calibration, plan: Plan) -> Calibration:
    """Return the calibration with frames of working pixels that cover the frames that are written."""
    grid = plan.find_grid(calibration.pixel_size)
    if grid is None:
        return calibration
    density = calibration.particles_per_frame
    area = math.prod(grid.working_shape) / math.prod(calibration.shape)
    return dataclasses.replace(calibration, shape=grid.working_shape, particles_per_frame=None if density is None else (
        density[0] * area, density[1] * area))


def refine(
    exposure: Exposure, contrast: np.ndarray, plan: Plan, calibration: Calibration, rng: np.random.Generator | None
) -> tuple[Exposure, np.ndarray]:
    """Bring a finished micrograph with its truth to the pixels that are written.

    Parameters
    ----------
    contrast : (h, w) contrast units, working pixels.
    rng : draws the noise beyond the working Nyquist frequency; None for pictures without noise.
    """
    grid = plan.find_grid(exposure.record.pixel_size)
    if grid is None:
        return exposure, contrast
    refined = grid.refine_image(contrast)
    if rng is not None:
        refined += grid.draw_fine_noise(find_fine_power(grid, calibration, exposure.record), rng)
    return Exposure(grid.refine_record(exposure.record), grid.refine_image(exposure.clean),
                    grid.refine_mask(exposure.instance_mask)), refined


def find_fine_power(grid: FineGrid, calibration: Calibration, record: Micrograph) -> np.ndarray:
    """Return the noise power of a record in the original pixels, (h, w // 2 + 1), contrast units² per px.

    That of the files, with the level of the record's real micrograph and the rings of the record's own CTF; where the
    calibration does not know it, what working pixels hold goes on flat.
    """
    real = calibration.micrographs[record.source]
    if calibration.original_noise is None:
        return spread_shells(grid.continue_power(np.array(real.noise_power)), grid.shape)
    at_nyquist = float(evaluate_gain(real.noise_level, real.noise_slope, np.array([N_SHELLS]))[0])
    micrographs = list(calibration.micrographs)
    micrographs[record.source] = dataclasses.replace(real, noise_level=at_nyquist, noise_slope=0.0)
    fine = dataclasses.replace(calibration, noise=calibration.original_noise, micrographs=tuple(micrographs))
    return evaluate_background_power(grid.refine_record(record), fine, grid.shape)
