"""How much of the signal is still in a picture: its correlation with the clean twin, band by band."""

import numpy as np

from cryogem.imaging.spectrum import N_SHELLS, average_shells

N_BANDS = 8


def measure_preservation(pictures: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Correlate (n, h, w) pictures with their (n, h, w) clean twins in bands of spatial frequency.

    Returns
    -------
    (N_BANDS,) correlations over all pictures, from the lowest frequencies (without the mean) to the Nyquist frequency.
    """
    h, w = pictures.shape[-2:]
    window = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[1:-1]
    first, second = (np.fft.rfft2((one - one.mean(axis=(-2, -1), keepdims=True)) * window) for one in (pictures, clean))
    powers = [average_shells(one.mean(axis=0), (h, w)) for one in (
        (first * second.conj()).real, np.abs(first) ** 2, np.abs(second) ** 2)]
    # the number of Fourier terms on a shell grows with its radius
    radii = np.arange(N_SHELLS)
    cross, own, twin = (np.add.reduceat((one * radii), np.arange(0, N_SHELLS, N_SHELLS // N_BANDS)) for one in powers)
    return cross / np.sqrt(np.maximum(own * twin, 1e-30))
