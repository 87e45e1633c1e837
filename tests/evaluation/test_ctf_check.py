"""The CTF fit of another program finds the defocus of closed-form rings, and none in white noise."""

import numpy as np
import pytest

from cryogem.evaluation.ctf_check import check_independently, fit_independently, has_independent_fit
from cryogem.evaluation.frames import Frame
from cryogem.records import Ctf
from tests.commands.experiment import transfer

pytestmark = pytest.mark.skipif(not has_independent_fit(), reason='torch-ctf-estimation is not installed')

OPTICS = Ctf(0.0, 0.0, 0.0, 300.0, 2.7, 0.1)            # of `transfer`
DEFOCUS = 21000.0                           # Å


def make_frame(pixel_size: float, ring: float, b_factor: float, shape=(640, 700), seed=0) -> np.ndarray:
    """Return noise of power 1 + ring · exp(-B k²/2) · CTF², and nothing else."""
    rings = transfer(shape, pixel_size, DEFOCUS + 200, DEFOCUS - 200, 50) ** 2
    y, x = np.meshgrid(*(np.fft.fftfreq(n, pixel_size) for n in shape), indexing='ij')
    amplitude = np.sqrt(1 + ring * np.exp(-b_factor * (y ** 2 + x ** 2) / 2) * rings)
    white = np.random.default_rng(seed).standard_normal(shape)
    return np.fft.ifft2(np.fft.fft2(white) * amplitude).real.astype(np.float32)


@pytest.mark.parametrize('pixel_size', [2.0, 3.0, 5.4])
@pytest.mark.parametrize(('ring', 'b_factor'), [(1.0, 0.0), (2.0, 1000.0)])
def test_flat_and_falling_rings_are_found_at_any_pixel_size(pixel_size, ring, b_factor):
    shape = round(2600 / pixel_size), round(2800 / pixel_size)
    found, _ = fit_independently(make_frame(pixel_size, ring, b_factor, shape), pixel_size, OPTICS)

    assert found == pytest.approx(DEFOCUS, rel=0.025)            # one frame of this size: chance alone is 0.8 %


def test_rings_agree_with_their_label_and_with_no_other_and_frames_without_label_are_left_out():
    frames = [Frame(str(i), make_frame(4.2, 2.0, 500.0, seed=i), np.empty((0, 2))) for i in range(3)]
    right, wrong = (Ctf(mean, mean, 0.0) for mean in (DEFOCUS, 0.95 * DEFOCUS))

    found = check_independently(frames, [right, wrong, None], 4.2)

    assert [(one.name, one.agrees) for one in found.checks] == [('0', True), ('1', False)]


def test_the_fit_of_white_noise_says_nothing():
    frames = [make_frame(3.0, 0.0, 0.0, (512, 512), seed) for seed in range(5)]
    found = np.array([fit_independently(one, 3.0, OPTICS)[0] for one in frames])

    assert found.std() > 0.25 * DEFOCUS     # anywhere in what is searched


def test_a_frame_smaller_than_the_window_of_the_fit_is_fitted_too():
    found, _ = fit_independently(make_frame(3.0, 3.0, 0.0, (210, 255)), 3.0, OPTICS)

    assert found == pytest.approx(DEFOCUS, rel=0.03)


def test_a_known_phase_shift_is_taken_into_account():
    shape = (640, 700)
    plain = transfer(shape, 3.0, DEFOCUS, DEFOCUS, 0)
    k2 = sum(axis ** 2 for axis in np.meshgrid(*(np.fft.fftfreq(n, 3.0) for n in shape), indexing='ij'))
    phase = np.pi * 0.0196875 * DEFOCUS * k2 - np.pi / 2 * 2.7e7 * 0.0196875 ** 3 * k2 ** 2 + np.arcsin(0.1)
    np.testing.assert_allclose(np.sin(phase), plain, atol=1e-9)
    white = np.random.default_rng(0).standard_normal(shape)
    power = 1 + np.sin(phase + np.pi / 3) ** 2
    frame = np.fft.ifft2(np.fft.fft2(white) * np.sqrt(power)).real.astype(np.float32)

    found, _ = fit_independently(frame, 3.0, Ctf(0.0, 0.0, 0.0, 300.0, 2.7, 0.1, phase_shift=60.0))

    assert found == pytest.approx(DEFOCUS, rel=0.015)
