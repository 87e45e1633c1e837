"""Distances between radial power spectra of sets of micrographs."""

from dataclasses import dataclass

import numpy as np

_FIRST_SHELL = 2                            # the shells below hold the ice of single frames


@dataclass(frozen=True)
class SpectrumDistance:
    """How far apart two sets are, and how far apart two halves of the real set are."""

    log_rms: float                          # rms over shells of the difference of mean log power, nepers
    floor: float | None                     # the same between two halves of the real set; None for a single micrograph
    bands: dict[str, float]                 # log_rms in thirds of the spectrum


def compare_spectra(generated: np.ndarray, real: np.ndarray) -> SpectrumDistance:
    """Compare (n, shells) power spectra of generated micrographs with (m, shells) of real ones."""
    difference = mean_log_power(generated) - mean_log_power(real)
    edges = np.linspace(_FIRST_SHELL, real.shape[1], 4).astype(int)
    bands = {name: _rms(difference[low:high])
             for name, low, high in zip(('low', 'middle', 'high'), edges[:-1], edges[1:], strict=True)}
    return SpectrumDistance(_rms(difference[_FIRST_SHELL:]), measure_floor(real), bands)


def measure_floor(real: np.ndarray) -> float | None:
    """Return the distance of every other real spectrum from the rest: what two sets of one experiment differ by."""
    if len(real) < 2:
        return None
    return _rms((mean_log_power(real[::2]) - mean_log_power(real[1::2]))[_FIRST_SHELL:])


def mean_log_power(spectra: np.ndarray) -> np.ndarray:
    """Return (shells,) mean of the logarithm of (n, shells) spectra."""
    return np.log(np.maximum(spectra, 1e-12)).mean(axis=0)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values ** 2)))
