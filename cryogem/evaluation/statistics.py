"""Classical statistics of micrographs, without any network, and the distances between sets of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.stats import kurtosis, skew, wasserstein_distance

from cryogem.evaluation.comparison import Distance
from cryogem.evaluation.frames import Frame
from cryogem.evaluation.spectra import compare_spectra
from cryogem.imaging.calibration import measure_frame_power
from cryogem.imaging.grey import find_good_region
from cryogem.imaging.ice import fit_ice, render_ice
from cryogem.imaging.measurement import find_background

LAGS = (1, 2, 3, 4, 6, 8)                   # px, of the autocorrelation
_WINDOW = 16                                # px of the local variance
_SAMPLE = 5000                              # grey values kept of each micrograph


@dataclass(frozen=True)
class Statistics:
    """What was measured on one micrograph, its ice taken off."""

    power: np.ndarray                       # (shells,) radial power of the whole frame
    background_power: np.ndarray            # (shells,) outside marked particles
    greys: np.ndarray                       # (n,) sample of its pixels, contrast units
    skew: float
    kurtosis: float                         # excess over that of a normal distribution
    autocorrelation: np.ndarray             # (lags,) mean over both axes
    local_log_variances: np.ndarray         # (n,) in windows of 16 px


@dataclass(frozen=True)
class Metric:
    """One row of the table: a name, and how far two sets of measured micrographs are apart."""

    key: str
    label: str
    distance: Distance


def measure_statistics(frame: Frame, diameter_px: float) -> Statistics:
    """Measure one micrograph whose particles are `diameter_px` px wide."""
    contrast = frame.contrast - render_ice(
        fit_ice(frame.contrast, np.ones(frame.contrast.shape, dtype=bool)), frame.contrast.shape)
    inner = contrast[find_good_region(contrast)]
    background = find_background(contrast.shape, frame.centers_yx, diameter_px)
    return Statistics(
        measure_frame_power(contrast), measure_frame_power(contrast, background), _sample_evenly(inner),
        float(skew(inner, axis=None)), float(kurtosis(inner, axis=None)), measure_autocorrelation(inner),
        measure_local_variances(inner))


def measure_autocorrelation(image: np.ndarray) -> np.ndarray:
    """Return the (lags,) correlation of px that lie `LAGS` apart along a row or a column of an (h, w) image."""
    centered = image - image.mean()
    products = [(np.mean(centered[:, lag:] * centered[:, :-lag]) + np.mean(centered[lag:] * centered[:-lag])) / 2
                for lag in LAGS]
    return np.array(products) / max(float(centered.var()), 1e-12)


def measure_local_variances(image: np.ndarray) -> np.ndarray:
    """Return the (n,) logarithms of the variances in windows of 16 px that lie side by side in an (h, w) image."""
    mean = uniform_filter(image.astype(np.float64), _WINDOW)
    variance = uniform_filter(image.astype(np.float64) ** 2, _WINDOW) - mean ** 2
    half = _WINDOW // 2
    return np.log(np.maximum(variance[half::_WINDOW, half::_WINDOW].ravel(), 1e-9))


def _sample_evenly(image: np.ndarray) -> np.ndarray:
    """Return some thousand px of an image, spread over it by a step that shares no factor with its rows."""
    step = max(1, image.size // _SAMPLE)
    while np.gcd(step, image.shape[1]) > 1:
        step += 1
    return image.ravel()[::step]


def _compare_power(attribute: str, band: str | None = None) -> Distance:
    def compare(generated: Sequence[Statistics], real: Sequence[Statistics]) -> float:
        spectra = [np.stack([getattr(one, attribute) for one in group]) for group in (generated, real)]
        found = compare_spectra(*spectra)
        return found.log_rms if band is None else found.bands[band]

    return compare


def _compare_samples(attribute: str) -> Distance:
    def compare(generated: Sequence[Statistics], real: Sequence[Statistics]) -> float:
        pooled = [np.concatenate([getattr(one, attribute) for one in group]) for group in (generated, real)]
        return float(wasserstein_distance(*pooled))

    return compare


def _compare_means(measure: Callable[[Statistics], np.ndarray | float]) -> Distance:
    def compare(generated: Sequence[Statistics], real: Sequence[Statistics]) -> float:
        means = [np.mean(np.stack([np.asarray(measure(one)) for one in group]), axis=0) for group in (generated, real)]
        return float(np.max(np.abs(means[0] - means[1])))

    return compare


METRICS = (
    Metric('power', 'radial power, rms of log', _compare_power('power')),
    Metric('power_low', '… lowest third of frequencies', _compare_power('power', 'low')),
    Metric('power_middle', '… middle third', _compare_power('power', 'middle')),
    Metric('power_high', '… highest third', _compare_power('power', 'high')),
    Metric('background', 'background noise spectrum, rms of log', _compare_power('background_power')),
    Metric('histogram', 'grey histogram, W1', _compare_samples('greys')),
    Metric('skew', 'skew', _compare_means(lambda one: one.skew)),
    Metric('kurtosis', 'kurtosis', _compare_means(lambda one: one.kurtosis)),
    Metric('autocorrelation', 'autocorrelation, largest difference', _compare_means(lambda one: one.autocorrelation)),
    Metric('local_variance', 'log of local variance, W1', _compare_samples('local_log_variances')),
)
