"""`cryogem simulate`: noise-free micrographs of a virtual specimen, with CTF and ice, and all labels."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from cryogem.commands.calibrate import measure
from cryogem.commands.inputs import (
    check_compiler,
    choose_device,
    find_pixel_size,
    read_forbidden,
    read_maps,
    read_views,
)
from cryogem.commands.making import make_dataset
from cryogem.config import SimulateConfig, describe_run
from cryogem.dataset import layout
from cryogem.dataset.reader import read_calibration
from cryogem.dataset.writer import check_output, write_micrograph
from cryogem.errors import ConfigError, InputError
from cryogem.imaging.calibration import (
    Calibration,
    fit_own_scales,
    fit_signal,
    measure_excess_power,
    measure_frame_power,
    with_signal,
)
from cryogem.imaging.exposure import Exposure, Protocol, add_ice, draw_record, expose
from cryogem.imaging.grey import GreyScale
from cryogem.specimen.ensemble import Ensemble, build_ensemble
from cryogem.specimen.symmetry import find_symmetry_group
from cryogem.specimen.volume import PreparedVolume, bring_to_pixel_size, filter_radially

logger = logging.getLogger(__name__)

_LEAST_PARTICLE = 8                         # px across: a particle below it has no shape, so a pixel size is wrong
_TRIAL_INDEX = 2 ** 31                      # of the clean micrographs that calibrate the signal: apart from any run's


def run(config: SimulateConfig, output: Path) -> None:
    """Measure the real micrographs, then draw, paint and image virtual specimens like them."""
    device = choose_device(config.device)
    check_compiler(config.compile_projection)
    check_output(output, describe_run('simulate', config), config.continue_)
    find_symmetry_group(config.symmetry)                # an unknown group is refused before any work
    maps, weights = read_maps(config.volume, config)
    calibration = _obtain_calibration(config, output, maps)
    volumes = [bring_to_pixel_size(one, calibration.pixel_size) for one in maps]
    protocol = build_protocol(config, calibration, max(one.diameter for one in volumes))
    if calibration.signal_scale is None:
        calibration = calibrate_signal(calibration, protocol, volumes, weights, config.signal_to_noise)
    ensemble = build_filtered_ensemble(volumes, weights, calibration.map_gain, device, config.compile_projection)
    make_dataset('simulate', config, output, calibration, ensemble, _build_maker,
                 (output, protocol, calibration, ensemble),
                 config.box_size or choose_box_size(ensemble, calibration), config.symmetry)


def build_protocol(config: SimulateConfig, calibration: Calibration, diameter: float) -> Protocol:
    """Bring together what the user said and what was measured; `diameter` is that of the largest map, Å.

    Raises
    ------
    ConfigError : the number of particles is neither said nor to be had from picks.
    """
    particles_per_frame = config.particles_per_micrograph or calibration.particles_per_frame
    if particles_per_frame is None:
        raise ConfigError('particles_per_micrograph is missing and there are no picks to count; '
                          'give coordinates of the real micrographs, or MEAN:SD')
    distances = calibration.neighbour_distances or (diameter,)
    if config.minimum_distance is not None:
        distances = (config.minimum_distance,)
    if config.allowed_overlap is not None:
        distances = ((1 - config.allowed_overlap) * diameter,)
    return Protocol(
        prefix=config.prefix, seed=config.seed, particles_per_frame=particles_per_frame,
        neighbour_distances=distances,
        ice_thickness=config.ice_thickness, defocus_range=config.defocus_range, voltage=config.voltage,
        spherical_aberration=config.spherical_aberration, amplitude_contrast=config.amplitude_contrast,
        astigmatism=config.astigmatism, phase_shift=config.phase_shift, b_factor=config.b_factor,
        ice_tilt=config.ice_tilt, defocus_error=config.defocus_error, views=read_views(config),
        clustering=(calibration.clustering or 0.0) if config.clustering is None else config.clustering,
        forbidden=read_forbidden(config.exclusion_masks, calibration))


def build_filtered_ensemble(
    volumes: Sequence[PreparedVolume], weights: Sequence[float], gain: Sequence[float] | np.ndarray | None,
    device: str | torch.device = 'cpu', is_compiled: bool = False,
) -> Ensemble:
    """Return maps at the working pixel size, filtered by a radial gain and ready to project."""
    filtered = volumes if gain is None else [filter_radially(one, gain) for one in volumes]
    return build_ensemble(filtered, weights, device, is_compiled)


def calibrate_signal(
    calibration: Calibration, protocol: Protocol, volumes: Sequence[PreparedVolume], weights: Sequence[float],
    signal_to_noise: float | None,
) -> Calibration:
    """Find how strong the signal is and how it falls off: from the power at the picks, or from a ratio that was said.

    Raises
    ------
    ConfigError : there are no picks and no ratio was said.
    """
    scale = 1.0
    gain: np.ndarray | None = None
    if signal_to_noise is None:
        if not any(one.n_picks for one in calibration.micrographs):
            raise ConfigError('signal_to_noise is missing and there are no picks to measure it; '
                              'give coordinates of the real micrographs, or the ratio (0.1 is common)')
        trials = _expose_trials(calibration, protocol, build_ensemble(volumes, weights))
        scale, gain = fit_signal(calibration, _measure_clean_excess(trials, calibration))
    trials = _expose_trials(calibration, protocol, build_filtered_ensemble(volumes, weights, gain))
    powers = np.stack([measure_frame_power(trial.clean) for trial in trials])
    if signal_to_noise is not None:
        scale = _scale_to_ratio(trials, signal_to_noise)
        own_scales = [scale] * len(trials)
    else:
        own_scales = fit_own_scales(calibration, scale, _measure_clean_excess(trials, calibration))
    logger.info('signal: %.4g contrast units per unit of projected density (%.4g to %.4g on single micrographs)',
                scale, min(own_scales), max(own_scales))
    return with_signal(calibration, scale, gain, powers, own_scales)


def _expose_trials(calibration: Calibration, protocol: Protocol, ensemble: Ensemble) -> list[Exposure]:
    """Return a clean micrograph at signal scale 1 for each real one, with its CTF; no run uses their indices."""
    trials = []
    for i, real in enumerate(calibration.micrographs):
        record = draw_record(protocol, calibration, ensemble, _TRIAL_INDEX + i)
        record = dataclasses.replace(record, ctf=real.ctf or record.ctf, signal_scale=1.0)
        trials.append(expose(record, ensemble))
    return trials


def choose_box_size(ensemble: Ensemble, calibration: Calibration) -> int:
    """Return the even box (px) of 1.5 particle diameters."""
    return 2 * int(np.ceil(0.75 * ensemble.diameter / calibration.pixel_size))


def _obtain_calibration(config: SimulateConfig, output: Path, maps: list[PreparedVolume]) -> Calibration:
    """Return the calibration of this folder, of the folder that was given, or a new one."""
    if config.continue_ and (output / layout.CALIBRATION).exists():
        return read_calibration(output, 'output')
    diameter = config.particle_diameter or max(one.diameter for one in maps)
    given = read_calibration(Path(config.calibration), 'calibration') if config.calibration else None
    _check_sampling(diameter, given.pixel_size if given else config.working_pixel_size or find_pixel_size(
        config.micrographs, config.pixel_size))
    calibration = given or measure(config, diameter)
    frame = min(calibration.shape) * calibration.pixel_size
    if frame < 2 * diameter:
        raise InputError(f'micrographs are {frame:.0f} Å wide and the map holds a particle of {diameter:.0f} Å; '
                         'check the pixel sizes of both')
    return calibration


def _check_sampling(diameter: float, pixel_size: float) -> None:
    """Refuse pixel sizes (Å/px) that do not belong together; too large a particle is noticed with the frame."""
    if diameter < _LEAST_PARTICLE * pixel_size:
        raise InputError(f'volume holds a particle of {diameter:.0f} Å, which is {diameter / pixel_size:.1f} px of '
                         f'micrographs at {pixel_size:g} Å/px; check the pixel sizes of both')


def _measure_clean_excess(trials: list[Exposure], calibration: Calibration) -> np.ndarray:
    """Return the (n, shells) excess power of clean micrographs at the particles that people would pick."""
    diameter_px = calibration.particle_diameter / calibration.pixel_size
    return np.stack([measure_excess_power(trial.clean, _list_centers(trial), diameter_px) for trial in trials])


def _list_centers(trial: Exposure) -> np.ndarray:
    """Return (n, 2) centres of the particles that people would pick."""
    pickable = [one.center_yx for one in trial.record.particles if trial.record.is_pickable(one)]
    return np.array(pickable).reshape(-1, 2)


def _scale_to_ratio(trials: list[Exposure], signal_to_noise: float) -> float:
    """Return the amplitude at which the signal on particles has the said share of the unit variance of a frame."""
    variance = float(np.mean([trial.clean[trial.instance_mask > 0].var() for trial in trials]))
    return float(np.sqrt(signal_to_noise / (1 + signal_to_noise) / variance))


def _build_maker(
    output: Path, protocol: Protocol, calibration: Calibration, ensemble: Ensemble
) -> Callable[[int], None]:
    """Return what makes one micrograph and writes it."""
    def make(index: int) -> None:
        exposure = expose(draw_record(protocol, calibration, ensemble, index), ensemble, protocol.defocus_error)
        contrast = add_ice(exposure.clean, exposure.record, calibration)
        grey = GreyScale(exposure.record.grey_mean, exposure.record.grey_sd)
        write_micrograph(output, exposure, grey.restore(contrast))
    return make
