"""Pictures brought from the working pixel size to the finer pixels of the original micrographs.

Fourier padding leaves frequencies beyond the working Nyquist empty; there, noise is drawn with the spectrum of the
original micrographs.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch

from cryogem.imaging.ctf import find_largest_factor
from cryogem.imaging.noise import filter_noise
from cryogem.imaging.spectrum import N_SHELLS, shell_positions
from cryogem.records import Micrograph

_PAD = 32                                   # working px around the frame that keep its edges from ringing into it
_SEARCH = 128                               # px beyond the least length in which a good pair of lengths is looked for


@dataclass(frozen=True)
class FineGrid:
    """Pixels of the original micrographs over frames of working pixels; both have the same corner."""

    working_pixel_size: float               # Å/px
    pixel_size: float                       # Å/px, the smaller
    shape: tuple[int, int]                  # (h, w) of fine pixels

    @property
    def ratio(self) -> float:
        """Fine pixels per working pixel, on each axis."""
        return self.working_pixel_size / self.pixel_size

    @property
    def working_shape(self) -> tuple[int, int]:
        """The least (h, w) in working pixels that covers the frame."""
        h, w = (math.ceil(length / self.ratio - 1e-6) for length in self.shape)
        return h, w

    def refine_centers(self, centers_yx: np.ndarray) -> np.ndarray:
        """Turn (..., 2) positions in working pixels into fine pixels; pixel centres are at integers in both."""
        return (np.asarray(centers_yx) + 0.5) * self.ratio - 0.5

    def coarsen_centers(self, centers_yx: np.ndarray) -> np.ndarray:
        """Invert `refine_centers`."""
        return (np.asarray(centers_yx) + 0.5) / self.ratio - 0.5

    def refine_image(self, image: np.ndarray) -> np.ndarray:
        """Fourier-pad an (h, w) image of working pixels; (h', w') float32, grey values keep their scale.

        What lies beyond the circle of the working Nyquist frequency, in the corners of its square, is left out: signal
        ends at the circle, and finer noise goes on from there.
        """
        lengths = [choose_lengths(n + 2 * _PAD, self.ratio) for n in image.shape]
        padded = _pad_smoothly(image, lengths[0][0], lengths[1][0])
        spectrum = torch.fft.rfft2(torch.from_numpy(padded))
        ky, kx = torch.fft.fftfreq(padded.shape[0])[:, None], torch.fft.rfftfreq(padded.shape[1])
        spectrum[ky ** 2 + kx ** 2 >= 0.25] = 0
        # fine pixel 0 lies here in the padded frame, in working pixels
        start = 0.5 / self.ratio - 0.5 + _PAD
        fine = pad_spectrum(spectrum, padded.shape, (lengths[0][1], lengths[1][1]), (start, start))
        return fine[:self.shape[0], :self.shape[1]].numpy().copy()

    def refine_mask(self, mask: np.ndarray) -> np.ndarray:
        """Give each fine pixel the value of the working pixel it lies in."""
        rows, columns = (np.minimum(((np.arange(n) + 0.5) / self.ratio).astype(int), limit - 1)
                         for n, limit in zip(self.shape, mask.shape, strict=True))
        return mask[rows[:, None], columns]

    def refine_record(self, record: Micrograph) -> Micrograph:
        """Return the ground truth in fine pixels; what is in Å or degrees stays as it is."""
        particles = tuple(
            dataclasses.replace(one, center_yx=tuple(self.refine_centers(np.array(one.center_yx)).tolist()))
            for one in record.particles)
        return dataclasses.replace(record, shape=self.shape, pixel_size=self.pixel_size, particles=particles)

    def draw_fine_noise(self, power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw noise at the frequencies that working pixels cannot hold.

        Parameters
        ----------
        power : (h', w' // 2 + 1) power per fine pixel, contrast units².

        Returns
        -------
        (h', w') float32, contrast units.
        """
        is_held = shell_positions(self.shape) * self.ratio < N_SHELLS
        return filter_noise(np.where(is_held, 0, np.sqrt(np.maximum(power, 0))), self.shape, rng)

    def continue_power(self, working_power: np.ndarray) -> np.ndarray:
        """Return a spectrum (N_SHELLS,) of fine pixels that goes on flat beyond the last shells of working ones."""
        shells = np.arange(N_SHELLS) * self.ratio
        last = float(np.mean(working_power[-N_SHELLS // 16:]))
        power = np.interp(shells, np.arange(N_SHELLS), working_power, right=last)
        return power * self.ratio ** 2              # power per pixel goes with the number of pixels


def _pad_smoothly(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (height, width) float32: the image with its mirror image around it, faded into its mean at the seams."""
    margins = [(_PAD, total - n - _PAD) for total, n in zip((height, width), image.shape, strict=True)]
    mean = float(image.mean())
    padded = np.pad(image - mean, margins, mode='reflect')
    for axis, margin in enumerate(margins):
        fades = [0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length) for length in margin]
        fade = np.concatenate([fades[0], np.ones(image.shape[axis]), fades[1][::-1]])
        padded *= fade[:, None] if axis == 0 else fade
    return (padded + mean).astype(np.float32)


def choose_lengths(least: int, ratio: float) -> tuple[int, int]:
    """Return an even number of pixels from `least` upwards and the number of finer ones that cover the same length.

    Their quotient is `ratio` to a hundred thousandth or as near as can be had (a tenth of a fine pixel in the farthest
    corner), and both are products of small numbers where possible.
    """
    def cost(coarse: int) -> tuple[float, int, int]:
        fine = round(coarse * ratio)
        excess = max(1e-5, abs(fine / (coarse * ratio) - 1))
        return excess, max(find_largest_factor(coarse), find_largest_factor(fine)), coarse

    first = least + least % 2
    best = min(range(first, first + _SEARCH, 2), key=cost)
    return best, round(best * ratio)


def pad_spectrum(
    spectrum: torch.Tensor, shape: tuple[int, ...], new_shape: tuple[int, int], start_yx: tuple[float, float]
) -> torch.Tensor:
    """Return images on a finer grid from their half spectra.

    Parameters
    ----------
    spectrum : (..., h, w // 2 + 1) of images of `shape` (h, w), both even.
    new_shape : (h', w'), larger.
    start_yx : where pixel 0, 0 of the new grid lies, in old pixels.

    Returns
    -------
    (..., h', w') float32; values keep their scale.
    """
    (h, w), (new_h, new_w) = shape, new_shape
    ky, kx = torch.fft.fftfreq(h), torch.fft.rfftfreq(w)
    phase = 2 * math.pi * (ky[:, None] * start_yx[0] + kx * start_yx[1])
    moved = spectrum * torch.polar(torch.ones_like(phase), phase)
    moved[..., h // 2, :] = 0                               # the Nyquist lines have no sign, so they cannot be moved
    moved[..., -1] = 0
    fine = moved.new_zeros((*spectrum.shape[:-2], new_h, new_w // 2 + 1))
    fine[..., :h // 2, :w // 2] = moved[..., :h // 2, :w // 2]
    fine[..., new_h - h // 2 + 1:, :w // 2] = moved[..., h // 2 + 1:, :w // 2]
    return torch.fft.irfft2(fine, s=new_shape) * (new_h * new_w / (h * w))
