"""Noise models. Each gives a whole noisy image in contrast units from a clean one, and draws from a given generator."""

import numpy as np
import torch

from cryogem.imaging.spectrum import spread_shells


def draw_field(power: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw a Gaussian field with a radial power spectrum.

    Parameters
    ----------
    power : (N_SHELLS,) power per pixel; continued beyond the Nyquist circle by its last shell.
    shape : (h, w), px.

    Returns
    -------
    (h, w) float32, zero mean, contrast units.
    """
    return filter_noise(spread_shells(np.sqrt(np.maximum(power, 0)), shape), shape, rng)


def filter_noise(amplitude: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw an (h, w) Gaussian field of zero mean whose (h, w // 2 + 1) spectral amplitude is given; float32."""
    spectrum = torch.fft.rfft2(torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)))
    torch.view_as_real(spectrum).mul_(torch.from_numpy(amplitude.astype(np.float32, copy=False))[..., None])
    spectrum[0, 0] = 0
    return torch.fft.irfft2(spectrum, s=shape).numpy()


def randomise_phases(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return noise (h, w) of zero mean with exactly the power spectrum of an image (h, w): the image without phases."""
    transform = np.fft.rfft2(image - image.mean())
    phases = np.fft.rfft2(rng.standard_normal(image.shape))         # of a real image, so that the noise is real too
    return np.asarray(np.fft.irfft2(np.abs(transform) * phases / np.abs(phases), s=image.shape), dtype=np.float32)


def add_gaussian_noise(clean: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise at a signal-to-noise ratio (of variances) to an (h, w) image, then give it unit sd."""
    return _standardise(clean + rng.standard_normal(clean.shape, dtype=np.float32) * _noise_sd(clean, snr))


def add_poisson_noise(clean: np.ndarray, electrons: float, rng: np.random.Generator) -> np.ndarray:
    """Count electrons: (h, w) contrast modulates a mean dose by up to a tenth; the counts are given unit sd.

    Parameters
    ----------
    electrons : mean count per pixel, e.
    """
    return _standardise(rng.poisson(_expect_electrons(clean, electrons)).astype(np.float32))


def add_poisson_gaussian_noise(
    clean: np.ndarray, electrons: float, snr: float, rng: np.random.Generator
) -> np.ndarray:
    """Count electrons as `add_poisson_noise` does, then add white detector noise; unit sd.

    Parameters
    ----------
    electrons : mean count per pixel, e.
    snr : variance of the signal in the counts over that of the detector noise.
    """
    expected = _expect_electrons(clean, electrons)
    counted = rng.poisson(expected).astype(np.float32)
    noise = rng.standard_normal(clean.shape, dtype=np.float32) * _noise_sd(expected, snr)
    return _standardise(counted + noise)


def _expect_electrons(clean: np.ndarray, electrons: float) -> np.ndarray:
    largest = float(np.abs(clean).max()) or 1.0
    return electrons * (1 + 0.1 * clean / largest)


def _noise_sd(clean: np.ndarray, snr: float) -> float:
    sd = float(clean.std())
    return sd / np.sqrt(snr) if sd > 0 else 1.0


def _standardise(image: np.ndarray) -> np.ndarray:
    return ((image - image.mean()) / image.std()).astype(np.float32)
