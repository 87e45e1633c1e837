"""A simple CTF estimation for micrographs that come without: Thon rings of the whole frame, fitted by correlation."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize

from cryogem.imaging.ctf import evaluate_ctf_at
from cryogem.records import Ctf

_WINDOW, _MOST_WINDOWS = 256, 12            # px of the periodogram, and over how many it is taken on each axis
_SMOOTHING = 12.0                           # px of the periodogram over which its background is averaged
_LOW_RESOLUTION = 35.0                      # Å: coarser than this ice and particles outweigh the rings
_NYQUIST_SHARE = 0.85                       # of the Nyquist frequency up to which rings are looked for
_SEARCH = np.arange(4000.0, 40001.0, 250.0)             # Å, defocus values tried
_TRUSTED_SCORE = 0.1                        # correlation above which a fit is believed


@dataclass(frozen=True)
class CtfFit:
    """A fitted CTF and how well it explains the rings."""

    ctf: Ctf
    score: float                            # correlation of the rings with CTF², -1 to 1

    @property
    def is_trusted(self) -> bool:
        """Whether the rings are clear enough to believe the fit."""
        return self.score > _TRUSTED_SCORE


def fit_ctf(image: np.ndarray, pixel_size: float, optics: Ctf) -> CtfFit:
    """Fit defocus and astigmatism to an (h, w) micrograph.

    The logarithm of the periodogram, less its smooth background, is correlated with the squared CTF (as CTFFIND does:
    Rohou and Grigorieff 2015, J. Struct. Biol. 192:216): first without astigmatism on a grid, then refined.

    Parameters
    ----------
    pixel_size : Å/px.
    optics : gives voltage, Cs, amplitude contrast and phase shift; its defocus is not used.
    """
    values, ky, kx = _measure_rings(image, pixel_size)
    data = values - values.mean()
    data /= np.linalg.norm(data)
    frequencies = torch.from_numpy(ky), torch.from_numpy(kx)

    def score(mean: float, half_difference: float, angle: float) -> float:
        model = evaluate_ctf_at(_with_defocus(optics, mean, half_difference, angle), *frequencies).numpy() ** 2
        model -= model.mean()
        return float(data @ model / np.linalg.norm(model))

    coarse = _search(data, ky, kx, optics)
    best, value = max((_refine(score, coarse, angle) for angle in (0.0, 60.0, 120.0)), key=lambda one: one[1])
    return CtfFit(_with_defocus(optics, *best), value)


def _measure_rings(image: np.ndarray, pixel_size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (n,) values of the log periodogram without its background, and the y and x of their frequencies, 1/Å.

    Of the half plane, where rings are looked for.
    """
    frame = np.pad(image, [(0, max(0, _WINDOW - length)) for length in image.shape], mode='reflect')
    hann = np.hanning(_WINDOW + 2)[1:-1]
    window = (hann[:, None] * hann).astype(np.float32)
    corners = [np.linspace(0, length - _WINDOW, min(_MOST_WINDOWS, 2 * (length // _WINDOW) - 1)).astype(int)
               for length in frame.shape]
    tiles = np.stack([frame[y:y + _WINDOW, x:x + _WINDOW] for y in corners[0] for x in corners[1]])
    tiles = (tiles - tiles.mean(axis=(1, 2), keepdims=True)) * window
    spectrum = torch.fft.rfft2(torch.from_numpy(tiles.astype(np.float32)))
    # the median over tiles is blind to dirt and carbon in a few of them
    half = np.log(np.median((spectrum.real ** 2 + spectrum.imag ** 2).numpy(), axis=0) + 1e-12)
    power = _complete(half)
    rings = np.fft.ifftshift(power - gaussian_filter(power, _SMOOTHING))[:, :_WINDOW // 2 + 1]
    ky, kx = np.broadcast_arrays(np.fft.fftfreq(_WINDOW, pixel_size)[:, None], np.fft.rfftfreq(_WINDOW, pixel_size))
    frequency = np.hypot(ky, kx)
    is_used = (frequency > 1 / _LOW_RESOLUTION) & (frequency < _NYQUIST_SHARE / (2 * pixel_size))
    return rings[is_used], ky[is_used], kx[is_used]


def _complete(half: np.ndarray) -> np.ndarray:
    """Return the (n, n) plane of an (n, n // 2 + 1) half plane of even values, zero frequency in the middle."""
    twins = half[-np.arange(len(half)), 1:-1][:, ::-1]
    return np.fft.fftshift(np.concatenate([half, twins], axis=1))


def _search(data: np.ndarray, ky: np.ndarray, kx: np.ndarray, optics: Ctf) -> float:
    """Return the defocus (Å) without astigmatism whose rings are most like (n,) data of zero mean.

    Frequencies that are equally far from zero are taken together, for their CTF is one.
    """
    k2, group, counts = np.unique(np.round((ky ** 2 + kx ** 2) / kx.max() ** 2, 9), return_inverse=True,
                                  return_counts=True)
    sums = np.bincount(group, data)
    radii = torch.from_numpy(np.sqrt(k2) * kx.max())
    zeros, scores = torch.zeros_like(radii), []
    for defocus in _SEARCH:
        model = evaluate_ctf_at(_with_defocus(optics, defocus, 0, 0), zeros, radii).numpy() ** 2
        model -= np.average(model, weights=counts)
        scores.append(sums @ model / np.sqrt(counts @ model ** 2))
    return float(_SEARCH[np.argmax(scores)])


def _refine(score: Callable[[float, float, float], float], defocus: float, angle: float) -> tuple[np.ndarray, float]:
    """Maximise the score from a start; return mean defocus, half the astigmatism, its angle, and the score."""
    simplex = [[defocus, 100, angle], [defocus + 300, 100, angle], [defocus, 400, angle], [defocus, 100, angle + 40]]
    found = minimize(lambda values: -score(*values), simplex[0], method='Nelder-Mead',
                     options={'initial_simplex': simplex, 'maxiter': 120, 'xatol': 5.0, 'fatol': 1e-5})
    return found.x, -float(found.fun)


def _with_defocus(optics: Ctf, mean: float, half_difference: float, angle: float) -> Ctf:
    if half_difference < 0:
        half_difference, angle = -half_difference, angle + 90
    return dataclasses.replace(optics, defocus_u=float(mean + half_difference),
                               defocus_v=float(mean - half_difference), defocus_angle=float(angle % 180))
