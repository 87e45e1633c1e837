"""Noise that depends on the signal: more electrons, more counting noise."""

from collections.abc import Sequence

import numpy as np

from cryogem.imaging.ice import average_blocks
from cryogem.imaging.signal import cover_particles

_CLEAR = 4.0                                # standard errors beyond which a dependence is believed
_LARGEST = 1.0                              # of the slope: beyond it other things than counting are at work
_GOOD_SHARE = 0.95                          # of a block that must be free of particles and dirt
_FEWEST_BLOCKS = 20
_LEAST_ERROR = 1e-6


def measure_variance_slope(
    contrasts: Sequence[np.ndarray], flats: Sequence[np.ndarray], picks: Sequence[np.ndarray],
    is_outliers: Sequence[np.ndarray], diameter_px: float, weights: Sequence[float],
) -> float:
    """Measure how the noise grows with the brightness of the ice, outside particles and dirt.

    The variance of differences of neighbouring pixels, which holds noise alone, is compared between blocks of half a
    particle; its logarithm is a line in the smooth background there. Counting makes bright places noisier, never dark
    ones: those hold unmarked particles or carbon.

    Parameters
    ----------
    contrasts, flats : (h, w) each, with and without the smooth background, contrast units.
    picks : (n, 2) px each.
    is_outliers : (h, w) bool each.
    weights : of the micrographs.

    Returns
    -------
    d log(variance) / d contrast; 0 where the data show none beyond four standard errors.
    """
    slopes = [_fit_slope(contrast, contrast - flat, diameter_px,
                         ~is_outlier & ~cover_particles(contrast.shape, centers, 0.7 * diameter_px))
              for contrast, flat, centers, is_outlier in zip(contrasts, flats, picks, is_outliers, strict=True)]
    known = np.array([(*one, weight) for one, weight in zip(slopes, weights, strict=True) if one is not None])
    if not len(known):
        return 0.0
    precision = known[:, 2] / known[:, 1] ** 2
    slope = float((precision * known[:, 0]).sum() / precision.sum())
    scatter = max(1.0, float((precision * (known[:, 0] - slope) ** 2).sum() / max(len(known) - 1, 1)))
    error = float(np.sqrt(scatter / precision.sum()))
    return min(slope, _LARGEST) if slope > _CLEAR * error else 0.0


def _fit_slope(
    contrast: np.ndarray, ice: np.ndarray, diameter_px: float, is_free: np.ndarray
) -> tuple[float, float] | None:
    """Return slope and standard error of the logarithm of the noise variance in one frame; None without free blocks."""
    n_blocks = [max(1, int(length / max(4.0, diameter_px / 2))) for length in contrast.shape]
    differences = np.zeros_like(contrast)
    differences[:, 1:] = (contrast[:, 1:] - contrast[:, :-1]) ** 2 / 2
    variance, counts = average_blocks(differences, is_free, n_blocks)
    mean, _ = average_blocks(ice, is_free, n_blocks)
    full = contrast.size / (n_blocks[0] * n_blocks[1])
    is_used = (counts > _GOOD_SHARE * full) & (variance > 0)
    if is_used.sum() < _FEWEST_BLOCKS:
        return None
    values, places = np.log(variance[is_used]), mean[is_used]
    places = places - places.mean()
    spread = float((places ** 2).sum())
    slope = float((places * values).sum()) / max(spread, 1e-12)
    rest = values - values.mean() - slope * places
    return slope, max(float(np.sqrt(rest.var(ddof=2) / max(spread, 1e-12))), _LEAST_ERROR)
