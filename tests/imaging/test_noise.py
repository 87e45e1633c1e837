"""Noise models: the ratio of signal and noise that was asked for, unit sd, and the same noise for the same seed."""

import numpy as np
import pytest

from cryogem.imaging.noise import (
    add_gaussian_noise,
    add_poisson_gaussian_noise,
    add_poisson_noise,
    draw_field,
    randomise_phases,
)
from cryogem.imaging.spectrum import N_SHELLS, measure_power

POWER = 1 + 3 * np.exp(-np.arange(N_SHELLS) / 30)
MODELS = {
    'gaussian': lambda clean, rng: add_gaussian_noise(clean, 0.1, rng),
    'poisson': lambda clean, rng: add_poisson_noise(clean, 30.0, rng),
    'poisson_gaussian': lambda clean, rng: add_poisson_gaussian_noise(clean, 30.0, 0.1, rng),
    'field': lambda clean, rng: clean + draw_field(POWER, clean.shape, rng),
}


@pytest.fixture(scope='module')
def clean() -> np.ndarray:
    return draw_field(np.exp(-np.arange(N_SHELLS) / 10), (384, 320), np.random.default_rng(5))


def measure_snr(noisy: np.ndarray, clean: np.ndarray) -> float:
    """Return the ratio of the variances of what follows the clean image and of what does not."""
    correlation = np.corrcoef(noisy.ravel(), clean.ravel())[0, 1]
    return correlation ** 2 / (1 - correlation ** 2)


@pytest.mark.parametrize('add_noise', MODELS.values(), ids=MODELS)
def test_equal_seeds_give_equal_noise_and_others_other_noise(clean, add_noise):
    first, again, other = (add_noise(clean, np.random.default_rng(seed)) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert first.shape == clean.shape


@pytest.mark.parametrize('name', ['gaussian', 'poisson', 'poisson_gaussian'])
def test_plain_models_have_zero_mean_and_unit_sd(clean, name):
    noisy = MODELS[name](clean, np.random.default_rng(0))

    assert noisy.mean(dtype=np.float64) == pytest.approx(0, abs=1e-4)
    assert noisy.std(dtype=np.float64) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize('snr', [0.02, 0.1, 1.0])
def test_gaussian_noise_has_the_ratio_asked_for(clean, snr):
    noisy = add_gaussian_noise(clean, snr, np.random.default_rng(0))

    assert measure_snr(noisy, clean) == pytest.approx(snr, rel=0.06)


@pytest.mark.parametrize('electrons', [20.0, 200.0])
def test_counting_electrons_has_the_noise_of_their_number(clean, electrons):
    noisy = add_poisson_noise(clean, electrons, np.random.default_rng(0))

    # contrast c / max |c| modulates the dose by a tenth: the signal varies by (0.1 N)² var(c) / max², the count by N
    expected = 0.01 * electrons * clean.var() / np.abs(clean).max() ** 2
    assert measure_snr(noisy, clean) == pytest.approx(expected, rel=0.2)


def test_counts_are_whole_numbers_of_electrons(clean):
    noisy = add_poisson_noise(clean, 20.0, np.random.default_rng(0))
    levels = np.diff(np.unique(noisy))

    np.testing.assert_allclose(levels, np.rint(levels / levels.min()) * levels.min(), rtol=1e-2)


def test_detector_noise_comes_on_top_of_counting(clean):
    counted, both = (measure_snr(model(clean, np.random.default_rng(0)), clean)
                     for model in (lambda c, r: add_poisson_noise(c, 500.0, r),
                                   lambda c, r: add_poisson_gaussian_noise(c, 500.0, 0.5, r)))

    # in units of the signal's variance the two noises add up
    assert 1 / both == pytest.approx(1 / counted + 1 / 0.5, rel=0.1)


def test_a_field_has_the_spectrum_asked_for_and_no_mean():
    rng = np.random.default_rng(0)
    noise = np.stack([draw_field(POWER, (384, 320), rng) for _ in range(6)])

    power = measure_power(noise).mean(axis=0)[8:].reshape(-1, 8).mean(axis=1)
    np.testing.assert_allclose(power, POWER[8:].reshape(-1, 8).mean(axis=1), rtol=0.06)
    np.testing.assert_allclose(noise.mean(axis=(1, 2)), 0, atol=1e-4)


def test_a_frame_without_particles_gets_noise_of_unit_sd_too():
    empty = np.zeros((64, 64), np.float32)
    for name in ('gaussian', 'poisson', 'poisson_gaussian'):
        assert MODELS[name](empty, np.random.default_rng(0)).std() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize('shape', [(64, 48), (61, 33)])
def test_an_image_without_its_phases_has_its_power_and_nothing_else_of_it(shape):
    image = np.cumsum(np.random.default_rng(1).standard_normal(shape), axis=1) + 7
    noise = np.array([randomise_phases(image, np.random.default_rng(seed)) for seed in range(100)])
    power = np.abs(np.fft.fft2(image)) ** 2

    np.testing.assert_allclose(np.abs(np.fft.fft2(noise[0])).ravel()[1:] ** 2, power.ravel()[1:], rtol=1e-3)
    assert noise[0].mean() == pytest.approx(0, abs=1e-5)
    # the mean over many is that of independent fields
    assert noise.mean(axis=0).std() == pytest.approx(image.std() / 10, rel=0.35)
    assert abs(np.corrcoef(noise[0].ravel(), image.ravel())[0, 1]) < 0.6
