"""Measures a set of real micrographs: grey scale, picks, ice, dirt, noise; and the signal, once a map is known."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryogem.errors import InputError
from cryogem.imaging.calibration import Calibration, MicrographCalibration, RealMicrograph, measure_frame_power
from cryogem.imaging.grey import GreyScale, find_good_region, measure_defects, measure_grey_scale
from cryogem.imaging.ice import fit_ice, fit_noise_map, fit_paper_ice, render_ice
from cryogem.imaging.noise_fit import NoiseModel, fit_noise
from cryogem.imaging.outliers import find_outliers
from cryogem.imaging.picks import (
    check_picks,
    estimate_diameter,
    has_bright_particles,
    measure_crowding,
    measure_density,
)
from cryogem.imaging.quality import weigh_micrographs
from cryogem.imaging.signal import SignalMeasurement, cover_particles, measure_signal
from cryogem.imaging.signal_fit import SignalFit
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.imaging.unmarked import count_unmarked
from cryogem.imaging.variance import measure_variance_slope

logger = logging.getLogger(__name__)

_CLEAR_OF_PICKS = 0.6                       # diameters around a pick that are no background: people click off centre
_LEAST_BACKGROUND = 0.1                     # share of a frame from which its background has a spectrum of its own
_LEAST_NOISE = 0.1                          # share of the total power that is noise at least
_OUTLYING = 6.0                             # sd beyond which a pixel does not count for the skewness
_ROUNDS = 2                                 # of ice and dirt, each fitted without the other


@dataclass(frozen=True)
class Inspection:
    """What was seen on one real micrograph, for pictures."""

    name: str
    contrast: np.ndarray                    # (h, w) float32, contrast units, dark particles
    flat: np.ndarray                        # (h, w) float32, the same without its background
    is_outlier: np.ndarray                  # (h, w) bool: carbon, crystals, dirt
    centers_yx: np.ndarray                  # (n, 2) picks, px

    @property
    def ice(self) -> np.ndarray:
        """(h, w) float32 background, contrast units."""
        return self.contrast - self.flat


def calibrate(micrographs: Sequence[RealMicrograph], pixel_size: float, particle_diameter: float | None) -> Calibration:
    """Measure a set of real micrographs.

    Parameters
    ----------
    micrographs : at one pixel size, `pixel_size` Å/px; picks may be empty.
    particle_diameter : Å; None estimates it from the mean picked particle.

    Raises
    ------
    InputError : a frame is smaller than a particle, or the diameter can be had from nothing.
    """
    return inspect(micrographs, pixel_size, particle_diameter)[0]


def inspect(
    micrographs: Sequence[RealMicrograph], pixel_size: float, particle_diameter: float | None,
    ice_model: str = 'smooth',
) -> tuple[Calibration, list[Inspection]]:
    """Measure a set of real micrographs as `calibrate` does; return also what was seen on each.

    Parameters
    ----------
    ice_model : smooth, added; or paper, the published one, by which the particles are multiplied before the CTF.
    """
    regions = [find_good_region(one.image) for one in micrographs]
    scales = [measure_grey_scale(one.image, region) for one, region in zip(micrographs, regions, strict=True)]
    contrasts = [scale.normalise(one.image) for scale, one in zip(scales, micrographs, strict=True)]
    picks = [_keep_inside(one.centers_yx, one.image.shape) for one in micrographs]
    if particle_diameter is None:
        particle_diameter = estimate_diameter(contrasts, picks) * pixel_size
        logger.info('particle diameter from the picks: %.0f Å', particle_diameter)
    diameter_px = particle_diameter / pixel_size
    _check_sizes(micrographs, pixel_size, particle_diameter)
    if has_bright_particles(contrasts, picks, diameter_px):
        logger.warning('picked particles are bright: the contrast of the real micrographs is inverted')
        scales = [GreyScale(scale.mean, -scale.sd) for scale in scales]
        contrasts = [-contrast for contrast in contrasts]
    measured, seen = [], []
    for one, region, scale, contrast, centers in zip(micrographs, regions, scales, contrasts, picks, strict=True):
        found, inspection = _measure_micrograph(one, region, scale, contrast, centers, diameter_px)
        measured.append(found)
        seen.append(inspection)
    shapes = [(contrast.shape[0], contrast.shape[1]) for contrast in contrasts]
    if ice_model == 'paper':
        measured = [dataclasses.replace(one, ice=((0.0,),), transmission=tuple(map(tuple, fit_paper_ice(
            contrast).tolist()))) for one, contrast in zip(measured, contrasts, strict=True)]
    return _pool(micrographs, measured, seen, max(shapes, key=shapes.count), pixel_size, particle_diameter), seen


def with_signal(calibration: Calibration, fit: SignalFit, signal_power: np.ndarray) -> Calibration:
    """Return the calibration once the map is known: the noise is what the total holds beyond the calibrated signal.

    Windows without picks hold unlabelled particles, so the noise is not taken from them but as total minus signal,
    never less than a tenth of the total.

    Parameters
    ----------
    signal_power : (n, N_SHELLS) mean frame spectrum of clean micrographs of the filtered maps at scale 1, with as many
        particles as each real micrograph holds, marked or not, and with its CTF; or (N_SHELLS,) for all.
    """
    powers = np.broadcast_to(signal_power, (len(calibration.micrographs), N_SHELLS))
    micrographs = []
    for one, power, scale, error in zip(
            calibration.micrographs, powers, fit.own_scales, fit.own_errors, strict=True):
        total = np.asarray(one.total_power)
        noise = np.maximum(total - scale ** 2 * power, _LEAST_NOISE * total)
        micrographs.append(dataclasses.replace(
            one, noise_power=tuple(noise.tolist()), signal_scale=float(scale), signal_error=float(error)))
    model, varied = _fit_noise(micrographs, calibration.pixel_size)
    gain = None if fit.gain is None else tuple(fit.gain.tolist())
    return dataclasses.replace(calibration, signal_scale=fit.scale, map_gain=gain, signal=fit.quality, noise=model,
                               micrographs=varied)


def find_background(shape: tuple[int, ...], centers_yx: np.ndarray, diameter_px: float) -> np.ndarray:
    """Return (h, w) bool, False within 0.6 diameters of a pick (people click a little off centre)."""
    return ~cover_particles(shape, centers_yx, _CLEAR_OF_PICKS * diameter_px)


def _measure_micrograph(
    real: RealMicrograph, region: tuple[slice, slice], scale: GreyScale, contrast: np.ndarray, centers_yx: np.ndarray,
    diameter_px: float,
) -> tuple[MicrographCalibration, Inspection]:
    """Measure all that one micrograph says by itself."""
    is_image = np.zeros(contrast.shape, dtype=bool)
    is_image[region] = True
    is_free = find_background(contrast.shape, centers_yx, diameter_px) & is_image
    is_outlier = np.zeros(contrast.shape, dtype=bool)
    flat, ice = contrast, np.zeros((1, 1))
    for _ in range(_ROUNDS):
        ice = fit_ice(contrast, _or_else(is_free & ~is_outlier, is_image))
        flat = contrast - render_ice(ice, contrast.shape)
        is_outlier = find_outliers(flat, centers_yx, diameter_px, region)
        if not is_outlier.any():
            break                           # another round would find the same
    is_good = is_image & ~is_outlier
    total = measure_frame_power(flat, is_good)
    signal = measure_signal(flat, centers_yx, diameter_px, is_good) if len(centers_yx) else None
    background = _measure_background(flat, is_free & is_good, total, signal)
    found = MicrographCalibration(
        real.name, scale.mean, scale.sd, len(centers_yx), tuple(map(tuple, ice.tolist())), tuple(total.tolist()),
        background, background, ctf=real.ctf, shape=(contrast.shape[0], contrast.shape[1]),
        picks_yx=tuple((float(y), float(x)) for y, x in centers_yx), signal=signal,
        defects=measure_defects(real.image, region), outlier_share=float(is_outlier.mean()),
        noise_map=tuple(map(tuple, fit_noise_map(flat, _or_else(is_free & is_good, is_good)).tolist())),
        noise_skewness=_measure_skewness(flat[_or_else(is_free & is_good, is_good)]))
    return found, Inspection(real.name, contrast, flat, is_outlier, centers_yx)


def _measure_skewness(values: np.ndarray) -> float:
    """Return the skewness of pixels, outlying ones left out."""
    deviations = values - values.mean()
    sd = float(deviations.std()) or 1.0
    kept = deviations[np.abs(deviations) < _OUTLYING * sd] / sd
    return float((kept ** 3).mean(dtype=np.float64))


def _measure_background(
    flat: np.ndarray, is_free: np.ndarray, total: np.ndarray, signal: SignalMeasurement | None
) -> tuple[float, ...]:
    """Return the spectrum outside the picks: of free places, or in crowded frames what the regression leaves there."""
    if signal is not None and is_free.mean() < _LEAST_BACKGROUND:
        return tuple(np.clip(signal.free_power, _LEAST_NOISE * total, None).tolist())
    return tuple((measure_frame_power(flat, is_free) if is_free.any() else total).tolist())


def _pool(
    micrographs: Sequence[RealMicrograph], measured: list[MicrographCalibration], seen: list[Inspection],
    shape: tuple[int, int], pixel_size: float, particle_diameter: float,
) -> Calibration:
    """Bring together what the micrographs say as a set; odd ones count less."""
    diameter_px = particle_diameter / pixel_size
    flats, picks = [one.flat for one in seen], [one.centers_yx for one in seen]
    measured = [dataclasses.replace(one, weight=verdict.weight, remarks=verdict.remarks)
                for one, verdict in zip(measured, weigh_micrographs(measured), strict=True)]
    for one in measured:
        if one.remarks:
            logger.warning('micrograph %s counts less (weight %.2f): %s', one.name, one.weight, '; '.join(one.remarks))
    weights = [one.weight for one in measured]
    n_unmarked = count_unmarked(flats, picks, diameter_px, [one.is_outlier for one in seen])
    measured = [dataclasses.replace(one, n_unmarked=n) for one, n in zip(measured, n_unmarked, strict=True)]
    density = measure_density(flats, picks, shape, diameter_px, weights, n_unmarked)
    distances, clustering = measure_crowding(picks, shape, density) or (None, None)
    check = check_picks(flats, picks, diameter_px)
    if check is not None:
        _warn_of_picks(check.is_on_particles, check.is_shifted, check.shift_yx, pixel_size)
    noise, varied = _fit_noise(measured, pixel_size)
    return Calibration(
        pixel_size, shape, particle_diameter, density,
        None if distances is None else tuple(distance * pixel_size for distance in distances), clustering, None, None,
        noise, varied, check, variance_slope=measure_variance_slope(
            [one.contrast for one in seen], flats, picks, [one.is_outlier for one in seen], diameter_px, weights),
        original_power=_pool_original(micrographs, measured))


def _fit_noise(
    micrographs: Sequence[MicrographCalibration], pixel_size: float
) -> tuple[NoiseModel, tuple[MicrographCalibration, ...]]:
    """Fit the noise of the set; return it and the micrographs with their level and slope."""
    model, variations = fit_noise(np.array([one.noise_power for one in micrographs]), [one.ctf for one in micrographs],
                                  pixel_size, np.array([one.weight for one in micrographs]))
    return model, tuple(dataclasses.replace(one, noise_level=own.level, noise_slope=own.slope)
                        for one, own in zip(micrographs, variations, strict=True))


def _pool_original(
    micrographs: Sequence[RealMicrograph], measured: Sequence[MicrographCalibration]
) -> tuple[float, ...] | None:
    """Return the (N_SHELLS,) mean spectrum of the files before binning, contrast units² per original px."""
    powers = [(real.original_power / one.grey_sd ** 2, one.weight)
              for real, one in zip(micrographs, measured, strict=True) if real.original_power is not None]
    if not powers:
        return None
    return tuple(np.average([power for power, _ in powers], axis=0, weights=[weight for _, weight in powers]).tolist())


def _warn_of_picks(is_on_particles: bool, is_shifted: bool, shift_yx: tuple[float, float], pixel_size: float) -> None:
    if not is_on_particles:
        logger.warning('coordinates do not seem to sit on particles: their mean picture is as flat as that of places '
                       'beside them; check that picks and micrographs belong together')
    elif is_shifted:
        y, x = shift_yx
        logger.warning('coordinates miss the middle of the particles: on average these lie %.1f px to the %s and '
                       '%.1f px %s of them (%.1f Å in all)', abs(x), 'right' if x > 0 else 'left', abs(y),
                       'below' if y > 0 else 'above', float(np.hypot(y, x)) * pixel_size)


def _check_sizes(micrographs: Sequence[RealMicrograph], pixel_size: float, particle_diameter: float) -> None:
    for one in micrographs:
        if min(one.image.shape) < 2 * particle_diameter / pixel_size:
            raise InputError(f'micrograph {one.name!r} is {min(one.image.shape) * pixel_size:.0f} Å wide and a '
                             f'particle {particle_diameter:.0f} Å; check pixel_size and particle_diameter')


def _keep_inside(centers_yx: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return those of (n, 2) centres whose pixel is in the frame."""
    centers = np.asarray(centers_yx, dtype=np.float64).reshape(-1, 2)
    return centers[((centers >= -0.5) & (centers < np.array(shape) - 0.5)).all(axis=1)]


def _or_else(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return a mask, or another one where the first leaves next to nothing."""
    return mask if mask.mean() > 0.01 else other
