"""`cryogem simulate`: noise-free micrographs of a virtual specimen, with CTF and ice, and all labels."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cryogem.commands.ablation import Likeness, ablate
from cryogem.commands.calibrate import measure
from cryogem.commands.inputs import (
    choose_device,
    find_pixel_size,
    read_forbidden,
    read_maps,
    read_real_micrographs,
    read_views,
)
from cryogem.commands.loading import load_in_background
from cryogem.commands.making import describe_dataset, enter_output, make_dataset
from cryogem.commands.memory import state_memory
from cryogem.commands.planning import build_plan, cover_output, refine
from cryogem.config import BOX_DIAMETERS, SimulateConfig
from cryogem.dataset import layout
from cryogem.dataset.plan import Plan
from cryogem.dataset.production import Stages
from cryogem.dataset.reader import read_calibration
from cryogem.dataset.team import Team, join_team
from cryogem.dataset.writer import claim_calibration, start_dataset, write_micrograph
from cryogem.errors import ConfigError, InputError
from cryogem.evaluation.ablation import Ablation
from cryogem.evaluation.calibration_report import describe_misfits, write_calibration_report
from cryogem.evaluation.features import find_topaz_weights, load_topaz_network
from cryogem.imaging.calibration import Calibration, RealMicrograph, measure_frame_power
from cryogem.imaging.exposure import Exposure, Protocol, add_ice, draw_record, draw_record_at, expose
from cryogem.imaging.grey import GreyScale
from cryogem.imaging.measurement import Inspection, calibrate, with_signal
from cryogem.imaging.signal import SignalMeasurement, average_signals, measure_signal
from cryogem.imaging.signal_fit import SignalFit, fit_signal
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.progress import Progress
from cryogem.specimen.ensemble import Ensemble, build_ensemble
from cryogem.specimen.symmetry import find_symmetry_group
from cryogem.specimen.volume import PreparedVolume, bring_to_pixel_size, filter_radially

logger = logging.getLogger(__name__)

_LEAST_PARTICLE = 8                         # px across: a particle below it has no shape, so a pixel size is wrong
_TRIAL_INDEX = 2 ** 31                      # of the clean micrographs that calibrate the signal: apart from any run's
_TRIAL_PARTICLES, _MOST_DRAWS = 600, 8      # pictured at the picks to average over views, and how often each pick


def run(config: SimulateConfig, output: Path) -> None:
    """Measure the real micrographs, then draw, paint and image virtual specimens like them."""
    with join_team(config.shard) as team:
        device = choose_device(config.device)
        enter_output('simulate', config, output, team)
        find_symmetry_group(config.symmetry)            # an unknown group is refused before any work
        load_in_background()
        maps, weights = read_maps(config.volume, config.volume_pixel_size, config)
        calibration, volumes = team.in_turn(lambda: _agree_on_calibration(config, output, maps, weights, team))
        ensemble = build_filtered_ensemble(volumes, weights, calibration.map_gain, device)
        plan = build_plan('simulate', config, calibration, BOX_DIAMETERS * ensemble.diameter, config.symmetry)
        covering = cover_output(calibration, plan)
        protocol = build_protocol(config, covering, ensemble.diameter)
        state_memory(plan, covering, ensemble, config.workers)
        make_dataset(config, output, plan, calibration, ensemble, team, _build_stages,
                     (output, plan, protocol, covering, ensemble))


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
    device: str | torch.device = 'cpu',
) -> Ensemble:
    """Return maps at the working pixel size, filtered by a radial gain and ready to project."""
    filtered = volumes if gain is None else [filter_radially(one, gain) for one in volumes]
    return build_ensemble(filtered, weights, device)


def calibrate_signal(
    calibration: Calibration, protocol: Protocol, volumes: Sequence[PreparedVolume], weights: Sequence[float],
    signal_to_noise: float | None,
) -> Calibration:
    """Find how strong the signal is and how it falls off: from what comes with the picks, or from a said ratio.

    Raises
    ------
    ConfigError : there are no picks and no ratio was said.
    """
    ensemble = build_ensemble(volumes, weights)
    if signal_to_noise is not None:
        fit, powers = _follow_ratio(calibration, protocol, ensemble, signal_to_noise)
        return with_signal(calibration, fit, powers)
    if not any(one.n_picks for one in calibration.micrographs):
        raise ConfigError('signal_to_noise is missing and there are no picks to measure it; '
                          'give coordinates of the real micrographs, or the ratio (0.1 is common)')
    clean, powers = _measure_trials(calibration, protocol, ensemble)
    fit = fit_signal([one.signal for one in calibration.micrographs], clean,
                     calibration.particle_diameter / calibration.pixel_size, calibration.pixel_size,
                     [one.weight for one in calibration.micrographs],
                     has_unmarked=any(one.n_unmarked for one in calibration.micrographs))
    _report_fit(fit, calibration.pixel_size)
    # a radial filter of the map is one of its projections, too
    return with_signal(calibration, fit, powers if fit.gain is None else fit.gain ** 2 * powers)


def learn_from(
    known: Sequence[RealMicrograph], config: SimulateConfig, pixel_size: float, volumes: Sequence[PreparedVolume],
    weights: Sequence[float], signal_to_noise: float | None,
) -> Likeness:
    """Calibrate on real micrographs at `pixel_size` Å/px, whose CTFs are known, and return what makes their like."""
    diameter = max(one.diameter for one in volumes)
    calibration = calibrate(known, pixel_size, config.particle_diameter or diameter)
    protocol = build_protocol(config, calibration, diameter)
    calibration = calibrate_signal(calibration, protocol, volumes, weights, signal_to_noise)
    return Likeness(calibration, protocol, build_filtered_ensemble(volumes, weights, calibration.map_gain))


def _ablate(
    config: SimulateConfig, calibration: Calibration, volumes: Sequence[PreparedVolume], weights: Sequence[float]
) -> Ablation:
    """Say what each part of the noise model is worth on the user's micrographs, which are read again for it."""
    pixel_size = calibration.pixel_size
    ctfs = {one.name: one.ctf for one in calibration.micrographs}
    micrographs = [dataclasses.replace(one, ctf=ctfs.get(one.name, one.ctf))
                   for one in read_real_micrographs(config, pixel_size)]
    topaz = find_topaz_weights()
    return ablate(
        micrographs, lambda known, ratio: learn_from(known, config, pixel_size, volumes, weights, ratio),
        load_topaz_network(topaz) if topaz else None, calibration.particle_diameter / pixel_size,
        sign=-1 if calibration.micrographs[0].grey_sd < 0 else 1)


