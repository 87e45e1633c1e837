"""Real micrographs brought to the working pixel size."""

import math

import numpy as np
import torch


def choose_working_pixel_size(pixel_size: float, particle_diameter: float, largest: float = 100.0) -> float:
    """Return the real pixel size (Å/px) times the least whole binning that makes the particle at most `largest` px."""
    return pixel_size * max(1, math.ceil(particle_diameter / pixel_size / largest - 1e-6))


def scale_shape(shape: tuple[int, ...], pixel_size: float, working_pixel_size: float) -> tuple[int, int]:
    """Return the (h, w) that a frame has at the working pixel size."""
    ratio = pixel_size / working_pixel_size
    return max(2, round(shape[0] * ratio)), max(2, round(shape[1] * ratio))


def resample_image(image: np.ndarray, pixel_size: float, working_pixel_size: float) -> np.ndarray:
    """Fourier-crop (or pad) an (h, w) image to the working pixel size; grey values keep their scale.

    Returns
    -------
    (h', w') float32; the field of view is kept to within half a pixel.
    """
    shape = scale_shape(image.shape, pixel_size, working_pixel_size)
    if shape == image.shape:
        return image.astype(np.float32)
    spectrum = torch.fft.fftshift(torch.fft.fft2(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))))
    cropped = torch.zeros(shape, dtype=spectrum.dtype)
    windows = [_match_centers(old, new) for old, new in zip(image.shape, shape, strict=True)]
    cropped[windows[0][1], windows[1][1]] = spectrum[windows[0][0], windows[1][0]]
    scale = shape[0] * shape[1] / (image.shape[0] * image.shape[1])
    # pixel centres are at integers but the field of view is kept: pixel 0 of the binned image covers several old ones
    cropped = cropped * _half_pixel_ramp(image.shape, shape)
    return (torch.fft.ifft2(torch.fft.ifftshift(cropped)).real * scale).numpy().astype(np.float32)


def resample_centers(centers_yx: np.ndarray, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> np.ndarray:
    """Move (n, 2) centres along when `resample_image` turns a frame of `shape` into `new_shape`."""
    ratio = np.array(new_shape) / np.array(shape)
    return (centers_yx + 0.5) * ratio - 0.5


def _match_centers(old: int, new: int) -> tuple[slice, slice]:
    kept = min(old, new)
    first_old, first_new = old // 2 - kept // 2, new // 2 - kept // 2
    return slice(first_old, first_old + kept), slice(first_new, first_new + kept)


def _half_pixel_ramp(shape: tuple[int, ...], new_shape: tuple[int, ...]) -> torch.Tensor:
    """Return the (h', w') phases that move sampling points from old to new pixel centres."""
    ramps = []
    for old, new in zip(shape, new_shape, strict=True):
        shift = (old / new - 1) / 2                                 # old pixels
        frequencies = torch.arange(new) - new // 2
        ramps.append(torch.polar(torch.ones(new), 2 * math.pi * shift * frequencies / old))
    return ramps[0][:, None] * ramps[1]
