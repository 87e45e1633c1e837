"""What picks say: contrast, size, number and neighbours of the particles, and whether they sit on particles at all."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryogem.errors import InputError
from cryogem.imaging.signal import cut_windows
from cryogem.specimen.placement import measure_nearest_distances, place_particles

logger = logging.getLogger(__name__)

_KEPT_APART = (0.0, 0.05, 0.1, 0.25, 0.5)  # quantiles of the neighbour distance tried as limits of what is kept
_CLUSTERINGS = (0.0, 0.3, 0.6, 0.9)         # tried for the share of particles beside another
_PLACED_FRAMES = 3                          # placed for each trial
_GROUPS = 4                                 # of picks, whose mean pictures tell the error of all
_CLEAR = 4.0                                # times the energy beside the picks, beyond which a particle is seen
_SHIFT_ERRORS = 4.0                         # standard errors beyond which a shift is no chance
_FEWEST = 10                                # picks below which nothing is said


@dataclass(frozen=True)
class PickCheck:
    """Whether the picks sit on particles, from their mean picture."""

    profile: tuple[float, ...]              # contrast units, mean over rings of 1 px around the picks, from the centre
    strength: float                         # energy of the profile over that of profiles beside the picks
    shift_yx: tuple[float, float]           # px from the picks to the middle of the mean particle
    shift_error: float                      # px

    @property
    def is_on_particles(self) -> bool:
        """Whether there is more at the picks than beside them."""
        return self.strength > _CLEAR

    @property
    def is_shifted(self) -> bool:
        """Whether the picks are off centre, all the same way, by more than a pixel and beyond doubt."""
        return float(np.hypot(*self.shift_yx)) > max(1.0, _SHIFT_ERRORS * self.shift_error)


def check_picks(
    contrasts: Sequence[np.ndarray], picks: Sequence[np.ndarray], diameter_px: float
) -> PickCheck | None:
    """Look at the mean picture of the picks; None for fewer than ten that lie clear of the border.

    Beside the picks, half a diameter to one and a half away in all directions, the same number of pictures tells what
    chance and neighbours do. The mean of particles in all orientations is round, so it equals itself turned by half a
    turn about its middle, which is found by correlation.
    """
    size = 2 * int(np.ceil(diameter_px))
    groups, counts = _average_pictures(contrasts, picks, size)
    if counts.sum() < _FEWEST:
        return None
    mean = np.tensordot(counts / counts.sum(), groups, axes=1)
    beside = []
    for angle in np.arange(8) * np.pi / 4:
        offset = diameter_px * (0.75 + 0.5 * (angle % 2)) * np.array([np.sin(angle), np.cos(angle)])
        others, n_others = _average_pictures(contrasts, [one + offset for one in picks], size)
        if n_others.sum():
            beside.append(_measure_energy(np.tensordot(n_others / n_others.sum(), others, axes=1), diameter_px)
                          * n_others.sum() / counts.sum())
    strength = _measure_energy(mean, diameter_px) / max(float(np.mean(beside)), 1e-12) if beside else np.inf
    shifts = np.array([_find_middle(one, diameter_px) for one, n in zip(groups, counts, strict=True) if n])
    error = float(np.hypot(*shifts.std(axis=0)) / np.sqrt(max(len(shifts) - 1, 1)))
    y, x = _find_middle(mean, diameter_px)
    return PickCheck(tuple(average_rings(mean).tolist()), float(strength), (y, x), error)


def measure_density(
    contrasts: Sequence[np.ndarray], picks: Sequence[np.ndarray], shape: tuple[int, ...], diameter_px: float,
    weights: Sequence[float] | None = None, n_unmarked: Sequence[int] | None = None,
) -> tuple[float, float] | None:
    """Return mean and sd of the number of particles on a frame of `shape`, None without picks.

    Counted inside a border of half a particle, where people leave particles unmarked.

    Parameters
    ----------
    weights : of the micrographs; default all alike.
    n_unmarked : particles of each that are not among its picks.
    """
    if not sum(map(len, picks)):
        return None
    counts = np.array([estimate_count(centers, contrast.shape, diameter_px, n) / contrast.size for contrast, centers, n
                       in zip(contrasts, picks, n_unmarked or [0] * len(picks), strict=True)]) * shape[0] * shape[1]
    shares = np.full(len(counts), 1.0) if weights is None else np.asarray(weights, dtype=np.float64)
    mean = np.average(counts, weights=shares)
    if len(counts) == 1:
        return float(mean), float(np.sqrt(mean))
    variance = np.average((counts - mean) ** 2, weights=shares) * len(counts) / (len(counts) - 1)
    return float(mean), float(np.sqrt(variance))


def estimate_count(
    centers_yx: np.ndarray, shape: tuple[int, ...], diameter_px: float, n_unmarked: int = 0
) -> float:
    """Return the number of particles of a frame, those at its border too that people leave unmarked.

    Parameters
    ----------
    n_unmarked : clear of the border, beside the picks.
    """
    border, size = diameter_px / 2, np.array(shape)
    is_inner = ((centers_yx >= border) & (centers_yx <= size - 1 - border)).all(axis=1)
    return float((is_inner.sum() + n_unmarked) * np.prod(size) / np.prod(size - 2 * border))


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
        # one closest and one loneliest particle are an accident and say nothing
        misfit = float(np.abs(np.percentile(found, steps) - wanted)[1:-1].mean()) if len(found) else np.inf
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


def has_bright_particles(contrasts: Sequence[np.ndarray], picks: Sequence[np.ndarray], diameter_px: float) -> bool:
    """Say whether picked particles are brighter than the ring around them, beyond doubt (three standard errors).

    The whole disc is compared, not its middle: hollow particles are bright there.
    """
    size = 2 * int(np.ceil(0.8 * diameter_px))
    radius = np.hypot(*np.mgrid[:size, :size] - size // 2)
    is_disc, is_ring = radius <= diameter_px / 2, (radius > diameter_px / 2) & (radius <= 0.8 * diameter_px)
    windows = np.concatenate([cut_windows(c, p, size) for c, p in zip(contrasts, picks, strict=True)])
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


def _average_pictures(
    contrasts: Sequence[np.ndarray], picks: Sequence[np.ndarray], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (4, size, size) mean pictures of a few groups of picks and (4,) the number of pictures in each."""
    sums, counts = np.zeros((_GROUPS, size, size)), np.zeros(_GROUPS)
    for contrast, centers in zip(contrasts, picks, strict=True):
        windows = cut_windows(contrast, centers, size)
        for group in range(_GROUPS):
            sums[group] += windows[group::_GROUPS].sum(axis=0)
            counts[group] += len(windows[group::_GROUPS])
    return sums / np.maximum(counts, 1)[:, None, None], counts


