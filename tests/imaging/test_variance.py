"""Noise that grows with brightness is found where it is, and not where it is not."""

import dataclasses

import numpy as np
import pytest

from cryogem.imaging.background import add_background, render_strength
from cryogem.imaging.ice import fit_noise_map, render_ice
from cryogem.imaging.variance import measure_variance_slope
from tests.imaging.synthetic import CTF, make_calibration
from tests.imaging.test_background import make_record

SHAPE = (384, 420)
NOBODY, CLEAR = np.empty((0, 2)), np.zeros(SHAPE, dtype=bool)
ICE = (np.mgrid[:SHAPE[0], :SHAPE[1]][1] / SHAPE[1] * 2 - 1).astype(np.float32)


def make_frame(slope: float, seed: int = 0) -> np.ndarray:
    calibration = dataclasses.replace(make_calibration(), variance_slope=slope)
    return add_background(ICE, make_record(CTF), calibration, np.random.default_rng(seed))


def measure(frames) -> float:
    n = len(frames)
    return measure_variance_slope(frames, [one - ICE for one in frames], [NOBODY] * n, [CLEAR] * n, 24.0, [1.0] * n)


@pytest.mark.parametrize('slope', [0.2, 0.5])
def test_a_dependence_that_was_put_in_is_found(slope):
    frames = [make_frame(slope, seed) for seed in range(3)]
    found = measure(frames)

    assert found == pytest.approx(slope, rel=0.2)


def test_noise_alike_everywhere_shows_no_dependence():
    frames = [make_frame(0.0, seed) for seed in range(3)]

    assert measure(frames) == 0


def test_noisier_dark_places_are_no_counting_noise():
    frames = [make_frame(-0.4, seed) for seed in range(3)]

    assert measure(frames) == 0


def test_a_frame_without_free_places_says_nothing():
    full = np.ones(SHAPE, dtype=bool)

    assert measure_variance_slope([make_frame(0.5)], [make_frame(0.5) - ICE], [NOBODY], [full], 24.0, [1.0]) == 0


def test_the_map_of_the_noise_is_found_and_drawn_again():
    coefficients = np.zeros((4, 4))
    coefficients[0, 1], coefficients[2, 0] = 0.2, -0.1
    one = dataclasses.replace(make_calibration().micrographs[0], noise_map=tuple(map(tuple, coefficients.tolist())))
    calibration = dataclasses.replace(make_calibration(), micrographs=(one,))
    frame = add_background(np.zeros(SHAPE, np.float32), make_record(CTF), calibration, np.random.default_rng(0))

    found = fit_noise_map(frame, ~CLEAR)

    truth = render_ice(coefficients, SHAPE)
    error = render_ice(found, SHAPE) - truth
    assert np.sqrt((error ** 2).mean()) < 0.15 * np.sqrt((truth ** 2).mean())
    assert frame.std() == pytest.approx(
        add_background(np.zeros(SHAPE, np.float32), make_record(CTF), make_calibration(),
                       np.random.default_rng(0)).std(), rel=0.02)


@pytest.mark.parametrize('flips', [(False, False), (True, True)])
def test_a_part_of_a_frame_is_as_noisy_as_its_place_in_the_frame(flips):
    coefficients = ((0.0, 0.5), (-0.3, 0.2))
    one = dataclasses.replace(make_calibration().micrographs[0], noise_map=coefficients)
    calibration = dataclasses.replace(make_calibration(), micrographs=(one,))
    record = dataclasses.replace(make_record(CTF), ice_flips=flips)
    window = (slice(40, 168), slice(250, 378))

    whole, part = render_strength(record, calibration, SHAPE), render_strength(record, calibration, SHAPE, window)

    y, x = ((np.arange(n) + 0.5) / n for n in SHAPE)
    y, x = (1 - place if flip else place for place, flip in zip((y, x), flips, strict=True))
    down, across = np.cos(np.pi * y)[:, None], np.cos(np.pi * x)
    expected = np.exp(0.5 * across - 0.3 * down + 0.2 * down * across)
    np.testing.assert_allclose(whole, expected / np.sqrt((expected ** 2).mean()), rtol=1e-3)
    np.testing.assert_allclose(part, whole[window], rtol=1e-6)


def test_the_skewness_of_the_noise_is_drawn_again():
    one = dataclasses.replace(make_calibration().micrographs[0], noise_skewness=0.3)
    calibration = dataclasses.replace(make_calibration(), micrographs=(one,))
    frame = add_background(np.zeros(SHAPE, np.float32), make_record(CTF), calibration, np.random.default_rng(0))

    deviations = (frame - frame.mean()) / frame.std()
    assert (deviations ** 3).mean() == pytest.approx(0.3, abs=0.06)
