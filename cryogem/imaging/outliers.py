"""Regions that are no specimen in ice: carbon, crystals, dirt. They are kept out of ice, noise and signal."""

import numpy as np
from scipy import ndimage

from cryogem.imaging.signal import cover_particles

_CELL = 0.8                                 # particle diameters over which mean and variance are taken
_LIMIT = 5.0                                # robust sd of all cells beyond which a cell is an outlier
_SURROUNDINGS = 6                           # cells whose median a cell is compared with
_MAD_TO_SD = 1.4826


def find_outliers(
    contrast: np.ndarray, centers_yx: np.ndarray, diameter_px: float, region: tuple[slice, slice]
) -> np.ndarray:
    """Find where the local mean or the local variance of an (h, w) frame is not that of the rest.

    What picked particles add to both is taken away first, so that neither they nor the places between them stand out;
    picks on a crystal do not save it.

    Parameters
    ----------
    contrast : without its ice, as far as that is known.
    centers_yx : (n, 2) picks, px.
    region : of the frame without its dead edges.

    Returns
    -------
    (h, w) bool, True on outliers; False outside the region, which is to be left out anyway.
    """
    inner = contrast[region].astype(np.float32)
    cell = min(max(4, round(_CELL * diameter_px)), min(inner.shape) // 4)
    step, half = max(1, cell // 3), (cell + 1) // 2
    whole = (slice(half, -half, step), slice(half, -half, step))
    mean = ndimage.uniform_filter(inner, cell)
    variance = np.log(np.maximum(ndimage.uniform_filter(inner ** 2, cell) - mean ** 2, 1e-6))[whole]
    covered = cover_particles(contrast.shape, centers_yx, diameter_px / 2)[region].astype(np.float32)
    coverage = ndimage.uniform_filter(covered, cell)[whole]
    # against its surroundings a crystal stands out where the ice grows thicker, too
    local = mean[whole] - ndimage.median_filter(mean[whole], _SURROUNDINGS * cell // step)
    is_marked = _mark(mean[whole], coverage) | _mark(local, coverage) | _mark(variance, coverage)
    reach = max(1, cell // 4 // step)               # what is seen in cells reaches out of them
    is_marked = ndimage.binary_dilation(is_marked, np.ones((2 * reach + 1,) * 2))
    is_outlier = np.zeros(contrast.shape, dtype=bool)
    rows, columns = (np.clip((np.arange(n) - half + step // 2) // step, 0, m - 1)
                     for n, m in zip(inner.shape, is_marked.shape, strict=True))
    is_outlier[region] = is_marked[rows[:, None], columns]
    return is_outlier


def _mark(values: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Return where (a, b) values are far from what those of equal coverage by particles are like."""
    design = np.stack([np.ones(values.size), coverage.ravel()], axis=1)
    rest = (values - np.median(values)).ravel()
    is_used = np.ones(values.size, dtype=bool)
    for _ in range(3):
        line, *_ = np.linalg.lstsq(design[is_used], values.ravel()[is_used], rcond=None)
        rest = values.ravel() - design @ line
        spread = _MAD_TO_SD * max(float(np.median(np.abs(rest - np.median(rest)))), 1e-6)
        # what an unmarked particle adds is no outlier
        is_used = np.abs(rest) <= _LIMIT * spread + abs(line[1])
    return ~is_used.reshape(values.shape)