def average_rings(image: np.ndarray) -> np.ndarray:
    """Return means over rings of 1 px around the middle of an (n, n) image, out to its edge, less that at the edge."""
    size = len(image)
    radius = np.rint(np.hypot(*np.mgrid[:size, :size] - size // 2)).astype(int)
    rings = (np.bincount(radius.ravel(), image.ravel()) / np.bincount(radius.ravel()))[:size // 2]
    return rings - rings[-max(1, size // 8):].mean()


def _measure_energy(image: np.ndarray, diameter_px: float) -> float:
    """Return the sum of squares of the radial profile out to 0.8 diameters, weighted by area."""
    rings = average_rings(image)[:max(2, int(0.8 * diameter_px))]
    return float((np.arange(len(rings)) * rings ** 2).sum())


def _find_middle(image: np.ndarray, diameter_px: float) -> tuple[float, float]:
    """Return y, x (px from the middle of the image) of the point about which an (n, n) image is round."""
    size = len(image)
    radius = np.hypot(*np.mgrid[:size, :size] - size // 2) / diameter_px
    weight = np.clip((1.0 - radius) / 0.3, 0, 1)
    centered = (image - (image * weight).sum() / weight.sum()) * weight
    # the image convolved with itself is largest at twice its middle
    spectrum = np.fft.rfft2(centered, s=(2 * size, 2 * size))
    doubled = np.fft.irfft2(spectrum ** 2, s=(2 * size, 2 * size))
    reach = int(diameter_px)
    region = doubled[size - reach:size + reach + 1, size - reach:size + reach + 1]
    y, x = np.unravel_index(np.argmax(region), region.shape)
    return ((_refine(region[:, x], int(y)) - reach) / 2, (_refine(region[y], int(x)) - reach) / 2)


def _refine(values: np.ndarray, peak: int) -> float:
    """Return the place of the maximum of a parabola through the peak and its neighbours."""
    if not 0 < peak < len(values) - 1:
        return float(peak)
    below, here, above = values[peak - 1:peak + 2]
    return peak + 0.5 * (below - above) / min(below - 2 * here + above, -1e-12)
