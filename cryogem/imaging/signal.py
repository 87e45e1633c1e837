"""What of a micrograph is signal: the power that comes with the particles, and the mean picked particle."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryogem.imaging.spectrum import N_SHELLS, average_shells, count_modes, hann_window, measure_power

_WINDOW = 2.0                               # side of the windows, particle diameters
_OVERLAP = 2.0                              # windows at half steps: so many times fewer of them are independent
_GOOD_SHARE = 0.9                           # of a window that must be image, not dirt or a dead edge
_FEWEST_WINDOWS = 12
_NO_ERROR = 1e6                             # contrast units: standard error of what was not seen at all


@dataclass(frozen=True)
class SignalMeasurement:
    """The signal of one frame, real or clean, on shells up to the Nyquist frequency; contrast units² per px."""

    excess_power: tuple[float, ...]         # power where all is particle less power where nothing is
    excess_error: tuple[float, ...]         # its standard error
    free_power: tuple[float, ...]           # power where nothing is particle
    mean_particle: tuple[float, ...]        # signed radial transform of the mean particle, contrast units
    mean_error: tuple[float, ...]           # its standard error


def measure_signal(
    contrast: np.ndarray, centers_yx: np.ndarray, diameter_px: float, is_good: np.ndarray | None = None
) -> SignalMeasurement:
    """Measure what comes with the particles of an (h, w) frame, whatever else is in it.

    Windows of two diameters cover the frame. Their power is regressed on the share of them that particles cover: no
    empty window is needed, and noise, which is in all of them alike, does not count. The position in the frame is a
    covariate, so that noise that grows along with thicker ice is not taken for signal.

    Parameters
    ----------
    contrast : without its ice.
    centers_yx : (n, 2) px, n at least 1.
    is_good : (h, w) bool, False on dirt and dead edges; default all.
    """
    side = 2 * int(np.ceil(_WINDOW / 2 * diameter_px))
    window = hann_window((side, side))
    powers, coverage, places = _measure_windows(contrast, centers_yx, diameter_px, window, is_good)
    slope, error, free = _regress(powers, coverage, places)
    mean, mean_error = _measure_mean_particle(contrast, centers_yx, window, np.maximum(powers.mean(axis=0), 1e-12))
    return SignalMeasurement(*(tuple(one.tolist()) for one in (slope, error, free, mean, mean_error)))


def average_signals(measured: Sequence[SignalMeasurement]) -> SignalMeasurement:
    """Return the mean of several measurements of clean frames with the same particles in other poses."""
    return SignalMeasurement(*(
        tuple(np.mean([getattr(one, field.name) for one in measured], axis=0).tolist())
        for field in dataclasses.fields(SignalMeasurement)))


def cover_particles(shape: tuple[int, ...], centers_yx: np.ndarray, radius: float) -> np.ndarray:
    """Return (h, w) bool, True within `radius` px of a centre."""
    is_covered = np.zeros(shape, dtype=bool)
    for y, x in centers_yx:
        rows = slice(max(0, int(y - radius)), max(0, min(shape[0], int(y + radius) + 2)))
        columns = slice(max(0, int(x - radius)), max(0, min(shape[1], int(x + radius) + 2)))
        dy, dx = np.arange(rows.start, rows.stop) - y, np.arange(columns.start, columns.stop) - x
        is_covered[rows, columns] |= dy[:, None] ** 2 + dx ** 2 <= radius ** 2
    return is_covered


def cut_windows(contrast: np.ndarray, centers_yx: np.ndarray, size: int) -> np.ndarray:
    """Return (n, size, size) windows around those centres that lie wholly inside the frame."""
    corners = np.floor(np.asarray(centers_yx).reshape(-1, 2) + 0.5).astype(int) - size // 2
    is_inside = ((corners >= 0) & (corners + size <= np.array(contrast.shape))).all(axis=1)
    windows = [contrast[y:y + size, x:x + size] for y, x in corners[is_inside]]
    return np.stack(windows) if windows else np.empty((0, size, size), dtype=np.float32)


def _measure_windows(
    contrast: np.ndarray, centers_yx: np.ndarray, diameter_px: float, window: np.ndarray, is_good: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (m, N_SHELLS) powers, (m,) covered shares and (m, 2) places in [-1, 1] of the windows of a frame."""
    side = len(window)
    is_covered = cover_particles(contrast.shape, centers_yx, diameter_px / 2)
    steps = [_list_steps(length, side) for length in contrast.shape]
    corners = np.array([(y, x) for y in steps[0] for x in steps[1]])
    if is_good is not None:
        good = np.array([is_good[y:y + side, x:x + side].mean() for y, x in corners])
        # where hardly anything is good, the best windows must do
        corners = corners[good >= min(_GOOD_SHARE, np.sort(good)[-min(_FEWEST_WINDOWS, len(good))])]
    energy = window ** 2 / (window ** 2).sum()
    coverage = np.array([(is_covered[y:y + side, x:x + side] * energy).sum() for y, x in corners])
    powers = measure_power(np.stack([contrast[y:y + side, x:x + side] for y, x in corners]), window)
    return powers, coverage, 2 * (corners + side / 2) / np.array(contrast.shape) - 1


def _list_steps(length: int, side: int) -> np.ndarray:
    """Return corners of windows that cover a length with at least half overlap."""
    n = max(1, int(np.ceil((length - side) / (side / 2))) + 1)
    return np.unique(np.linspace(0, max(0, length - side), n).round().astype(int))


def _regress(powers: np.ndarray, coverage: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return slope on the coverage, its standard error, and the value at no coverage, each (N_SHELLS,)."""
    others = np.column_stack([np.ones(len(coverage)), places]) if len(coverage) > 5 else np.ones((len(coverage), 1))
    rest = coverage - others @ np.linalg.lstsq(others, coverage, rcond=None)[0]
    spread = max(float((rest ** 2).sum()), 1e-9)
    slope = rest @ powers / spread
    residuals = powers - coverage[:, None] * slope
    free = residuals.mean(axis=0)
    residuals = residuals - others @ np.linalg.lstsq(others, residuals, rcond=None)[0]
    error = np.sqrt(_OVERLAP * residuals.var(axis=0) / spread)
    return slope, error, free


def _measure_mean_particle(
    contrast: np.ndarray, centers_yx: np.ndarray, window: np.ndarray, power: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the radial transform of the mean particle under a window, and its standard error, both (N_SHELLS,)."""
    side = len(window)
    windows = cut_windows(contrast, centers_yx, side)
    if not len(windows):
        return np.zeros(N_SHELLS), np.full(N_SHELLS, _NO_ERROR)
    mean = windows.mean(axis=0, dtype=np.float64)
    mean = (mean - (mean * window).sum() / window.sum()) * window
    transform = np.fft.rfft2(np.fft.ifftshift(mean)).real / np.sqrt((window ** 2).sum())
    modes = count_modes((side, side))
    return average_shells(transform, (side, side)), np.sqrt(power / (2 * len(windows) * modes))
