"""The distance of power spectra: zero for equal sets, grows with the difference, and its floor."""

import numpy as np
import pytest

from cryogem.evaluation.spectra import compare_spectra, mean_log_power, measure_floor

SHELLS = np.exp(-np.arange(64) / 20) + 0.1


@pytest.fixture
def real():
    return SHELLS * np.random.default_rng(0).lognormal(0, 0.1, (8, 64))


def test_equal_sets_have_no_distance(real):
    distance = compare_spectra(real, real)

    assert distance.log_rms == 0
    assert set(distance.bands.values()) == {0.0}


@pytest.mark.parametrize('factor', [0.5, 1.1, 3.0])
def test_noise_of_another_power_is_as_far_as_the_logarithm_of_the_factor(real, factor):
    assert compare_spectra(factor * real, real).log_rms == pytest.approx(abs(np.log(factor)))


def test_the_distance_grows_with_the_difference(real):
    distances = [compare_spectra(real * factor, real).log_rms for factor in (1.0, 1.2, 1.5, 2.0)]

    assert distances == sorted(distances)
    assert distances[0] < distances[1] / 10


def test_each_band_sees_its_own_third(real):
    changed = real.copy()
    changed[:, -15:] *= 2
    bands = compare_spectra(changed, real).bands

    assert (bands['low'], bands['middle']) == (0, 0)
    assert bands['high'] > 0.5


def test_the_first_shells_do_not_count_because_they_hold_the_ice(real):
    changed = real.copy()
    changed[:, :2] *= 1000

    assert compare_spectra(changed, real).log_rms == 0


def test_the_floor_is_the_distance_of_two_halves_of_the_real_set(real):
    assert compare_spectra(real, real).floor == measure_floor(real)
    assert measure_floor(real) == pytest.approx(compare_spectra(real[::2], real[1::2]).log_rms)
    # two halves of four, each shell with a deviation of 0.1: 0.1 · sqrt(1/4 + 1/4)
    assert measure_floor(real) == pytest.approx(0.0707, rel=0.25)


def test_more_micrographs_have_a_lower_floor():
    spectra = SHELLS * np.random.default_rng(1).lognormal(0, 0.1, (64, 64))

    assert measure_floor(spectra) < 0.6 * measure_floor(spectra[:8])


def test_a_single_micrograph_has_no_floor(real):
    assert compare_spectra(real, real[:1]).floor is None


def test_sets_of_different_sizes_are_compared_by_their_means(real):
    assert compare_spectra(np.concatenate([real, real]), real).log_rms == pytest.approx(0, abs=1e-12)


def test_an_empty_shell_gives_a_finite_number():
    assert np.isfinite(mean_log_power(np.zeros((2, 8)))).all()
