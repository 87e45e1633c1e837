"""The contrast transfer function and how it acts on a specimen."""

import math

import numpy as np
import torch

from cryogem.conventions import compute_wavelength
from cryogem.records import Ctf
from cryogem.specimen.micrograph import Painting


def evaluate_ctf(
    ctf: Ctf, shape: tuple[int, ...], pixel_size: float, device: str | torch.device = 'cpu'
) -> torch.Tensor:
    """Evaluate a CTF on the half plane of a real transform.

    ``sin(pi λ Δf k² - pi/2 Cs λ³ k⁴ + asin(Q0) + phase) · exp(-B k²/4)``, positive at zero frequency: protein that is
    bright in the density stays bright (RELION's sign; Rohou and Grigorieff 2015, J. Struct. Biol. 192:216).

    Returns
    -------
    (h, w // 2 + 1) float32, zero frequency at index 0, 0.
    """
    h, w = shape
    ky = torch.fft.fftfreq(h, pixel_size, dtype=torch.float64, device=device)[:, None]
    kx = torch.fft.rfftfreq(w, pixel_size, dtype=torch.float64, device=device)[None]
    k2 = kx ** 2 + ky ** 2
    # cos 2(θ - angle) from cos 2θ = (kx² - ky²) / k² and sin 2θ = 2 kx ky / k²: Δf k² needs no division, no arctan
    angle = 2 * math.radians(ctf.defocus_angle)
    astigmatic = math.cos(angle) * (kx ** 2 - ky ** 2) + math.sin(angle) * (2 * kx * ky)
    mean, half_difference = (ctf.defocus_u + ctf.defocus_v) / 2, (ctf.defocus_u - ctf.defocus_v) / 2
    wavelength = compute_wavelength(ctf.voltage)
    phase = math.pi * wavelength * (mean * k2 + half_difference * astigmatic)
    phase -= math.pi / 2 * ctf.spherical_aberration * 1e7 * wavelength ** 3 * k2 ** 2
    phase += math.asin(ctf.amplitude_contrast) + math.radians(ctf.phase_shift)
    return (torch.sin(phase) * torch.exp(-ctf.b_factor / 4 * k2)).to(torch.float32)


def measure_delocalisation(ctf: Ctf, pixel_size: float) -> int:
    """Return how far (px) the CTF moves density at the Nyquist frequency: λ Δf k - Cs λ³ k³ (Å)."""
    wavelength, nyquist = compute_wavelength(ctf.voltage), 1 / (2 * pixel_size)
    defocus_part = wavelength * max(abs(ctf.defocus_u), abs(ctf.defocus_v)) * nyquist
    aberration_part = ctf.spherical_aberration * 1e7 * wavelength ** 3 * nyquist ** 3
    return math.ceil(max(defocus_part, aberration_part) / pixel_size)


def find_fft_length(least: int) -> int:
    """Return the smallest even length from `least` upwards without prime factors above 7."""
    length = least + least % 2
    while _largest_factor(length) > 7:
        length += 2
    return length


def image_specimen(painting: Painting, ctf: Ctf, pixel_size: float) -> np.ndarray:
    """Image a specimen, each slice with the defocus of its height; the painting's margin keeps it from wrapping round.

    Returns
    -------
    (h, w) float32 contrast with dark particles, in units of the projected density.
    """
    h, w = painting.instance_mask.shape
    if not painting.slices:
        return np.zeros((h, w), dtype=np.float32)
    padded = painting.slices[0][1].shape
    shape = (find_fft_length(padded[0]), find_fft_length(padded[1]))
    total = torch.zeros((shape[0], shape[1] // 2 + 1), dtype=torch.complex64)
    for height, density in painting.slices:
        total += torch.fft.rfft2(density, s=shape) * evaluate_ctf(ctf.at_height(height), shape, pixel_size)
    image = -torch.fft.irfft2(total, s=shape)
    m = painting.margin
    return image[m:m + h, m:m + w].numpy().copy()


def _largest_factor(number: int) -> int:
    for factor in (2, 3, 5, 7):
        while number % factor == 0:
            number //= factor
    return max(number, 1)
