"""Particles that nobody marked: what looks like the mean picked particle but is no pick."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from cryogem.imaging.signal import cut_windows

_FEWEST = 30                                # picks below which their mean is too noisy to look for others
_RADIUS = 0.7                               # of the template, particle diameters
_APART = 0.6                                # diameters from every pick and between two finds


def count_unmarked(
    flats: Sequence[np.ndarray], picks: Sequence[np.ndarray], diameter_px: float, is_outliers: Sequence[np.ndarray]
) -> list[int]:
    """Estimate the particles that are not among the picks, half a diameter and more from the border.

    The round mean of all picks is correlated with each frame. Half of the picks score above their median, so those
    elsewhere that do are half of the unmarked ones. The same count with the contrast turned round is that of chance.

    Parameters
    ----------
    flats : (h, w) each, contrast units, without background.
    picks : (n, 2) px each.
    is_outliers : (h, w) bool each; what lies there is not counted.
    """
    if sum(map(len, picks)) < _FEWEST:
        return [0] * len(flats)
    template = _make_template(flats, picks, diameter_px)
    counts = []
    for flat, centers, is_outlier in zip(flats, picks, is_outliers, strict=True):
        if not len(centers):
            counts.append(0)                # such a frame counts as empty
            continue
        scores = _correlate(flat, template)
        places = np.clip(np.rint(centers).astype(int), 0, np.array(flat.shape) - 1)
        reached = maximum_filter(scores, int(diameter_px / 2) | 1)[places[:, 0], places[:, 1]]
        threshold = float(np.median(reached))
        found, chance = (_count_peaks(sign * scores, threshold, centers, diameter_px, is_outlier) for sign in (1, -1))
        counts.append(max(0, 2 * (found - chance)) if threshold > 0 else 0)
    return counts


def _make_template(flats: Sequence[np.ndarray], picks: Sequence[np.ndarray], diameter_px: float) -> np.ndarray:
    """Return the (n, n) round mean of the picks, of zero mean and unit energy, zero outside 0.7 diameters."""
    size = 2 * int(np.ceil((_RADIUS + 0.05) * diameter_px))
    total, count = np.zeros((size, size)), 0
    for flat, centers in zip(flats, picks, strict=True):
        windows = cut_windows(flat, centers, size)
        total, count = total + windows.sum(axis=0), count + len(windows)
    radius = np.hypot(*np.mgrid[:size, :size] - size // 2)
    rings = np.rint(radius).astype(int)
    profile = np.bincount(rings.ravel(), total.ravel() / max(count, 1)) / np.bincount(rings.ravel())
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
