"""How much of the clean signal a noisy micrograph still holds, frequency by frequency."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryogem.evaluation.frames import Frame
from cryogem.imaging.spectrum import N_SHELLS, measure_cross_spectra

_JUDGED = slice(3, N_SHELLS // 2)           # shells with signal: above the ice, below where noise is all


@dataclass(frozen=True)
class Signal:
    """A set of micrographs against their clean twins."""

    correlation: np.ndarray                 # (shells,) of micrograph and twin
    transfer: np.ndarray                    # (shells,) amplitude of the twin's signal found in the micrograph
    frame_correlations: np.ndarray          # (n,) mean over the judged shells, of each micrograph
    mean_transfer: float                    # amplitude over all judged shells together; 1 keeps it

    @property
    def mean_correlation(self) -> float:
        """Correlation over the shells that hold signal."""
        return float(self.correlation[_JUDGED].mean())


def measure_signal(frames: Sequence[Frame]) -> Signal | None:
    """Compare micrographs with their clean twins; None where there are no twins."""
    spectra = [measure_cross_spectra(one.contrast * one.unit, one.clean) for one in frames if one.clean is not None]
    if not spectra:
        return None
    cross, noisy, clean = np.stack(spectra, axis=1)
    own = cross / np.sqrt(np.maximum(noisy * clean, 1e-30))
    total = cross.sum(axis=0), noisy.sum(axis=0), clean.sum(axis=0)
    modes = np.arange(N_SHELLS)             # of a shell, in proportion to its radius
    amplitude = (modes * total[0])[_JUDGED].sum() / max(float((modes * total[2])[_JUDGED].sum()), 1e-30)
    return Signal(total[0] / np.sqrt(np.maximum(total[1] * total[2], 1e-30)), total[0] / np.maximum(total[2], 1e-30),
                  own[:, _JUDGED].mean(axis=1), float(amplitude))


def sum_spectra(pictures: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return (3, shells): cross spectrum, power and power of the twins, summed over (n, h, w) pictures and twins."""
    return np.sum([measure_cross_spectra(one, twin) for one, twin in zip(pictures, clean, strict=True)], axis=0)


def correlate_shells(spectra: np.ndarray, n_bands: int = N_SHELLS) -> np.ndarray:
    """Correlate pictures with their clean twins from their (3, shells) spectra, shell by shell or in wider bands.

    Returns
    -------
    (n_bands,) from the lowest frequencies (without the mean) to the Nyquist frequency.
    """
    # the number of Fourier terms on a shell grows with its radius
    bands = np.add.reduceat(spectra * np.arange(N_SHELLS), np.arange(0, N_SHELLS, N_SHELLS // n_bands), axis=1)
    cross, noisy, clean = bands
    return cross / np.sqrt(np.maximum(noisy * clean, 1e-30))
