"""The parts of the noise that pass the CTF and those that do not are told apart, by their rings alone."""

import dataclasses

import numpy as np
import pytest

from cryogem.imaging.noise import filter_noise
from cryogem.imaging.noise_fit import (
    NoiseModel,
    evaluate_gain,
    evaluate_radial,
    fit_noise,
    measure_rings,
    square_ctf,
)
from cryogem.imaging.spectrum import N_SHELLS, measure_power, shell_positions
from cryogem.records import Ctf
from tests.imaging.synthetic import FLAT_POWER, NOISE, PIXEL_SIZE, RING_POWER, SHELLS

SHAPE = (512, 512)
CTFS = [Ctf(mean + 400, mean - 400, 30.0) for mean in (12000.0, 14500.0, 16000.0, 18500.0, 21000.0, 24000.0)]
LEVELS, SLOPES = (1.25, 0.8, 1.1, 1 / 1.1, 1.0, 1.0), (0.0, -0.1, 0.2, 0.1, -0.2, 0.0)     # none on average


def make_powers(ctfs, levels=LEVELS, slopes=SLOPES, seed=0):
    """Return the measured spectra of fields (four each) that were filtered by known A, B and CTF², level and slope."""
    rng = np.random.default_rng(seed)
    powers = []
    for ctf, level, slope in zip(ctfs, levels, slopes, strict=False):
        positions = shell_positions(SHAPE)
        flat, ring = (np.interp(positions, SHELLS, one) for one in (FLAT_POWER, RING_POWER))
        rings = 0.0 if ctf is None else square_ctf(ctf, SHAPE, PIXEL_SIZE)
        power = level * np.exp(slope * (positions / N_SHELLS - 0.5)) * (flat + ring * rings)
        powers.append(np.mean([measure_power(filter_noise(np.sqrt(power), SHAPE, rng)) for _ in range(4)], axis=0))
    return np.stack(powers)


def average_groups(power, size: int = 8) -> np.ndarray:
    return np.asarray(power)[..., 8:].reshape(-1, size).mean(axis=-1)


def test_what_passes_the_ctf_and_what_does_not_are_found():
    model, _ = fit_noise(make_powers(CTFS), CTFS, PIXEL_SIZE)

    np.testing.assert_allclose(average_groups(model.flat_power), average_groups(FLAT_POWER), rtol=0.05)
    # five percent of the whole: near zero frequency CTF² lets little of B through
    error = average_groups(model.ring_power) - average_groups(RING_POWER)
    assert np.abs(error / average_groups(FLAT_POWER + RING_POWER)).max() < 0.05


def test_an_empty_zero_frequency_changes_nothing_beyond_it():
    powers = make_powers(CTFS)
    emptied = powers.copy()
    emptied[:, 0] = 1e-12                   # what is left of frames whose mean was taken off

    model, variations = fit_noise(powers, CTFS, PIXEL_SIZE)
    other, varied = fit_noise(emptied, CTFS, PIXEL_SIZE)

    np.testing.assert_allclose(other.flat_power[1:], model.flat_power[1:], rtol=1e-6)
    np.testing.assert_allclose(other.ring_power[1:], model.ring_power[1:], rtol=1e-6)
    assert varied == variations


def test_level_and_slope_of_each_micrograph_are_found():
    _, variations = fit_noise(make_powers(CTFS), CTFS, PIXEL_SIZE)

    found = np.log([one.level for one in variations])
    np.testing.assert_allclose(found, np.log(LEVELS), atol=0.04)
    np.testing.assert_allclose([one.slope for one in variations], SLOPES, atol=0.08)
    assert found.mean() == pytest.approx(0, abs=1e-9)
    assert max(one.misfit for one in variations) < 0.06


def test_the_spectrum_of_each_micrograph_is_fitted_within_five_percent():
    powers = make_powers(CTFS)
    model, variations = fit_noise(powers, CTFS, PIXEL_SIZE)

    for power, one, rings in zip(powers, variations, measure_rings(CTFS, PIXEL_SIZE), strict=True):
        fitted = evaluate_gain(one.level, one.slope) * evaluate_radial(model, rings)
        np.testing.assert_allclose(average_groups(fitted), average_groups(power), rtol=0.05)


def test_a_single_micrograph_shows_its_rings_too():
    model, _ = fit_noise(make_powers(CTFS[3:4]), CTFS[3:4], PIXEL_SIZE)
    other = measure_rings(CTFS[:1], PIXEL_SIZE)[0]

    # the spectrum that another defocus would have had
    expected = evaluate_gain(LEVELS[0], SLOPES[0]) * evaluate_radial(NOISE, other)
    np.testing.assert_allclose(average_groups(evaluate_radial(model, other)), average_groups(expected), rtol=0.12)


def test_without_ctfs_all_noise_is_flat():
    model, _ = fit_noise(make_powers([None] * 2), [None] * 2, PIXEL_SIZE)

    assert not any(model.ring_power)
    expected = evaluate_gain(1.0, -0.05) * FLAT_POWER
    np.testing.assert_allclose(average_groups(model.flat_power), average_groups(expected), rtol=0.05)


def test_wrong_ctfs_find_no_rings():
    wrong = [dataclasses.replace(one, defocus_u=33000 - one.defocus_u, defocus_v=33000 - one.defocus_v)
             for one in CTFS[:2]]
    model, _ = fit_noise(make_powers(CTFS[:2]), wrong, PIXEL_SIZE)

    ring = average_groups(model.ring_power) / average_groups(RING_POWER)
    assert np.median(ring[4:8]) < 0.5


def test_a_spectrum_of_another_kind_has_a_large_misfit():
    powers = make_powers(CTFS)
    powers[2] *= 1 + 3 * np.exp(-(SHELLS - 50) ** 2 / 200)

    _, variations = fit_noise(powers, CTFS, PIXEL_SIZE)

    misfits = [one.misfit for one in variations]
    assert int(np.argmax(misfits)) == 2
    assert misfits[2] > 3 * np.median(misfits)


def test_the_gain_of_a_micrograph_goes_on_beyond_the_nyquist_frequency():
    positions = np.array([0.0, N_SHELLS / 2, N_SHELLS, 1.4 * N_SHELLS])

    np.testing.assert_allclose(evaluate_gain(2.0, 0.5, positions),
                               2 * np.exp([-0.25, 0, 0.25, 0.25]))


def test_noise_models_are_positive():
    model, _ = fit_noise(make_powers(CTFS[:1]), CTFS[:1], PIXEL_SIZE)

    assert isinstance(model, NoiseModel)
    assert min(*model.flat_power, *model.ring_power) >= 0
