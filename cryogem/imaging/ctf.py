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
    """Evaluate a CTF on the half plane of a real transform, as `evaluate_ctf_at` does.

    Returns
    -------
    (h, w // 2 + 1) float32, zero frequency at index 0, 0.
    """
    h, w = shape
    ky = torch.fft.fftfreq(h, pixel_size, dtype=torch.float64, device=device)[:, None]
    kx = torch.fft.rfftfreq(w, pixel_size, dtype=torch.float64, device=device)[None]
    return evaluate_ctf_at(ctf, ky, kx)


def evaluate_ctf_at(ctf: Ctf, ky: torch.Tensor, kx: torch.Tensor) -> torch.Tensor:
    """Evaluate a CTF at frequencies.

    ``sin(pi λ Δf k² - pi/2 Cs λ³ k⁴ + asin(Q0) + phase) · exp(-B k²/4)``, positive at zero frequency: protein that is
    bright in the density stays bright (RELION's sign; Rohou and Grigorieff 2015, J. Struct. Biol. 192:216).

    Parameters
    ----------
    ky, kx : float64, 1/Å, of shapes that go together.

    Returns
    -------
    float32 of the shape both have together.
    """
    # in units in which the phase is a polynomial of the frequencies: one pass per term, and float32 is exact enough
    wavelength, angle = compute_wavelength(ctf.voltage), 2 * math.radians(ctf.defocus_angle)
    mean, half_difference = (ctf.defocus_u + ctf.defocus_v) / 2, (ctf.defocus_u - ctf.defocus_v) / 2
    # cos 2(θ - angle) from cos 2θ = (kx² - ky²) / k² and sin 2θ = 2 kx ky / k²: Δf k² needs no division, no arctan
    x_defocus, y_defocus = (mean + sign * half_difference * math.cos(angle) for sign in (1, -1))
    offset = math.asin(ctf.amplitude_contrast) + math.radians(ctf.phase_shift)
    k2 = (kx ** 2).float() + (ky ** 2).float()
    phase = k2 * k2
    phase *= -math.pi / 2 * ctf.spherical_aberration * 1e7 * wavelength ** 3
    phase += (math.pi * wavelength * x_defocus * kx ** 2).float()
    phase += (math.pi * wavelength * y_defocus * ky ** 2 + offset).float()
    if half_difference:
        phase.addcmul_(kx.float(), ky.float(), value=2 * math.pi * wavelength * half_difference * math.sin(angle))
    phase.sin_()
    if ctf.b_factor:
        phase *= torch.exp(k2.mul_(-ctf.b_factor / 4))
    return phase


def measure_delocalisation(ctf: Ctf, pixel_size: float) -> int:
    """Return how far (px) the CTF moves density at the Nyquist frequency: λ Δf k - Cs λ³ k³ (Å)."""
    wavelength, nyquist = compute_wavelength(ctf.voltage), 1 / (2 * pixel_size)
    defocus_part = wavelength * max(abs(ctf.defocus_u), abs(ctf.defocus_v)) * nyquist
    aberration_part = ctf.spherical_aberration * 1e7 * wavelength ** 3 * nyquist ** 3
    return math.ceil(max(defocus_part, aberration_part) / pixel_size)


def find_fft_length(least: int) -> int:
    """Return the smallest even length from `least` upwards without prime factors above 7."""
    length = least + least % 2
    while find_largest_factor(length) > 7:
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
    spectra = (_transfer(density, ctf.at_height(height), shape, pixel_size) for height, density in painting.slices)
    total = next(spectra)
    for spectrum in spectra:
        total += spectrum
    image = torch.fft.irfft2(total, s=shape)
    m = painting.margin
    return (-image[m:m + h, m:m + w]).numpy()


def _transfer(density: torch.Tensor, ctf: Ctf, shape: tuple[int, int], pixel_size: float) -> torch.Tensor:
    """Return the (h, w // 2 + 1) transform of a padded slice times its CTF."""
    spectrum = torch.fft.rfft2(density, s=shape)
    torch.view_as_real(spectrum).mul_(evaluate_ctf(ctf, shape, pixel_size)[..., None])      # complex by real, in place
    return spectrum


def find_largest_factor(number: int) -> int:
    """Return the largest prime factor of a number, or what is left of it without 2, 3, 5 and 7."""
    largest = 1
    for factor in (2, 3, 5, 7):
        while number % factor == 0:
            number //= factor
            largest = factor
    return max(number, largest)
