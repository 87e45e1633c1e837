"""Radial power spectra on fixed shells, so that frames and windows of any shape compare."""

from functools import lru_cache

import numpy as np
import torch

N_SHELLS = 128                              # from 0 to the Nyquist frequency, shell i centred at i / N_SHELLS of it

_TILE, _TILES = 512, 3                      # px, and how many on each axis, for the spectrum of large frames


def measure_power(images: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Measure the radial power spectrum per pixel (white noise of variance v gives v on every shell).

    Parameters
    ----------
    images : (..., h, w) contrast units; each is made zero-mean under its weights.
    weights : (h, w) or (..., h, w) window, 0 where pixels do not count; default a Hann window.

    Returns
    -------
    (..., N_SHELLS) float64.
    """
    h, w = images.shape[-2:]
    if weights is None:
        weights = hann_window((h, w))
    weights = np.broadcast_to(weights, images.shape)
    totals = weights.sum(axis=(-2, -1), keepdims=True)
    centered = (images - (images * weights).sum(axis=(-2, -1), keepdims=True) / totals) * weights
    spectrum = torch.fft.rfft2(torch.from_numpy(np.ascontiguousarray(centered, dtype=np.float32)))
    energy = np.asarray((weights.astype(np.float64) ** 2).sum(axis=(-2, -1)))
    return average_shells((spectrum.real ** 2 + spectrum.imag ** 2).numpy(), (h, w)) / energy[..., None]


def measure_cross_spectra(pictures: np.ndarray, twins: np.ndarray) -> np.ndarray:
    """Measure on shells what pictures and their clean twins have in common.

    Parameters
    ----------
    pictures, twins : (..., h, w) contrast units; each is made zero-mean and weighted by a Hann window.

    Returns
    -------
    (3, ..., N_SHELLS) float64: the real part of the cross spectrum, the power of the pictures, that of the twins; per
    mode, all in the same arbitrary unit. Sums over pictures keep their meaning, ratios of single ones are noisier.
    """
    h, w = pictures.shape[-2:]
    window = hann_window((h, w))
    first, second = (torch.fft.rfft2(torch.from_numpy(np.ascontiguousarray(
        (one - one.mean(axis=(-2, -1), keepdims=True)) * window, dtype=np.float32))) for one in (pictures, twins))
    products = [(a * b.conj()).real.double().numpy() for a, b in ((first, second), (first, first), (second, second))]
    return average_shells(np.stack(products), (h, w))


def measure_tiles(image: np.ndarray) -> np.ndarray:
    """Return the (N_SHELLS,) median spectrum of a few tiles of an (h, w) frame: quick, and blind to dirt."""
    side = min(_TILE, *image.shape)
    steps = [np.linspace(0, length - side, min(_TILES, length // side)).astype(int) for length in image.shape]
    tiles = np.stack([image[y:y + side, x:x + side] for y in steps[0] for x in steps[1]])
    return np.median(measure_power(tiles), axis=0)


def hann_window(shape: tuple[int, ...]) -> np.ndarray:
    """Return an (h, w) Hann window that is nowhere zero; float32."""
    return (np.hanning(shape[0] + 2)[1:-1, None] * np.hanning(shape[1] + 2)[1:-1]).astype(np.float32)


def average_shells(half_plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Average (..., h, w // 2 + 1) values over shells; (..., N_SHELLS). Empty shells are interpolated."""
    is_inside, index, weight = _list_modes(shape[0], shape[1])
    counts = np.bincount(index, weight, N_SHELLS)
    flat = half_plane.reshape(-1, half_plane.shape[-2] * half_plane.shape[-1])[:, is_inside]
    sums = np.stack([np.bincount(index, weight * row, N_SHELLS) for row in flat])
    has_values = np.flatnonzero(counts)
    averages = sums[:, has_values] / counts[has_values]
    filled = np.stack([np.interp(np.arange(N_SHELLS), has_values, row) for row in averages])
    return filled.reshape(*half_plane.shape[:-2], N_SHELLS)


def count_modes(shape: tuple[int, int]) -> np.ndarray:
    """Return (N_SHELLS,) independent modes per shell of an (h, w) image; what a shell between modes has a share of."""
    positions = np.arange(N_SHELLS)
    area = np.pi * shape[0] * shape[1] / (2 * N_SHELLS) ** 2 * positions
    return np.maximum(area, 0.5)


@lru_cache(4)
def _list_modes(h: int, w: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where a half plane lies inside the Nyquist circle (flat indices), and the shell and weight of each mode.

    Kept for the next: in a set all frames and all windows are alike.
    """
    shells = shell_indices((h, w)).ravel()
    is_inside = np.flatnonzero(shells < N_SHELLS)
    return is_inside, shells[is_inside], _count_twins((h, w)).ravel()[is_inside]


def _count_twins(shape: tuple[int, ...]) -> np.ndarray:
    """Return (h, w // 2 + 1) how often each mode of a half plane is in the plane."""
    h, w = shape[0], shape[1]
    multiplicity = np.full((h, w // 2 + 1), 2.0)                # the other half plane holds the same values
    multiplicity[:, 0] = 1
    if w % 2 == 0:
        multiplicity[:, -1] = 1
    return multiplicity


def shell_indices(shape: tuple[int, ...]) -> np.ndarray:
    """Return (h, w // 2 + 1) shell numbers of a half plane; N_SHELLS and more lie beyond the Nyquist circle."""
    return np.rint(shell_positions(shape)).astype(int)


def shell_positions(shape: tuple[int, ...]) -> np.ndarray:
    """Return (h, w // 2 + 1) frequencies in units of shells, N_SHELLS at the Nyquist frequency."""
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    return np.hypot(ky, kx) * 2 * N_SHELLS


def spread_shells(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate (N_SHELLS,) values linearly over a half plane; the last one goes on beyond the Nyquist circle.

    Returns
    -------
    (h, w // 2 + 1) float32.
    """
    index, rest = _locate_shells(shape[0], shape[1])
    values = np.append(values, values[-1]).astype(np.float32)
    spread = np.diff(values, append=values[-1])[index]
    spread *= rest
    spread += values[index]
    return spread


@lru_cache(2)
def _locate_shells(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (h, w // 2 + 1) shells below the frequencies of a half plane and the float32 rest, kept for the next."""
    positions = np.minimum(shell_positions((h, w)), N_SHELLS)
    index = positions.astype(np.uint8)                          # N_SHELLS fits
    return index, (positions - index).astype(np.float32)
