"""What the simulation needs to know about the user's micrographs, measured on them."""

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from cryogem.errors import InputError
from cryogem.imaging.grey import GreyScale, find_good_region, measure_grey_scale
from cryogem.imaging.ice import fit_ice, render_ice
from cryogem.imaging.spectrum import N_SHELLS, measure_power
from cryogem.records import Ctf
from cryogem.specimen.placement import measure_nearest_distances, place_particles

logger = logging.getLogger(__name__)

_EXCESS_SHELLS = slice(3, N_SHELLS // 2)    # low to middle shells: above the ice, below where noise is all
_GAIN_KNOTS = np.array([4, 8, 14, 22, 32, 44, 60])      # shells between which the gain of the map is linear
_KEPT_APART = (0.0, 0.05, 0.1, 0.25, 0.5)  # quantiles of the neighbour distance tried as limits of what is kept
_CLUSTERINGS = (0.0, 0.3, 0.6, 0.9)                  # tried for the share of particles beside another
_PLACED_FRAMES = 3                          # placed for each trial
_TIE = 0.05                                 # how strongly neighbouring knots are tied, relative to the data


@dataclass(frozen=True)
class RealMicrograph:
    """One real micrograph at the working pixel size, as it is measured."""

    name: str
    image: np.ndarray                       # (h, w) float32, grey values
    centers_yx: np.ndarray                  # (n, 2) picks, px
    ctf: Ctf | None = None


@dataclass(frozen=True)
class MicrographCalibration:
    """What was measured on one real micrograph. Spectra are powers per pixel on shells up to the Nyquist frequency."""

    name: str
    grey_mean: float                        # grey value of contrast 0
    grey_sd: float                          # grey values per contrast unit; negative where particles are bright
    n_picks: int
    ice: tuple[tuple[float, ...], ...]      # cosine coefficients of the background, contrast units
    total_power: tuple[float, ...]          # spectrum of the whole frame without ice
    background_power: tuple[float, ...]     # spectrum outside the picked particles
    noise_power: tuple[float, ...]          # spectrum that the measured noise model draws from
    ctf: Ctf | None = None
    signal_scale: float | None = None       # its own: thick ice shows particles fainter than thin ice


@dataclass(frozen=True)
class Calibration:
    """What was measured on a set of real micrographs."""

    pixel_size: float                       # Å/px at which all was measured
    shape: tuple[int, int]                  # (h, w) of most frames, px
    particle_diameter: float                # Å
    particles_per_frame: tuple[float, float] | None     # mean, sd over the frames, scaled to `shape`
    neighbour_distances: tuple[float, ...] | None       # Å, even quantiles of what particles keep from each other
    clustering: float | None                # share of the particles that lie beside another one
    signal_scale: float | None              # contrast units per unit of projected density, once a map is known
    map_gain: tuple[float, ...] | None      # amplitude filter of the maps on shells up to the Nyquist frequency
    micrographs: tuple[MicrographCalibration, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as plain JSON values, with their units."""
        units = {'pixel_size': 'Å/px', 'shape': 'px (h, w)', 'particle_diameter': 'Å', 'neighbour_distances': 'Å',
                 'power': 'contrast units² per px, shell i at i / shells of the Nyquist frequency',
                 'signal_scale': 'contrast units per unit of density times px'}
        return {'units': units, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> 'Calibration':
        """Rebuild a calibration from `to_json` values read back from a file.

        Raises
        ------
        InputError : keys are missing or unknown.
        """
        try:
            micrographs = tuple(_rebuild_micrograph(one) for one in values['micrographs'])
            rest = {key: _as_tuple(value) for key, value in values.items() if key not in ('units', 'micrographs')}
            return cls(**rest, micrographs=micrographs)
        except (KeyError, TypeError) as error:
            raise InputError(f'calibration is damaged or of another version ({error}); run calibrate again') from error


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
    scales = [measure_grey_scale(one.image) for one in micrographs]
    contrasts = [scale.normalise(one.image) for scale, one in zip(scales, micrographs, strict=True)]
    picks = [one.centers_yx for one in micrographs]
    if particle_diameter is None:
        particle_diameter = estimate_diameter(contrasts, picks) * pixel_size
        logger.info('particle diameter from the picks: %.0f Å', particle_diameter)
    diameter_px = particle_diameter / pixel_size
    for one in micrographs:
        if min(one.image.shape) < 2 * diameter_px:
            raise InputError(f'micrograph {one.name!r} is {min(one.image.shape) * pixel_size:.0f} Å wide and a '
                             f'particle {particle_diameter:.0f} Å; check pixel_size and particle_diameter')
    if has_bright_particles(contrasts, picks, diameter_px):
        logger.warning('picked particles are bright: the contrast of the real micrographs is inverted')
        scales = [GreyScale(scale.mean, -scale.sd) for scale in scales]
        contrasts = [-contrast for contrast in contrasts]
    measured, flattened = [], []
    for one, scale, contrast in zip(micrographs, scales, contrasts, strict=True):
        is_background = find_background(contrast.shape, one.centers_yx, diameter_px)
        ice = fit_ice(contrast, is_background)
        contrast = contrast - render_ice(ice, contrast.shape)
        flattened.append(contrast)
        background = tuple(measure_background_power(contrast, is_background))
        measured.append(MicrographCalibration(
            one.name, scale.mean, scale.sd, len(one.centers_yx), tuple(map(tuple, ice.tolist())),
            tuple(measure_frame_power(contrast)), background, background, one.ctf))
    shapes = [(contrast.shape[0], contrast.shape[1]) for contrast in contrasts]
    shape = max(shapes, key=shapes.count)
    density = measure_density(flattened, picks, shape, diameter_px)
    distances, clustering = measure_crowding(picks, shape, density) or (None, None)
    return Calibration(
        pixel_size, shape, particle_diameter, density,
        None if distances is None else tuple(distance * pixel_size for distance in distances), clustering, None, None,
        tuple(measured))


def with_signal(
    calibration: Calibration, signal_scale: float, map_gain: np.ndarray | None, signal_power: np.ndarray,
    own_scales: Sequence[float] | None = None,
) -> Calibration:
    """Return the calibration once the map is known: the noise is what the total holds beyond the calibrated signal.

    Windows without picks hold unlabelled particles, so the noise is not taken from them but as total minus signal,
    never less than a tenth of the total.

    Parameters
    ----------
    signal_scale : contrast units per unit of projected density.
    map_gain : (N_SHELLS,) by which the maps were filtered; None for maps as they are.
    signal_power : (N_SHELLS,) mean frame spectrum of clean micrographs of the filtered maps at scale 1, or
        (n, N_SHELLS) of each micrograph with its own CTF.
    own_scales : of each micrograph; default `signal_scale` for all.
    """
    n = len(calibration.micrographs)
    powers, scales = np.broadcast_to(signal_power, (n, N_SHELLS)), own_scales or [signal_scale] * n
    micrographs = []
    for one, power, scale in zip(calibration.micrographs, powers, scales, strict=True):
        total = np.asarray(one.total_power)
        noise = np.maximum(total - scale ** 2 * power, 0.1 * total)
        micrographs.append(dataclasses.replace(one, noise_power=tuple(noise.tolist()), signal_scale=float(scale)))
    gain = None if map_gain is None else tuple(map_gain.tolist())
    return dataclasses.replace(calibration, signal_scale=signal_scale, map_gain=gain, micrographs=tuple(micrographs))


def fit_signal(calibration: Calibration, clean_excess: np.ndarray) -> tuple[float, np.ndarray]:
    """Find amplitude and filter of the map that make the simulated excess power fit the real one best.

    The power gain is piecewise linear between a few knots: maps can be sharper or smoother than the particles in the
    micrographs, and those computed from atoms lack the solvent that takes contrast away at low resolution. Non-negative
    least squares over the shells of all micrographs, with neighbouring knots tied loosely.

    Parameters
    ----------
    calibration : with the spectra of the real micrographs.
    clean_excess : (n, N_SHELLS) the excess power of a clean micrograph at scale 1 with the CTF of each.

    Returns
    -------
    The signal scale, contrast units per unit of projected density, and the (N_SHELLS,) amplitude gain of the map up to
    the Nyquist frequency, at most 1.

    Raises
    ------
    InputError : the spectrum of the picked places does not resemble that of simulated particles.
    """
    weights, real, is_used = _stack_excess(calibration)
    clean = np.asarray(clean_excess)[is_used][:, _EXCESS_SHELLS]
    shells = np.arange(N_SHELLS)
    hats = np.stack([np.interp(shells, _GAIN_KNOTS, one) for one in np.eye(len(_GAIN_KNOTS))])
    used_hats = hats[:, _EXCESS_SHELLS]
    design = (np.sqrt(weights)[:, :, None] * clean[:, :, None] * used_hats.T).reshape(-1, len(hats))
    target = (np.sqrt(weights) * real).ravel()
    ties = _TIE * np.linalg.norm(design) / np.sqrt(len(hats)) * np.diff(np.eye(len(hats)), axis=0)
    gains, _ = nnls(np.concatenate([design, ties]), np.concatenate([target, np.zeros(len(ties))]))
    largest = float(gains.max())
    if largest <= 0 or _fit_line(weights, real, clean) <= 0:
        raise InputError('coordinates do not sit on particles: the power at the picked places does not resemble '
                         'that of the map; check that picks, micrographs and map belong together')
    return float(np.sqrt(largest)), np.sqrt(gains / largest @ hats)


def fit_own_scales(calibration: Calibration, signal_scale: float, clean_excess: np.ndarray) -> list[float]:
    """Fit the amplitude of each micrograph to its own excess power, the fall-off being known.

    Parameters
    ----------
    signal_scale : of the set; an own scale is kept within a factor of 1.5 of it, for single frames hold few picks.
    clean_excess : (n, N_SHELLS) of clean micrographs at scale 1, of the filtered map, with the CTF of each.

    Returns
    -------
    (n,) scales, contrast units per unit of projected density; `signal_scale` for micrographs without picks.
    """
    weights, real, is_used = _stack_excess(calibration)
    squared = _fit_line(weights, real, np.asarray(clean_excess)[is_used][:, _EXCESS_SHELLS], axis=1)
    scales = np.full(len(is_used), signal_scale)
    scales[is_used] = np.clip(np.sqrt(np.maximum(squared, 0)), signal_scale / 1.5, signal_scale * 1.5)
    return [float(scale) for scale in scales]


def _stack_excess(calibration: Calibration) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (m, shells) weights and excess powers of the micrographs with picks, and (n,) bool which these are."""
    is_used = np.array([one.n_picks > 0 for one in calibration.micrographs])
    total, background = (np.array([getattr(one, name) for one in calibration.micrographs])[is_used][:, _EXCESS_SHELLS]
                         for name in ('total_power', 'background_power'))
    # shells hold modes in proportion to their radius and noise in proportion to their power
    return np.arange(N_SHELLS)[_EXCESS_SHELLS] / total, total - background, is_used


def _fit_line(weights: np.ndarray, values: np.ndarray, shape: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Return the factor of `shape` that fits `values` best, weighted least squares."""
    return (weights * values * shape).sum(axis=axis) / np.maximum((weights * shape ** 2).sum(axis=axis), 1e-30)


def measure_frame_power(contrast: np.ndarray) -> np.ndarray:
    """Return the (N_SHELLS,) spectrum of an (h, w) frame without its dead edges."""
    return measure_power(contrast[find_good_region(contrast)])


def measure_background_power(contrast: np.ndarray, is_background: np.ndarray) -> np.ndarray:
    """Return the (N_SHELLS,) spectrum of an (h, w) frame outside particles."""
    region = find_good_region(contrast)
    h, w = contrast[region].shape
    hann = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[1:-1]
    return measure_power(contrast[region], (is_background[region] * hann).astype(np.float32))


def measure_excess_power(contrast: np.ndarray, centers_yx: np.ndarray, diameter_px: float) -> np.ndarray:
    """Return the (N_SHELLS,) spectrum of a whole frame less that of its background.

    The noise is in both and cancels; what is left is signal. Of the signal the background holds fringes and what lies
    between particles, in a clean micrograph as in a real one.
    """
    is_background = find_background(contrast.shape, centers_yx, diameter_px)
    return measure_frame_power(contrast) - measure_background_power(contrast, is_background)


def measure_density(
    contrasts: Sequence[np.ndarray], picks: Sequence[np.ndarray], shape: tuple[int, ...], diameter_px: float
) -> tuple[float, float] | None:
    """Return mean and sd of the number of particles on a frame of `shape`, None without picks.

    Counted inside a border of half a particle, where people leave particles unmarked.
    """
    if not sum(map(len, picks)):
        return None
    densities = []
    for contrast, centers in zip(contrasts, picks, strict=True):
        border, size = diameter_px / 2, np.array(contrast.shape)
        is_inner = ((centers >= border) & (centers <= size - 1 - border)).all(axis=1)
        densities.append(is_inner.sum() / np.prod(size - 2 * border))
    counts = np.array(densities) * shape[0] * shape[1]
    spread = counts.std(ddof=1) if len(counts) > 1 else np.sqrt(counts[0])
    return float(counts.mean()), float(spread)


def measure_crowding(
    picks: Sequence[np.ndarray], shape: tuple[int, int], particles_per_frame: tuple[float, float] | None
) -> tuple[tuple[float, ...], float] | None:
    """Find how particles keep apart and stick together, so that placed ones have the neighbours of picked ones.

    Frames are placed in several ways, and the one is taken whose distances to the nearest neighbour are most like those
    of the picks: quantile by quantile.

    Returns
    -------
    Quantiles from 0 to 100 % in steps of 5 of the distance (px) that a particle keeps, and the share of the particles
    that are put beside another one; None for fewer than ten picks.
    """
    steps = np.arange(0, 101, 5)
    nearest = np.concatenate([measure_nearest_distances(centers) for centers in picks])
    if len(nearest) < 10 or particles_per_frame is None:
        return None
    wanted = np.percentile(nearest, steps)
    best: tuple[float, tuple[float, ...], float] = (np.inf, (), 0.0)
    limits = [(low, high) for low in _KEPT_APART for high in _KEPT_APART if low <= high]
    for (low, high), clustering in itertools.product(limits, _CLUSTERINGS):
        # crowding prefers darts that keep little distance, so the closest pairs may have to be left out
        distances = np.clip(wanted, *np.quantile(nearest, (low, high)))
        found = _place_and_measure(shape, max(2, round(particles_per_frame[0])), distances, clustering)
        misfit = float(np.abs(np.percentile(found, steps) - wanted).mean()) if len(found) else np.inf
        best = min(best, (misfit, tuple(distances.tolist()), clustering))
    return best[1], best[2]


def _place_and_measure(
    shape: tuple[int, int], count: int, distances: np.ndarray, clustering: float
) -> np.ndarray:
    """Return the distances (px) to nearest neighbours in a few frames placed like this."""
    nearest = []
    for seed in range(_PLACED_FRAMES):
        placed = place_particles(shape, count, distances.tolist(), 0, np.random.default_rng(seed), clustering)
        nearest.append(measure_nearest_distances(placed))
    return np.concatenate(nearest)


def find_background(shape: tuple[int, ...], centers_yx: np.ndarray, diameter_px: float) -> np.ndarray:
    """Return (h, w) bool, False within 0.6 diameters of a pick (people click a little off centre)."""
    is_background = np.ones(shape, dtype=bool)
    radius = 0.6 * diameter_px
    for y, x in centers_yx:
        rows = np.arange(max(0, int(y - radius)), min(shape[0], int(y + radius) + 2))
        columns = np.arange(max(0, int(x - radius)), min(shape[1], int(x + radius) + 2))
        is_near = (rows[:, None] - y) ** 2 + (columns - x) ** 2 <= radius ** 2
        is_background[rows[:, None], columns] &= ~is_near
    return is_background


def has_bright_particles(contrasts: Sequence[np.ndarray], picks: Sequence[np.ndarray], diameter_px: float) -> bool:
    """Say whether picked particles are brighter than the ring around them, beyond doubt (three standard errors).

    The whole disc is compared, not its middle: hollow particles are bright there.
    """
    size = 2 * int(np.ceil(0.8 * diameter_px))
    radius = np.hypot(*np.mgrid[:size, :size] - size // 2)
    is_disc, is_ring = radius <= diameter_px / 2, (radius > diameter_px / 2) & (radius <= 0.8 * diameter_px)
    windows = np.concatenate([_cut_windows(c, p, size) for c, p in zip(contrasts, picks, strict=True)])
    differences = windows[:, is_disc].mean(axis=1) - windows[:, is_ring].mean(axis=1)
    return len(differences) > 1 and differences.mean() > 3 * differences.std() / np.sqrt(len(differences))


def estimate_diameter(contrasts: Sequence[np.ndarray], picks: Sequence[np.ndarray]) -> float:
    """Estimate the particle diameter (px) from the nearest distances of the picks: neighbours that touch.

    Raises
    ------
    InputError : fewer than ten picks.
    """
    distances = np.concatenate([measure_nearest_distances(centers) for centers in picks])
    if len(distances) < 10:
        raise InputError(f'particle_diameter is missing and {len(distances)} picks are too few to find it; '
                         'give the diameter in Å')
    return float(np.percentile(distances, 10))


def _cut_windows(contrast: np.ndarray, centers_yx: np.ndarray, size: int) -> np.ndarray:
    """Return (n, size, size) windows around those centres that lie wholly inside the frame."""
    corners = np.floor(np.asarray(centers_yx).reshape(-1, 2) + 0.5).astype(int) - size // 2
    is_inside = ((corners >= 0) & (corners + size <= np.array(contrast.shape))).all(axis=1)
    windows = [contrast[y:y + size, x:x + size] for y, x in corners[is_inside]]
    return np.stack(windows) if windows else np.empty((0, size, size), dtype=np.float32)


def _rebuild_micrograph(values: dict[str, Any]) -> MicrographCalibration:
    ctf = Ctf(**values['ctf']) if values['ctf'] else None
    return MicrographCalibration(**{key: _as_tuple(value) for key, value in values.items() if key != 'ctf'}, ctf=ctf)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(one) for one in value) if isinstance(value, list) else value
