"""Particles that nobody marked: what looks like the mean picked particle but is no pick."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from cryogem.imaging.resampling import resample_centers
from cryogem.imaging.signal import cut_windows

_FEWEST = 30                                # picks below which their mean is too noisy to look for others
_RADIUS = 0.7                               # of the template, particle diameters
_APART = 0.6                                # diameters from every pick and between two finds
_LEAST_DIAMETER = 24                        # px to which frames are binned: a round mean holds no finer detail
_CLEAR = 4.0                                # standard errors beyond which picks are like each other
_FOUND = 3.0                                # standard errors of a count beyond which it is more than chance


def count_unmarked(
    flats: Sequence[np.ndarray], picks: Sequence[np.ndarray], diameter_px: float, is_outliers: Sequence[np.ndarray]
) -> list[int]:
    """Estimate the particles that are not among the picks, half a diameter and more from the border.

    The round mean of all picks is correlated with each frame. Half of the picks score above their median, so those
    elsewhere that do are half of the unmarked ones. The same count with the contrast turned round is that of chance.
    Where the picks are not like each other, or the set holds no more than chance would, there are none.

    Parameters
    ----------
    flats : (h, w) each, contrast units, without background.
    picks : (n, 2) px each.
    is_outliers : (h, w) bool each; what lies there is not counted.
    """
    factor = max(1, int(diameter_px / _LEAST_DIAMETER))
    binned = [_bin(one, factor) for one in flats]
    centers = [resample_centers(np.asarray(one, dtype=np.float64).reshape(-1, 2), (factor, factor), (1, 1))
               for one in picks]
    diameter = diameter_px / factor
    if sum(map(len, picks)) < _FEWEST or not _are_alike(binned, centers, diameter):
        return [0] * len(flats)
    template = _make_template(_average(binned, centers, diameter), diameter)
    finds = np.array([_count_in_frame(*frame, template, diameter)
                      for frame in zip(binned, centers, [_bin(one, factor) > 0 for one in is_outliers], strict=True)])
    excess = 2.0 * (finds[:, 0] - finds[:, 1])
    total = float(excess.sum())
    if total <= 2 * _FOUND * np.sqrt(finds.sum()):
        return [0] * len(flats)
    # below zero a frame cannot go, so that the others are to give up what chance gave them
    counts = np.maximum(excess, 0)
    return [round(one) for one in (counts * total / counts.sum()).tolist()]


def _bin(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the (h // factor, w // factor) float32 means over blocks."""
    h, w = (length // factor for length in image.shape)
    blocks = image[:h * factor, :w * factor].reshape(h, factor, w, factor)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def _are_alike(flats: Sequence[np.ndarray], picks: Sequence[np.ndarray], diameter_px: float) -> bool:
    """Say whether every other pick resembles the mean of those between: noise picked by chance does not."""
    halves = [[one[start::2] for one in picks] for start in (0, 1)]
    means = [_average(flats, half, diameter_px) for half in halves]
    scores = np.concatenate([
        np.tensordot(cut_windows(flat, centers, len(means[0])), _make_template(mean, diameter_px), axes=2)
        for half, mean in zip(halves, means[::-1], strict=True) for flat, centers in zip(flats, half, strict=True)])
    # both halves say the same, so that half of the scores count
    return len(scores) > 1 and float(scores.mean()) > _CLEAR * float(scores.std()) / np.sqrt(len(scores) / 2)


def _count_in_frame(
    flat: np.ndarray, centers_yx: np.ndarray, is_outlier: np.ndarray, template: np.ndarray, diameter_px: float
) -> tuple[int, int]:
    """Return how many places besides the picks score above the median of these, and how many do by chance."""
    if not len(centers_yx):
        return 0, 0                         # such a frame counts as empty
    scores = _correlate(flat, template)
    places = np.clip(np.rint(centers_yx).astype(int), 0, np.array(flat.shape) - 1)
    reached = maximum_filter(scores, int(diameter_px / 2) | 1)[places[:, 0], places[:, 1]]
    threshold = float(np.median(reached))
    if threshold <= 0:
        return 0, 0
    found, chance = (_count_peaks(sign * scores, threshold, centers_yx, diameter_px, is_outlier) for sign in (1, -1))
    return found, chance


def _average(flats: Sequence[np.ndarray], picks: Sequence[np.ndarray], diameter_px: float) -> np.ndarray:
    """Return the (n, n) mean of the windows around the picks."""
    size = 2 * int(np.ceil((_RADIUS + 0.05) * diameter_px))
    total, count = np.zeros((size, size)), 0
    for flat, centers in zip(flats, picks, strict=True):
        windows = cut_windows(flat, centers, size)
        total, count = total + windows.sum(axis=0), count + len(windows)
    return total / max(count, 1)


def _make_template(mean: np.ndarray, diameter_px: float) -> np.ndarray:
    """Return an (n, n) mean made round, of zero mean and unit energy, zero outside 0.7 diameters."""
    radius = np.hypot(*np.mgrid[:len(mean), :len(mean)] - len(mean) // 2)
    rings = np.rint(radius).astype(int)
    profile = np.bincount(rings.ravel(), mean.ravel()) / np.bincount(rings.ravel())
    is_inside = radius <= _RADIUS * diameter_px
    template = np.where(is_inside, profile[rings] - profile[rings][is_inside].mean(), 0)
    return (template / max(float(np.sqrt((template ** 2).sum())), 1e-12)).astype(np.float32)


def _correlate(flat: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Return the (h, w) correlation of a frame with a template centred at n // 2, the frame mirrored at its edges."""
    n = len(template)
    padded = np.pad(flat, ((0, n), (0, n)), mode='reflect').astype(np.float32)
    placed = np.zeros(padded.shape, np.float32)
    placed[:n, :n] = template
    placed = np.roll(placed, (-(n // 2), -(n // 2)), axis=(0, 1))
    product = torch.fft.rfft2(torch.from_numpy(padded)) * torch.fft.rfft2(torch.from_numpy(placed)).conj()
    return torch.fft.irfft2(product, s=padded.shape).numpy()[:flat.shape[0], :flat.shape[1]]


def _count_peaks(
    scores: np.ndarray, threshold: float, centers_yx: np.ndarray, diameter_px: float, is_outlier: np.ndarray
) -> int:
    """Count local maxima above a threshold, away from the picks, the border and dirt."""
    border = int(np.ceil(diameter_px / 2))
    is_peak = (maximum_filter(scores, int(_APART * diameter_px) | 1) == scores) & (scores > threshold) & ~is_outlier
    peaks = np.argwhere(is_peak[border:-border, border:-border]) + border
    if not len(peaks):
        return 0
    distances, _ = cKDTree(centers_yx).query(peaks)
    return int((distances > _APART * diameter_px).sum())
