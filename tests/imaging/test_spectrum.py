"""Spectra in absolute units: noise of known variance and colour is measured as what it is."""

import numpy as np
import pytest

from cryogem.imaging.noise import draw_field
from cryogem.imaging.spectrum import (
    N_SHELLS,
    average_shells,
    measure_cross_spectra,
    measure_power,
    shell_indices,
    shell_positions,
    spread_shells,
)

SHELLS = np.arange(N_SHELLS)
COLOURED = 0.5 + 8 * np.exp(-SHELLS / 20) + np.where(np.abs(SHELLS - 70) < 15, 1.0, 0.0)


def average_groups(power: np.ndarray, size: int = 8) -> np.ndarray:
    """Average neighbouring shells, the first few left out, where few frequencies lie."""
    return power[..., 8:].reshape(*power.shape[:-1], -1, size).mean(axis=-1)


@pytest.mark.parametrize('shape', [(128, 128), (96, 160), (301, 256), (40, 41)])
def test_white_noise_gives_its_variance_on_all_shells(shape):
    n = 2_000_000 // np.prod(shape)
    images = np.random.default_rng(0).normal(3, 2, (n, *shape)).astype(np.float32)

    power = measure_power(images)

    assert power.shape == (n, N_SHELLS)
    np.testing.assert_allclose(average_groups(power.mean(axis=0)), 4, rtol=0.08)


@pytest.mark.parametrize('shape', [(256, 256), (240, 320)])
def test_the_colour_of_a_drawn_field_is_measured_again(shape):
    rng = np.random.default_rng(1)

    power = np.mean([measure_power(draw_field(COLOURED, shape, rng)) for _ in range(24)], axis=0)

    np.testing.assert_allclose(average_groups(power), average_groups(COLOURED), rtol=0.08)


def test_the_variance_of_a_field_is_the_mean_of_its_spectrum():
    shape = (256, 192)
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])
    expected = np.interp(np.hypot(ky, kx) * 2 * N_SHELLS, SHELLS, COLOURED).mean()

    fields = np.stack([draw_field(COLOURED, shape, np.random.default_rng(seed)) for seed in range(6)])

    assert fields.var() == pytest.approx(expected, rel=0.04)
    np.testing.assert_allclose(fields.mean(axis=(1, 2)), 0, atol=1e-5)


def test_masked_pixels_do_not_count():
    rng = np.random.default_rng(2)
    image = rng.normal(0, np.sqrt(2), (320, 320)).astype(np.float32)
    y, x = np.mgrid[:320, :320]
    weights = np.ones((320, 320), np.float32)
    for center in rng.uniform(0, 320, (25, 2)):
        weights[np.hypot(y - center[0], x - center[1]) < 15] = 0
    image[weights == 0] += 20

    np.testing.assert_allclose(average_groups(measure_power(image, weights)), 2, rtol=0.12)
    assert measure_power(image)[8:40].mean() > 10


@pytest.mark.parametrize('shape', [(24, 32), (25, 32), (32, 27)])
def test_shells_average_over_the_whole_plane(shape):
    # mostly along y, so that the columns which the half plane holds but once must not count twice
    image = np.random.default_rng(0).normal(0, 1, (shape[0], 1)) + 0.1 * np.random.default_rng(1).normal(0, 1, shape)
    power = np.abs(np.fft.fft2(image)) ** 2
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    shells = np.rint(frequency * 2 * N_SHELLS).astype(int)

    found = average_shells(power[:, :shape[1] // 2 + 1], shape)

    assert found.shape == (N_SHELLS,)
    for shell in np.unique(shells[shells < N_SHELLS]):
        assert found[shell] == pytest.approx(power[shells == shell].mean(), rel=1e-6)


def test_a_wave_lies_on_its_shell():
    x = np.arange(256)
    wave = np.sin(2 * np.pi * 40 * x / 256)[None].repeat(256, axis=0)

    assert measure_power(wave).argmax() == 40 * 2 * N_SHELLS // 256


def test_the_mean_of_an_image_does_not_count():
    image = np.random.default_rng(0).normal(0, 1, (64, 64))

    np.testing.assert_allclose(measure_power(image + 50), measure_power(image), rtol=1e-2, atol=1e-3)


def test_shells_reach_the_nyquist_frequency_along_both_axes():
    positions = shell_positions((100, 60))

    assert positions.shape == (100, 31)
    assert positions[0, 0] == 0
    assert positions[50, 0] == pytest.approx(N_SHELLS)
    assert positions[0, 30] == pytest.approx(N_SHELLS)
    np.testing.assert_array_equal(shell_indices((100, 60)), np.rint(positions))


@pytest.mark.parametrize('shape', [(64, 48), (33, 50), (600, 620)])
def test_values_of_shells_are_spread_linearly_and_go_on_beyond_the_last_one(shape):
    values = np.random.default_rng(0).uniform(size=N_SHELLS)

    expected = np.interp(shell_positions(shape), np.arange(N_SHELLS), values)
    np.testing.assert_allclose(spread_shells(values, shape), expected, atol=1e-5)


def test_cross_spectra_hold_gain_and_power_of_what_two_pictures_share():
    rng = np.random.default_rng(4)
    twins = rng.normal(5, 1, (60, 64, 80))
    pictures = 3 + 0.7 * twins + rng.normal(0, 0.5, twins.shape)

    cross, own, twin = measure_cross_spectra(pictures, twins).mean(axis=1)[:, 8:]

    assert cross.mean() / twin.mean() == pytest.approx(0.7, rel=0.02)
    assert own.mean() / twin.mean() == pytest.approx(0.7 ** 2 + 0.5 ** 2, rel=0.02)
    np.testing.assert_allclose(measure_cross_spectra(twins, twins)[0], measure_cross_spectra(twins, twins)[1])


def test_cross_spectra_of_a_stack_are_those_of_each_picture_and_vanish_for_independent_noise():
    rng = np.random.default_rng(5)
    pictures, twins = rng.normal(size=(2, 40, 64, 64))
    cross, own, twin = measure_cross_spectra(pictures, twins)

    np.testing.assert_allclose(measure_cross_spectra(pictures[3], twins[3]), np.stack([cross, own, twin])[:, 3])
    assert abs(cross.mean()) < 0.02 * np.sqrt(own.mean() * twin.mean())
