"""What is left of the signal, and controls that differ from their set in nothing but the noise."""

import dataclasses

import numpy as np
import pytest

from cryogem.evaluation.controls import fit_white_noise, make_controls
from cryogem.evaluation.frames import Frame, build_frame
from cryogem.evaluation.signal import correlate_shells, measure_signal, sum_spectra
from cryogem.imaging.noise import add_gaussian_noise
from cryogem.imaging.spectrum import N_SHELLS
from tests.evaluation.sets import make_set
from tests.imaging.synthetic import make_calibration

MIDDLE = slice(5, N_SHELLS // 2)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make_frames(rng, amplitude, noise, n=4, unit=1.0):
    """Return white clean twins of unit sd, and `amplitude` times them under white noise of sd `noise`."""
    frames = []
    for i in range(n):
        clean = rng.standard_normal((200, 220)).astype(np.float32)
        noisy = amplitude * clean + noise * rng.standard_normal(clean.shape).astype(np.float32)
        frames.append(Frame(f'f{i}', noisy / unit, np.empty((0, 2)), clean=clean, unit=unit))
    return frames


@pytest.mark.parametrize(('amplitude', 'noise'), [(1.0, 0.0), (1.0, 2.0), (0.5, 1.0), (-1.0, 1.0)])
def test_correlation_and_transfer_are_those_of_the_closed_form(amplitude, noise, rng):
    found = measure_signal(make_frames(rng, amplitude, noise))

    assert found.correlation[MIDDLE].mean() == pytest.approx(amplitude / np.hypot(amplitude, noise), abs=0.02)
    assert found.mean_correlation == pytest.approx(amplitude / np.hypot(amplitude, noise), abs=0.02)
    assert found.mean_transfer == pytest.approx(amplitude, abs=0.01 + 0.03 * noise)     # of 10,000 modes
    assert found.frame_correlations.shape == (4,)


def test_bands_weigh_shells_by_their_number_of_modes_and_single_shells_are_those_of_the_frames(rng):
    frames = make_frames(rng, 1.0, 1.0)
    spectra = sum_spectra(np.stack([one.contrast for one in frames]), np.stack([one.clean for one in frames]))
    bands, shells = correlate_shells(spectra, 8), correlate_shells(spectra)

    assert bands.shape == (8,)
    assert bands == pytest.approx(np.full(8, 0.5 ** 0.5), abs=0.05)
    np.testing.assert_allclose(shells[1:], measure_signal(frames).correlation[1:], rtol=1e-6)


def test_noise_alone_holds_nothing_of_the_signal(rng):
    found = measure_signal(make_frames(rng, 0.0, 1.0))

    assert abs(found.mean_correlation) < 0.02
    assert abs(found.mean_transfer) < 0.02


def test_the_amplitude_is_that_in_the_units_of_the_record(rng):
    assert measure_signal(make_frames(rng, 1.0, 1.0, unit=0.5)).mean_transfer == pytest.approx(1, abs=0.02)


def test_without_twins_there_is_no_signal_to_measure():
    assert measure_signal([Frame('real', np.zeros((50, 50), np.float32), np.empty((0, 2)))]) is None


def test_a_frame_has_the_units_of_its_own_and_says_those_of_its_record(rng):
    record = make_set('same', 0, 1)[0].record
    record = dataclasses.replace(record, grey_mean=100.0, grey_sd=-10.0)
    grey = 100 - 20 * rng.standard_normal((300, 300))
    frame = build_frame('one', grey, np.empty((0, 2)), -1, record)

    assert frame.contrast.std() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(frame.contrast.ravel(), grey.ravel())[0, 1] == pytest.approx(-1, abs=0.01)
    assert frame.unit == pytest.approx(2, rel=0.02)


def quiet(image, record, rng):
    return image


def test_a_control_without_noise_is_the_clean_twin_with_its_ice():
    frames = make_set('same', 1, 2)
    calibration = make_calibration()
    controls = make_controls(frames, calibration, quiet, 0, 1)

    assert [one.name for one in controls] == [one.name for one in frames]
    for control, frame in zip(controls, frames, strict=True):
        assert control.clean is frame.clean
        assert control.record is frame.record
        np.testing.assert_array_equal(control.centers_yx, frame.centers_yx)
    assert measure_signal(controls).correlation[5:10].min() > 0.9           # above the ice


def test_each_seed_and_each_micrograph_has_noise_of_its_own_and_the_same_seed_the_same():
    frames, calibration = make_set('same', 1, 2), make_calibration()

    def white(image, record, rng):
        return image + rng.standard_normal(image.shape)

    def noise(seed):
        return [one.contrast * one.unit - frame.clean for one, frame in zip(
            make_controls(frames, calibration, white, seed, 1), frames, strict=True)]

    first, again, other = noise(3), noise(3), noise(4)
    np.testing.assert_array_equal(first[0], again[0])
    assert abs(np.corrcoef(first[0].ravel(), other[0].ravel())[0, 1]) < 0.2
    assert abs(np.corrcoef(first[0].ravel(), first[1].ravel())[0, 1]) < 0.2


@pytest.mark.parametrize('sd', [0.3, 0.6])
def test_fitted_white_noise_leaves_the_signal_its_share_of_the_unit_variance(sd, rng):
    clean = sd * rng.standard_normal((200, 200)).astype(np.float32)
    noise = fit_white_noise(lambda snr: lambda image, record, rng: add_gaussian_noise(image, snr, rng))
    noisy = noise(clean, None, rng)

    assert noisy.std() == pytest.approx(1, abs=0.01)
    assert (noisy * clean).mean() / clean.var() == pytest.approx(1, abs=0.03)