def _measure_trials(
    calibration: Calibration, protocol: Protocol, ensemble: Ensemble
) -> tuple[list[SignalMeasurement | None], np.ndarray]:
    """Picture particles at the picks of each real micrograph, with its CTF and at scale 1, in random poses.

    Returns
    -------
    What is measured on them as on the real ones (None without picks), and their (n, shells) frame spectra with as many
    particles as there are, marked or not, where the window of a spectrum sees them.
    """
    diameter_px = calibration.particle_diameter / calibration.pixel_size
    n_picks = [one.n_picks for one in calibration.micrographs]
    n_draws = int(np.clip(np.ceil(_TRIAL_PARTICLES / sum(n_picks)), 1, _MOST_DRAWS))
    clean: list[SignalMeasurement | None] = []
    powers = np.zeros((len(n_picks), N_SHELLS))
    progress = Progress('clean pictures of the picks', len(n_picks))
    for i, real in enumerate(calibration.micrographs):
        pictures = [expose(draw_record_at(protocol, calibration, ensemble, i, draw), ensemble).clean
                    for draw in range(n_draws if real.n_picks else 0)]
        centers = np.array(real.picks_yx).reshape(-1, 2)
        clean.append(average_signals([measure_signal(one, centers, diameter_px) for one in pictures])
                     if pictures else None)
        if pictures:
            # unmarked ones at the border add nothing: the window of the spectrum has faded out there
            share = 1 + real.n_unmarked / real.n_picks
            powers[i] = share * np.mean([measure_frame_power(one) for one in pictures], axis=0)
        progress.update(i + 1)
    return clean, powers


def _follow_ratio(
    calibration: Calibration, protocol: Protocol, ensemble: Ensemble, signal_to_noise: float
) -> tuple[SignalFit, np.ndarray]:
    """Return the amplitude of a ratio that was said, and the (n, shells) spectra of clean micrographs at scale 1."""
    trials = []
    for i, real in enumerate(calibration.micrographs):
        record = draw_record(protocol, calibration, ensemble, _TRIAL_INDEX + i)
        trials.append(expose(dataclasses.replace(record, ctf=real.ctf or record.ctf, signal_scale=1.0), ensemble))
    scale = _scale_to_ratio(trials, signal_to_noise)
    logger.info('signal: %.4g contrast units per unit of projected density, as the ratio says', scale)
    powers = np.stack([measure_frame_power(trial.clean) for trial in trials])
    return SignalFit(scale, None, (scale,) * len(trials), (0.0,) * len(trials), None), powers


