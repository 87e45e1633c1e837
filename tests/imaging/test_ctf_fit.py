"""Defocus is found again in noise that passed a known CTF, and not in noise that passed none."""

import numpy as np
import pytest

from cryogem.imaging import ctf_fit
from cryogem.imaging.ctf import evaluate_ctf
from cryogem.imaging.ctf_fit import fit_ctf
from cryogem.records import Ctf

PIXEL_SIZE = 2.5
OPTICS = Ctf(0.0, 0.0, 0.0, 300.0, 2.7, 0.1)


def make_micrograph(ctf: Ctf, shape: tuple[int, int] = (512, 640), seed: int = 0) -> np.ndarray:
    """Return white detector noise and as much specimen noise, seen through the CTF with its envelope."""
    rng = np.random.default_rng(seed)
    specimen = np.fft.rfft2(rng.normal(0, 1, shape)) * evaluate_ctf(ctf, shape, PIXEL_SIZE).numpy()
    return (np.fft.irfft2(specimen, s=shape) + rng.normal(0, 1, shape)).astype(np.float32)


@pytest.mark.parametrize('ctf', [
    Ctf(9000.0, 8900.0, 20.0, b_factor=50.0), Ctf(16000.0, 15200.0, 40.0, b_factor=50.0),
    Ctf(26000.0, 25000.0, 120.0, b_factor=50.0)])
def test_known_defocus_is_found_within_two_percent(ctf):
    fit = fit_ctf(make_micrograph(ctf), PIXEL_SIZE, OPTICS)

    assert fit.is_trusted
    found, true = ((one.defocus_u + one.defocus_v) / 2 for one in (fit.ctf, ctf))
    assert found == pytest.approx(true, rel=0.02)
    assert fit.ctf.defocus_u >= fit.ctf.defocus_v


def test_strong_astigmatism_is_found_with_its_direction():
    ctf = Ctf(17000.0, 15000.0, 35.0, b_factor=50.0)

    found = fit_ctf(make_micrograph(ctf), PIXEL_SIZE, OPTICS).ctf

    assert found.defocus_u == pytest.approx(ctf.defocus_u, rel=0.02)
    assert found.defocus_v == pytest.approx(ctf.defocus_v, rel=0.02)
    assert found.defocus_angle == pytest.approx(35, abs=6)


def test_voltage_cs_and_amplitude_contrast_are_kept():
    optics = Ctf(0.0, 0.0, 0.0, 200.0, 1.4, 0.07, phase_shift=10.0)

    found = fit_ctf(make_micrograph(Ctf(15000.0, 14800.0, 0.0, 200.0, 1.4, 0.07, 10.0)), PIXEL_SIZE, optics).ctf

    assert (found.voltage, found.spherical_aberration, found.amplitude_contrast, found.phase_shift) == (
        200, 1.4, 0.07, 10)
    assert (found.defocus_u + found.defocus_v) / 2 == pytest.approx(14900, rel=0.02)


def test_a_negative_astigmatism_is_one_turned_by_90_degrees():
    found = ctf_fit._with_defocus(OPTICS, 15000.0, -500.0, 130.0)

    assert (found.defocus_u, found.defocus_v, found.defocus_angle) == (15500, 14500, 40)


@pytest.mark.parametrize('seed', [0, 1])
def test_white_noise_is_not_trusted(seed):
    image = np.random.default_rng(seed).normal(0, 1, (512, 640)).astype(np.float32)

    fit = fit_ctf(image, PIXEL_SIZE, OPTICS)

    assert not fit.is_trusted
    assert fit.score < 0.1


def test_a_frame_smaller_than_the_window_is_fitted_too():
    fit = fit_ctf(make_micrograph(Ctf(16000.0, 15900.0, 0.0), (200, 230)), PIXEL_SIZE, OPTICS)

    assert np.isfinite(fit.score)
    assert 3000 < fit.ctf.defocus_v < 45000
