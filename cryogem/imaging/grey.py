"""Robust grey scale: one hot pixel, a dead row or a burnt border must not rescale a micrograph."""

from dataclasses import dataclass

import numpy as np

_OUTLIER = 6.0                              # robust sd beyond which a pixel or an edge row is no image
_MAD_TO_SD = 1.4826
_ROW_SAMPLE, _ROWS = 512, 128               # pixels of a row that are looked at, and rows that tell the usual, at least
_SAMPLE = 2 ** 16                           # pixels whose grey values are counted, and whose median is taken


@dataclass(frozen=True)
class GreyScale:
    """Linear map between grey values and contrast units."""

    mean: float                             # grey value of contrast 0
    sd: float                               # grey values per contrast unit

    def normalise(self, image: np.ndarray) -> np.ndarray:
        """Turn grey values into contrast units, outlying pixels clipped to 8 sd; float32."""
        return np.clip((image - self.mean) / self.sd, -8, 8).astype(np.float32, copy=False)

    def restore(self, contrast: np.ndarray) -> np.ndarray:
        """Turn contrast units into grey values; float32."""
        return (contrast * self.sd + self.mean).astype(np.float32)


@dataclass(frozen=True)
class GreyDefects:
    """What of a frame is no image, and how finely its grey values are graded."""

    hot_pixel_share: float                  # of the pixels inside the good region that lie beyond 6 robust sd
    dead_rows: int                          # rows at the edges without image
    dead_columns: int
    n_levels: int                           # different grey values in a sample of the pixels: few in 8-bit files


def measure_defects(image: np.ndarray, region: tuple[slice, slice]) -> GreyDefects:
    """Count outlying pixels, dead edges and grey values of an (h, w) image whose good region is known."""
    sample = image[region]
    center, spread = _measure_median(sample)
    return GreyDefects(float((np.abs(sample - center) > _OUTLIER * spread).mean()),
                       image.shape[0] - sample.shape[0], image.shape[1] - sample.shape[1],
                       len(np.unique(_thin_out(sample))))


def measure_grey_scale(image: np.ndarray, region: tuple[slice, slice] | None = None) -> GreyScale:
    """Measure mean and sd of an (h, w) image without its outlying pixels; `region` is the good one, where known."""
    sample = image[find_good_region(image) if region is None else region]
    center, spread = _measure_median(sample)
    kept = sample[np.abs(sample - center) <= _OUTLIER * spread]
    return GreyScale(float(kept.mean(dtype=np.float64)), max(float(kept.std(dtype=np.float64)), 1e-12))


def find_good_region(image: np.ndarray) -> tuple[slice, slice]:
    """Return the part of an (h, w) frame without dead or burnt rows and columns at its edges (at most a tenth each)."""
    # medians of long rows need not see every pixel
    sparse = [max(1, length // _ROW_SAMPLE) for length in image.shape]
    rows = _trim(image[:, ::sparse[1]])
    return rows, _trim(image[rows][::sparse[0]].T)


def _trim(image: np.ndarray) -> slice:
    """Return the rows left when outlying ones are taken off both ends: by mean, or by their sd."""
    limit = max(1, len(image) // 10)
    edges = np.r_[:limit, len(image) - limit:len(image)]
    usual = image[::max(1, len(image) // _ROWS)]
    is_bad = np.zeros(len(edges), dtype=bool)
    for measure in (_measure_medians, _measure_spreads):
        center, spread = _measure_median(measure(usual))
        # neighbouring rows differ little, so the spread of the whole frame's rows is a mild yardstick
        is_bad |= np.abs(measure(image[edges]) - center) > _OUTLIER * spread + 1e-3 * abs(center)
    bad = edges[is_bad]
    first = max((i + 1 for i in bad if i < limit), default=0)
    last = min((i for i in bad if i >= len(image) - limit), default=len(image))
    return slice(int(first), int(last))


def _measure_medians(rows: np.ndarray) -> np.ndarray:
    return np.median(rows, axis=1)


def _measure_spreads(rows: np.ndarray) -> np.ndarray:
    return np.log(rows.std(axis=1) + 1e-12)


def _measure_median(values: np.ndarray) -> tuple[float, float]:
    """Return the median and the robust sd (from the median deviation; the plain sd where half the values are equal)."""
    # enough to say what an outlier is: that takes no more digits
    values = _thin_out(values)
    center = float(np.median(values))
    spread = _MAD_TO_SD * float(np.median(np.abs(values - center)))
    return center, spread if spread > 0 else float(values.std())


def _thin_out(values: np.ndarray) -> np.ndarray:
    """Return (n,) evenly spread values of an array, about as many as are worth to be looked at."""
    return values.ravel()[::max(1, values.size // _SAMPLE)]
