"""Carbon, crystals and dirt are found; particles, marked or not, and gradients of the ice are not taken for them."""

import numpy as np
import pytest

from cryogem.imaging.grey import find_good_region
from cryogem.imaging.noise import draw_field
from cryogem.imaging.outliers import find_outliers
from tests.imaging.synthetic import NOISE_POWER

SHAPE = (400, 440)
WHOLE = (slice(None), slice(None))
NOBODY = np.empty((0, 2))
Y, X = np.mgrid[:SHAPE[0], :SHAPE[1]]


@pytest.fixture
def noise():
    return draw_field(NOISE_POWER, SHAPE, np.random.default_rng(0))


def test_plain_noise_has_no_outliers(noise):
    assert find_outliers(noise, NOBODY, 24.0, WHOLE).mean() < 0.002


def test_a_dark_crystal_is_found(noise):
    is_crystal = np.hypot(Y - 200, X - 120) < 22
    found = find_outliers(noise - 3 * is_crystal, NOBODY, 24.0, WHOLE)

    assert found[is_crystal].mean() > 0.9
    assert found[np.hypot(Y - 200, X - 120) > 50].mean() < 0.01


def test_picks_do_not_save_a_crystal(noise):
    is_crystal = np.hypot(Y - 200, X - 120) < 22
    picks = np.array([[200.0, 120.0], [60.0, 60.0], [60.0, 300.0], [330.0, 200.0]])
    found = find_outliers(noise - 4 * is_crystal, picks, 24.0, WHOLE)

    assert found[is_crystal].mean() > 0.8


def test_a_noisy_carbon_corner_is_found(noise):
    is_carbon = Y + X < 150
    found = find_outliers(np.where(is_carbon, 2 * noise, noise), NOBODY, 24.0, WHOLE)

    assert found[Y + X < 130].mean() > 0.9
    assert found[Y + X > 190].mean() < 0.01


def test_particles_marked_or_not_are_no_outliers(noise):
    rng = np.random.default_rng(1)
    centers = rng.uniform(20, 380, (40, 2))
    image = noise.copy()
    for y, x in centers:
        image -= 0.6 * (np.hypot(Y - y, X - x) < 12)

    for picks in (centers, centers[::2]):
        assert find_outliers(image, picks, 24.0, WHOLE).mean() < 0.02


def test_a_gradient_of_the_ice_is_no_outlier(noise):
    assert find_outliers(noise + (X / 440 - 0.5).astype(np.float32), NOBODY, 24.0, WHOLE).mean() < 0.01


def test_dead_edges_are_left_to_the_grey_scale(noise):
    image = noise.copy()
    image[:6] = -8

    found = find_outliers(image, NOBODY, 24.0, find_good_region(image))
    assert not found[:6].any()
    assert found.mean() < 0.01
