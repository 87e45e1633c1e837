"""Ice: the smooth background of a micrograph as a few cosine coefficients, for frames of any shape."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

WHOLE = (slice(None), slice(None))          # the window that is the frame
ORDER, NOISE_ORDER = 6, 4                   # cosines per axis of background and noise: of the frame a third at least
_PATCH, _PATCH_BLUR = 16, 2.0               # px, and patches, of the published ice
_CLUSTERS, _CLUSTER_ROUNDS = 6, 20
_PAPER_GRID = 32                            # values kept along a side: finer than the blur
_TRANSMISSIONS = (0.1, 2.0)                 # least and largest
_LARGEST_GRID, _NOISE_GRID = 128, 32        # blocks per axis to which a frame is averaged before the fit


def fit_ice(contrast: np.ndarray, is_background: np.ndarray, order: int = ORDER) -> np.ndarray:
    """Fit a smooth additive background by least squares, particles masked out.

    Parameters
    ----------
    contrast : (h, w) micrograph in contrast units.
    is_background : (h, w) bool, False on particles and dirt.

    Returns
    -------
    (order, order) float64 cosine coefficients, contrast units, without the constant term.
    """
    return _fit_cosines(*average_blocks(contrast, is_background, [min(n, _LARGEST_GRID) for n in contrast.shape]),
                        order)


def fit_noise_map(contrast: np.ndarray, is_background: np.ndarray, order: int = NOISE_ORDER) -> np.ndarray:
    """Fit how the noise grows and fades over a frame with the thickness of the ice, particles masked out.

    The variance of differences of neighbouring pixels, which holds noise alone, is averaged over blocks.

    Returns
    -------
    (order, order) float64 cosine coefficients of the logarithm of the noise's sd, without the constant term.
    """
    differences = np.zeros_like(contrast)
    differences[:, 1:] = (contrast[:, 1:] - contrast[:, :-1]) ** 2 / 2
    variance, counts = average_blocks(differences, is_background, [min(n, _NOISE_GRID) for n in contrast.shape])
    typical = max(float(np.average(variance, weights=counts)), 1e-12) if counts.any() else 1.0
    return _fit_cosines(np.log(np.maximum(variance, 0.1 * typical) / typical) / 2, counts, order)


def _fit_cosines(values: np.ndarray, weights: np.ndarray, order: int) -> np.ndarray:
    """Fit (a, b) values by weighted least squares: (order, order) cosine coefficients without the constant term."""
    bases = [_cosines(length, order) for length in values.shape]
    design = np.einsum('yi,xj->yxij', *bases).reshape(values.size, -1)
    weighted = design * np.sqrt(weights.ravel())[:, None]
    # a whisker of ridge keeps corners without background from swinging
    ridge = 1e-3 * weights.sum()
    normal = weighted.T @ weighted + ridge * np.diag(_roughness(order))
    coefficients = np.linalg.solve(normal, weighted.T @ (np.sqrt(weights.ravel()) * values.ravel()))
    coefficients = coefficients.reshape(order, order)
    coefficients[0, 0] = 0
    # the digits beyond depend on how many threads add up, and every process must get the same
    return np.round(coefficients, 12)


def render_ice(
    coefficients: np.ndarray, shape: tuple[int, ...], flips: tuple[bool, bool] = (False, False),
    window: tuple[slice, slice] = WHOLE,
) -> np.ndarray:
    """Return the (h, w) float32 background of cosine coefficients, mirrored along y and x where `flips` says so.

    Parameters
    ----------
    window : what part of the frame of (h, w) `shape` is wanted; the rest costs nothing.
    """
    order = len(coefficients)
    signs = [np.where(flip, (-1.0) ** np.arange(order), 1.0) for flip in flips]
    coefficients = coefficients * signs[0][:, None] * signs[1]
    rows, columns = (_cosines(length, order)[part] for length, part in zip(shape, window, strict=True))
    return (rows @ coefficients @ columns.T).astype(np.float32)


def _cosines(length: int, order: int) -> np.ndarray:
    """Return (length, order) samples cos(pi j (i + 1/2) / length)."""
    positions = (np.arange(length) + 0.5) / length
    return np.cos(np.pi * positions[:, None] * np.arange(order))


def _roughness(order: int) -> np.ndarray:
    squares = np.arange(order) ** 2
    return (squares[:, None] + squares).ravel().astype(float) ** 2 / order ** 4


def fit_paper_ice(contrast: np.ndarray) -> np.ndarray:
    """Estimate the ice as the published code does: means of patches, grouped by k-means, blurred.

    Zhang et al. 2024, arXiv 2312.02235. Values are transmissions, 1 on average: thick, dark ice lets less contrast
    through.

    Returns
    -------
    (a, b) float64, evenly spread over the frame, at most 32 along a side.
    """
    n_patches = [max(1, round(length / _PATCH)) for length in contrast.shape]
    means, _ = average_blocks(contrast, np.ones(contrast.shape, dtype=bool), n_patches)
    centers = np.quantile(means, (np.arange(_CLUSTERS) + 0.5) / _CLUSTERS)
    for _ in range(_CLUSTER_ROUNDS):
        labels = np.abs(means[..., None] - centers).argmin(axis=-1)
        centers = np.array([means[labels == k].mean() if (labels == k).any() else centers[k]
                            for k in range(_CLUSTERS)])
    blurred = gaussian_filter(centers[np.abs(means[..., None] - centers).argmin(axis=-1)], _PATCH_BLUR, mode='nearest')
    coarse, _ = average_blocks(blurred, np.ones(blurred.shape, dtype=bool),
                               [min(n, _PAPER_GRID) for n in blurred.shape])
    return np.clip(1 + coarse - coarse.mean(), *_TRANSMISSIONS)


def render_paper_ice(
    transmissions: np.ndarray, shape: tuple[int, ...], flips: tuple[bool, bool] = (False, False)
) -> np.ndarray:
    """Return the (h, w) float32 transmissions of `fit_paper_ice`, mirrored along y and x where `flips` says so."""
    places = [(np.arange(length) + 0.5) * n / length - 0.5
              for length, n in zip(shape, transmissions.shape, strict=True)]
    image = map_coordinates(transmissions, np.meshgrid(*places, indexing='ij'), order=1, mode='nearest')
    return image[::-1 if flips[0] else 1, ::-1 if flips[1] else 1].astype(np.float32)


def average_blocks(
    image: np.ndarray, is_good: np.ndarray, n_blocks: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Average an image over (a, b) blocks, good pixels only; return (a, b) means and the number of pixels in each."""
    edges = [np.linspace(0, length, n + 1).astype(int)[:-1] for length, n in zip(image.shape, n_blocks, strict=True)]

    def add_up(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(values, edges[0], axis=0), edges[1], axis=1)

    counts = add_up(is_good.astype(np.float64))
    return add_up(np.where(is_good, image, 0).astype(np.float64)) / np.maximum(counts, 1), counts
