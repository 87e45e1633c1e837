"""Textures: smooth random fields from which a generator makes what changes from place to place."""

import numpy as np
import torch
from torch.nn import functional

SCALES = (6, 32, 160)                       # px, distance over which each texture forgets itself
_PER_SCALE = 4                              # px of the grid a texture is drawn on, per scale
_BORDER = 2                                 # scales beyond the frame: a drawn field joins its own opposite edge


def draw_textures(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw one stationary Gaussian field of each scale.

    Returns
    -------
    (len(SCALES), h, w) float32, zero mean and unit variance, correlation ``exp(-d² / (2 scale²))``.
    """
    return np.stack([_draw_texture(shape, scale, rng) for scale in SCALES])


def _draw_texture(shape: tuple[int, int], scale: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a field on a coarse grid and interpolate it: it holds nothing finer."""
    step = max(1, scale // _PER_SCALE)
    own_scale = scale / step
    border = int(np.ceil(_BORDER * own_scale)) + 3
    grid = tuple(-(-length // step) + border for length in shape)
    ky, kx = np.fft.fftfreq(grid[0])[:, None], np.fft.rfftfreq(grid[1])
    amplitude = np.exp(-(np.pi * own_scale) ** 2 * (ky ** 2 + kx ** 2))         # of exp(-d² / (2 scale²)), its root
    full = np.exp(-2 * (np.pi * own_scale) ** 2 * (ky ** 2 + np.fft.fftfreq(grid[1]) ** 2))
    white = torch.from_numpy(rng.standard_normal(grid, dtype=np.float32))
    spectrum = torch.fft.rfft2(white) * torch.from_numpy((amplitude / np.sqrt(full.mean())).astype(np.float32))
    field = torch.fft.irfft2(spectrum, s=grid)[None, None]
    if step > 1:
        field = functional.interpolate(field, scale_factor=step, mode='bicubic', align_corners=False)
    low = step                              # the interpolation has not all neighbours at the very edge
    return field[0, 0, low:low + shape[0], low:low + shape[1]].numpy()
