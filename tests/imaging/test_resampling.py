"""Micrographs at the working pixel size: waves keep their phase, blobs their place, frames their field of view."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryogem.imaging.resampling import choose_working_pixel_size, resample_centers, resample_image, scale_shape
from tests.phantom import relative_error


def make_wave(shape: tuple[int, int], turns: tuple[int, int]) -> np.ndarray:
    """Return a wave over the field of view, whose pixels reach half a pixel beyond their centres."""
    y, x = ((np.arange(n) + 0.5) / n for n in shape)
    return (5 + np.cos(2 * np.pi * (turns[0] * y[:, None] + turns[1] * x) + 0.3)).astype(np.float32)


@pytest.mark.parametrize(('shape', 'new_shape', 'working'), [
    ((300, 240), (200, 160), 3.0), ((240, 300), (160, 200), 3.0), ((256, 256), (64, 64), 8.0),
    ((301, 203), (150, 102), 4.0), ((120, 90), (160, 120), 1.5), ((75, 99), (150, 198), 1.0)])
@pytest.mark.parametrize('turns', [(0, 0), (3, 5), (-7, 2), (20, -11)])
def test_a_wave_keeps_frequency_phase_amplitude_and_mean(shape, new_shape, working, turns):
    found = resample_image(make_wave(shape, turns), 2.0, working)

    assert found.shape == new_shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, make_wave(new_shape, turns), atol=1e-4)


def test_waves_beyond_the_new_nyquist_frequency_vanish():
    found = resample_image(make_wave((256, 256), (0, 50)), 1.0, 4.0)

    np.testing.assert_allclose(found, 5, atol=1e-4)


@pytest.mark.parametrize(('shape', 'working'), [((300, 240), 3.0), ((301, 203), 4.0), ((200, 300), 5.12),
                                                ((120, 90), 1.5)])
def test_centres_move_along_with_the_features(shape, working):
    center = np.array([[61.3, 40.8]])
    y, x = np.mgrid[:shape[0], :shape[1]]
    blob = np.exp(-((y - center[0, 0]) ** 2 + (x - center[0, 1]) ** 2) / (2 * 8.0 ** 2))

    found = np.maximum(resample_image(blob, 2.0, working), 0)

    (expected,) = resample_centers(center, shape, found.shape)
    y, x = np.mgrid[:found.shape[0], :found.shape[1]]
    centroid = [(y * found).sum() / found.sum(), (x * found).sum() / found.sum()]
    np.testing.assert_allclose(centroid, expected, atol=0.02)


def test_there_and_back_is_the_identity_for_a_smooth_image():
    wave = make_wave((240, 180), (5, -3))

    back = resample_image(resample_image(wave, 2.0, 4.0), 4.0, 2.0)

    assert relative_error(back, wave) < 1e-5
    centers = np.array([[10.3, 20.7]])
    np.testing.assert_allclose(
        resample_centers(resample_centers(centers, (240, 180), (120, 90)), (120, 90), (240, 180)), centers)


def test_noise_keeps_its_power_per_frequency():
    noise = np.random.default_rng(0).normal(0, 1, (512, 512)).astype(np.float32)

    binned = resample_image(noise, 1.0, 2.0)

    assert binned.std() == pytest.approx(0.5, rel=0.01)             # a quarter of the frequencies is left


def test_the_same_pixel_size_changes_nothing():
    image = np.random.default_rng(0).normal(0, 1, (31, 44))

    np.testing.assert_array_equal(resample_image(image, 1.3, 1.3), image.astype(np.float32))
    assert scale_shape((31, 44), 1.3, 1.3) == (31, 44)


@given(st.floats(0.4, 3), st.floats(30, 1000))
def test_the_least_whole_binning_makes_the_particle_small_enough(pixel_size, diameter):
    working = choose_working_pixel_size(pixel_size, diameter)
    binning = working / pixel_size

    assert binning == pytest.approx(round(binning))
    assert binning >= 1
    assert diameter / working <= 100.001
    assert round(binning) == 1 or diameter / (working - pixel_size) > 99.999
