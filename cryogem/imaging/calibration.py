"""What the simulation needs to know about the user's micrographs, measured on them."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryogem.errors import InputError
from cryogem.imaging.grey import GreyScale, find_good_region, measure_grey_scale
from cryogem.imaging.ice import fit_ice, render_ice
from cryogem.imaging.spectrum import N_SHELLS, measure_mean_power, measure_power
from cryogem.records import Ctf
from cryogem.specimen.placement import measure_nearest_distances

logger = logging.getLogger(__name__)

_EXCESS_SHELLS = slice(3, N_SHELLS // 2)    # low to middle shells: above the ice, below where noise is all
_B_FACTORS = np.arange(-300.0, 1201.0, 20.0)  # Å², tried for the fall-off of the signal
_OUTLYING_WINDOW = 6.0                      # robust sd of window variance beyond which a window is dirt


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


@dataclass(frozen=True)
class Calibration:
    """What was measured on a set of real micrographs."""

    pixel_size: float                       # Å/px at which all was measured
    shape: tuple[int, int]                  # (h, w) of most frames, px
    particle_diameter: float                # Å
    particles_per_frame: tuple[float, float] | None     # mean, sd over the frames, scaled to `shape`
    neighbour_distances: tuple[float, ...] | None       # Å, even quantiles of what particles keep from each other
    excess_power: tuple[float, ...] | None  # spectrum of windows on picks less that of windows everywhere
    signal_scale: float | None              # contrast units per unit of projected density, once a map is known
    map_b_factor: float                     # Å², by which maps are filtered to match the particles
    micrographs: tuple[MicrographCalibration, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as plain JSON values, with their units."""
        units = {'pixel_size': 'Å/px', 'shape': 'px (h, w)', 'particle_diameter': 'Å', 'neighbour_distances': 'Å',
                 'power': 'contrast units² per px, shell i at i / shells of the Nyquist frequency',
                 'signal_scale': 'contrast units per unit of density times px', 'map_b_factor': 'Å²'}
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
    return Calibration(
        pixel_size, shape, particle_diameter, measure_density(flattened, picks, shape, diameter_px),
        measure_neighbour_distances(picks, pixel_size), measure_excess_power(flattened, picks, diameter_px),
        None, 0.0, tuple(measured))


def with_signal(
    calibration: Calibration, signal_scale: float, map_b_factor: float, signal_power: np.ndarray
) -> Calibration:
    """Return the calibration once the map is known: the noise is what the total holds beyond the calibrated signal.

    Windows without picks hold unlabelled particles, so the noise is not taken from them but as total minus signal,
    never less than a tenth of the total.

    Parameters
    ----------
    signal_scale : contrast units per unit of projected density.
    map_b_factor : Å², by which the maps were filtered.
    signal_power : (N_SHELLS,) mean frame spectrum of clean micrographs of the filtered maps at scale 1.
    """
    micrographs = []
    for one in calibration.micrographs:
        total = np.asarray(one.total_power)
        noise = np.maximum(total - signal_scale ** 2 * signal_power, 0.1 * total)
        micrographs.append(dataclasses.replace(one, noise_power=tuple(noise.tolist())))
    return dataclasses.replace(calibration, signal_scale=signal_scale, map_b_factor=map_b_factor,
                               micrographs=tuple(micrographs))