def _report_fit(fit: SignalFit, pixel_size: float) -> None:
    """Say how strong the signal is, how sure that is, and where the map does not explain the micrographs."""
    quality = fit.quality
    if quality is None:
        return
    logger.info('signal: %.4g ± %.2g contrast units per unit of projected density (%.4g to %.4g on single '
                'micrographs), B-factor %.0f ± %.0f Å², picks off by %.1f Å', fit.scale, quality.scale_error,
                min(fit.own_scales), max(fit.own_scales), quality.b_factor, quality.b_factor_error,
                quality.pick_error * pixel_size)
    for sentence in describe_misfits(quality):
        logger.warning('%s', sentence)


def _agree_on_calibration(
    config: SimulateConfig, output: Path, maps: list[PreparedVolume], weights: list[float], team: Team
) -> tuple[Calibration, list[PreparedVolume]]:
    """Return the calibration with its signal, and the maps at its pixel size.

    Of several processes that make one dataset, all get the same calibration.
    """
    calibration, seen = _obtain_calibration(
        config, output, maps, config.continue_ or team.is_shared or not team.is_first)
    volumes = [bring_to_pixel_size(one, calibration.pixel_size) for one in maps]
    if calibration.signal_scale is None:
        protocol = build_protocol(config, calibration, max(one.diameter for one in volumes))
        calibration = calibrate_signal(calibration, protocol, volumes, weights, config.signal_to_noise)
    if not team.is_first:
        return calibration, volumes
    build_protocol(config, calibration, max(one.diameter for one in maps))     # what cannot be made starts no folder
    is_asked = config.ablation and not (output / layout.CALIBRATION_REPORT).exists()
    ablation = _ablate(config, calibration, volumes, weights) if is_asked else None
    start_dataset(output, describe_dataset('simulate', config))
    # before the calibration: a run that is continued with one has not seen the real micrographs any more
    if not (output / layout.CALIBRATION_REPORT).exists():
        write_calibration_report(output, calibration, seen, ablation)
    return claim_calibration(output, calibration), volumes


def _obtain_calibration(
    config: SimulateConfig, output: Path, maps: list[PreparedVolume], is_there: bool
) -> tuple[Calibration, list[Inspection]]:
    """Return the calibration of this folder, where it may hold one, of the one that was given, or a new one; and what
    was seen for it."""
    if is_there and (output / layout.CALIBRATION).exists():
        return read_calibration(output, 'output'), []
    diameter = config.particle_diameter or max(one.diameter for one in maps)
    given = read_calibration(Path(config.calibration), 'calibration') if config.calibration else None
    _check_sampling(diameter, given.pixel_size if given else config.working_pixel_size or find_pixel_size(
        config.micrographs, config.pixel_size))
    calibration, seen = (given, []) if given else measure(config, diameter)
    frame = min(calibration.shape) * calibration.pixel_size
    if frame < 2 * diameter:
        raise InputError(f'micrographs are {frame:.0f} Å wide and the map holds a particle of {diameter:.0f} Å; '
                         'check the pixel sizes of both')
    return calibration, seen


def _check_sampling(diameter: float, pixel_size: float) -> None:
    """Refuse pixel sizes (Å/px) that do not belong together; too large a particle is noticed with the frame."""
    if diameter < _LEAST_PARTICLE * pixel_size:
        raise InputError(f'volume holds a particle of {diameter:.0f} Å, which is {diameter / pixel_size:.1f} px of '
                         f'micrographs at {pixel_size:g} Å/px; check the pixel sizes of both')


def _scale_to_ratio(trials: list[Exposure], signal_to_noise: float) -> float:
    """Return the amplitude at which the signal on particles has the said share of the unit variance of a frame."""
    variance = float(np.mean([trial.clean[trial.instance_mask > 0].var() for trial in trials]))
    return float(np.sqrt(signal_to_noise / (1 + signal_to_noise) / variance))


def _build_stages(
    output: Path, plan: Plan, protocol: Protocol, calibration: Calibration, ensemble: Ensemble
) -> Stages:
    """Return what makes micrographs and writes them."""
    def prepare(index: int) -> Exposure:
        record = draw_record(protocol, calibration, ensemble, index)
        return expose(record, ensemble, protocol.defocus_error, calibration)

    def develop(exposures: list[Exposure]) -> list[tuple[Exposure, np.ndarray]]:
        return [refine(one, add_ice(one.clean, one.record, calibration), plan, calibration, None) for one in exposures]

    def write(developed: tuple[Exposure, np.ndarray]) -> None:
        exposure, contrast = developed
        grey = GreyScale(exposure.record.grey_mean, exposure.record.grey_sd)
        write_micrograph(output, exposure, grey.restore(contrast), plan)

    return Stages(prepare, develop, write)
