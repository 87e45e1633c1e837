"""Picks tell contrast, size, density and neighbours of the particles, and whether they sit on them."""

import numpy as np
import pytest

from cryogem.errors import InputError
from cryogem.imaging import picks as pk
from cryogem.specimen.placement import measure_nearest_distances, place_particles
from tests.messages import is_one_sentence


def make_rings(sign: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return noisy frames of hollow particles: a rim of 10 px radius, the middle overshooting the other way."""
    rng = np.random.default_rng(0)
    image, centers = rng.normal(0, 1, (200, 200)), []
    y, x = np.mgrid[:200, :200]
    for center in np.stack(np.meshgrid([30, 80, 130, 170], [30, 80, 130, 170]), axis=-1).reshape(-1, 2):
        radius = np.hypot(y - center[0], x - center[1])
        image += sign * (1.5 * np.exp(-(radius - 8) ** 2 / 8) - 0.8 * np.exp(-radius ** 2 / 18))
        centers.append(center)
    return [image.astype(np.float32)], [np.array(centers, float)]


@pytest.mark.parametrize(('sign', 'expected'), [(1, True), (-1, False)])
def test_the_contrast_of_a_hollow_particle_is_that_of_its_rim(sign, expected):
    assert bool(pk.has_bright_particles(*make_rings(sign), 24.0)) == expected


def test_noise_is_not_taken_for_bright_particles():
    rng = np.random.default_rng(0)
    frames = [rng.normal(0, 1, (200, 200)).astype(np.float32) for _ in range(5)]

    assert not any(pk.has_bright_particles([one], [rng.uniform(20, 180, (30, 2))], 20.0) for one in frames)
    assert not pk.has_bright_particles(frames[:1], [np.empty((0, 2))], 20.0)


def test_the_diameter_is_estimated_from_touching_neighbours():
    grid = np.stack(np.meshgrid(np.arange(0, 100, 20.0), np.arange(0, 100, 20.0)), axis=-1).reshape(-1, 2)

    assert pk.estimate_diameter([np.zeros((100, 100))], [grid]) == 20


def test_too_few_picks_cannot_tell_the_diameter():
    with pytest.raises(InputError, match=r'particle_diameter.* 3 picks') as caught:
        pk.estimate_diameter([np.zeros((100, 100))], [np.array([[1.0, 2], [30, 40], [70, 10]])])
    assert is_one_sentence(caught.value)


def test_placed_particles_have_the_neighbours_of_the_picks():
    shape, rng = (400, 400), np.random.default_rng(3)
    picks = [place_particles(shape, 60, [18.0], 0, rng, clustering=0.9) for _ in range(4)]

    distances, clustering = pk.measure_crowding(picks, shape, (60.0, 3.0))

    found = np.concatenate([measure_nearest_distances(place_particles(
        shape, 60, distances, 0, np.random.default_rng(100 + seed), clustering)) for seed in range(4)])
    wanted = np.concatenate([measure_nearest_distances(one) for one in picks])
    scattered = measure_nearest_distances(place_particles(shape, 60, [18.0], 0, rng))
    assert np.median(found) == pytest.approx(np.median(wanted), rel=0.1)
    assert np.median(scattered) > 1.2 * np.median(wanted)
    assert clustering >= 0.6


def test_one_pair_too_close_does_not_let_the_others_overlap():
    """Crowded frames prefer whatever may lie closer than the rest."""
    shape, rng = (300, 310), np.random.default_rng(1)
    picks = [place_particles(shape, 41, [34.0, 36, 38], 0, rng, clustering=0.3) for _ in range(6)]
    picks[0] = np.concatenate([picks[0], picks[0][:1] + [0, 17]])
    picks[1] = np.concatenate([picks[1], [[-60.0, -60]]])           # and one far from all

    distances, clustering = pk.measure_crowding(picks, shape, (41.0, 3.0))

    placed = np.concatenate([measure_nearest_distances(place_particles(
        shape, 41, distances, 0, np.random.default_rng(seed), clustering)) for seed in range(6)])
    assert (placed < 30).mean() < 0.02


def test_few_picks_say_nothing_of_neighbours():
    assert pk.measure_crowding([np.zeros((5, 2))], (100, 100), (5.0, 1.0)) is None
    assert pk.measure_crowding([np.zeros((50, 2))], (100, 100), None) is None


def make_discs(n: int = 6, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return noisy frames of dark discs of 10 px radius, a sixth of the noise's sd deep, and their centres."""
    rng = np.random.default_rng(seed)
    frames, centers = [], []
    y, x = np.mgrid[:300, :300]
    for _ in range(n):
        placed = place_particles((300, 300), 40, [24.0], 0, rng)
        image = rng.normal(0, 1, (300, 300))
        for center in placed:
            image -= 0.5 * (np.hypot(y - center[0], x - center[1]) < 10)
        frames.append(image.astype(np.float32))
        centers.append(placed)
    return frames, centers


def test_picks_on_particles_are_recognised():
    check = pk.check_picks(*make_discs(), 20.0)

    assert check.is_on_particles
    assert not check.is_shifted
    assert np.hypot(*check.shift_yx) < 0.5
    profile = np.array(check.profile)
    assert profile[:8].mean() == pytest.approx(-0.5, abs=0.1)
    assert np.abs(profile[13:]).max() < 0.1


@pytest.mark.parametrize('shift', [(0.0, 3.0), (-4.0, 2.0), (2.5, -2.5)])
def test_a_shift_of_all_picks_is_measured(shift):
    frames, centers = make_discs()

    check = pk.check_picks(frames, [one - np.array(shift) for one in centers], 20.0)

    # the particles lie `shift` from the picks
    assert check.is_shifted
    np.testing.assert_allclose(check.shift_yx, shift, atol=0.5)
    assert check.shift_error < 0.6


def test_picks_anywhere_do_not_sit_on_particles():
    frames, centers = make_discs()
    rng = np.random.default_rng(1)

    check = pk.check_picks(frames, [rng.uniform(20, 280, one.shape) for one in centers], 20.0)

    assert not check.is_on_particles


def test_scattered_clicks_are_no_shift():
    frames, centers = make_discs()
    rng = np.random.default_rng(2)

    check = pk.check_picks(frames, [one + rng.normal(0, 2, one.shape) for one in centers], 20.0)

    assert check.is_on_particles
    assert not check.is_shifted


def test_a_few_picks_are_not_judged():
    frames, centers = make_discs(1)

    assert pk.check_picks(frames, [centers[0][:5]], 20.0) is None


def test_an_odd_micrograph_counts_less_in_the_density():
    frames = [np.zeros((100, 100), np.float32)] * 3
    rng = np.random.default_rng(0)
    picks = [rng.uniform(15, 85, (n, 2)) for n in (20, 20, 60)]

    even, weighted = (pk.measure_density(frames, picks, (100, 100), 10.0, weights)
                      for weights in (None, (1.0, 1.0, 0.01)))
    assert weighted[0] == pytest.approx(20 / 0.81, rel=0.05)
    assert even[0] > 1.5 * weighted[0]