def fit_signal(calibration: Calibration, clean_excess: np.ndarray) -> tuple[float, float]:
    """Find amplitude and fall-off that make the simulated excess power at particles fit the real one best.

    Least squares over the low to middle shells. Single shells can be negative: in a crowded frame windows between
    particles hold more of some frequencies than windows on them; the simulation is crowded in the same way.

    Parameters
    ----------
    calibration : with the excess power of the real micrographs.
    clean_excess : (N_SHELLS,) the same of clean micrographs at scale 1.

    Returns
    -------
    The signal scale, contrast units per unit of projected density, and the B-factor (Å²) by which the map is to be
    filtered, ``exp(-B s²/4)``: maps are often sharper than the particles in the micrographs, some are smoother.

    Raises
    ------
    InputError : the spectrum of the picked places does not resemble that of simulated particles.
    """
    shells = np.arange(N_SHELLS)
    squared_frequency = (shells / N_SHELLS / (2 * calibration.pixel_size)) ** 2
    # shells hold modes in proportion to their radius and noise in proportion to their power
    weights = shells / np.mean([one.total_power for one in calibration.micrographs], axis=0)
    weights, real, clean, squared_frequency = (
        np.asarray(one)[_EXCESS_SHELLS] for one in (weights, calibration.excess_power, clean_excess, squared_frequency))
    best = (np.inf, 0.0, 0.0)
    for b_factor in _B_FACTORS:
        shape = np.exp(-b_factor / 2 * squared_frequency) * clean
        squared_scale = float((weights * real) @ shape) / max(float((weights * shape) @ shape), 1e-30)
        misfit = float(weights @ (real - squared_scale * shape) ** 2)
        best = min(best, (misfit, float(b_factor), squared_scale))
    if best[2] <= 0:
        raise InputError('coordinates do not sit on particles: the power at the picked places does not resemble '
                         'that of the map; check that picks, micrographs and map belong together')
    return float(np.sqrt(best[2])), best[1]


def measure_frame_power(contrast: np.ndarray) -> np.ndarray:
    """Return the (N_SHELLS,) spectrum of an (h, w) frame without its dead edges."""
    return measure_power(contrast[find_good_region(contrast)])


def measure_background_power(contrast: np.ndarray, is_background: np.ndarray) -> np.ndarray:
    """Return the (N_SHELLS,) spectrum of an (h, w) frame outside particles."""
    region = find_good_region(contrast)
    return measure_power(contrast[region], is_background[region].astype(np.float32))


def measure_excess_power(
    contrasts: Sequence[np.ndarray], picks: Sequence[np.ndarray], diameter_px: float
) -> tuple[float, ...] | None:
    """Return the spectrum of windows centred on picks less that of windows all over the frames; None without picks."""
    size = 2 * int(np.ceil(diameter_px / 2))
    at_picks = [_cut_windows(c, p, size) for c, p in zip(contrasts, picks, strict=True)]
    everywhere = [_cut_windows(c, _list_grid(c.shape, size), size) for c in contrasts]
    if not sum(map(len, at_picks)):
        return None
    powers = [measure_mean_power(_drop_outlying(np.concatenate(one))) for one in (at_picks, everywhere)]
    return tuple((powers[0] - powers[1]).tolist())


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


def measure_neighbour_distances(picks: Sequence[np.ndarray], pixel_size: float) -> tuple[float, ...] | None:
    """Return quantiles, from 0 to 100 % in steps of 5, of the distances (Å) that particles keep from each other.

    They are those of the picks to their nearest neighbours up to the median, which stands for all above it: close pairs
    are as rare as among the picks, while gaps come from the number of particles. None for fewer than ten picks.
    """
    distances = np.concatenate([measure_nearest_distances(centers) for centers in picks]) * pixel_size
    if len(distances) < 10:
        return None
    quantiles = np.percentile(distances, np.arange(0, 101, 5))
    return tuple(np.minimum(quantiles, np.median(distances)).tolist())


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


def _list_grid(shape: tuple[int, ...], size: int) -> np.ndarray:
    ys, xs = (np.arange(size // 2, n - size // 2 + 1, max(1, size // 2)) for n in shape)
    return np.stack(np.meshgrid(ys, xs, indexing='ij'), axis=-1).reshape(-1, 2)


def _drop_outlying(windows: np.ndarray) -> np.ndarray:
    """Leave out windows of dirt or carbon: those whose variance is far from the median."""
    spread = np.log(windows.var(axis=(1, 2)) + 1e-12)
    deviation = np.abs(spread - np.median(spread))
    return windows[deviation <= _OUTLYING_WINDOW * 1.4826 * np.median(deviation) + 1e-6]


def _rebuild_micrograph(values: dict[str, Any]) -> MicrographCalibration:
    ctf = Ctf(**values['ctf']) if values['ctf'] else None
    return MicrographCalibration(**{key: _as_tuple(value) for key, value in values.items() if key != 'ctf'}, ctf=ctf)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(one) for one in value) if isinstance(value, list) else value
