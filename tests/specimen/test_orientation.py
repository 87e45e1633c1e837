"""Orientations are uniform on SO(3)."""

import numpy as np
import pytest
from scipy import stats

from cryogem.conventions import euler_to_matrix
from cryogem.specimen.orientation import draw_uniform_orientations

N = 4000


@pytest.fixture(scope='module')
def angles() -> np.ndarray:
    return draw_uniform_orientations(N, np.random.default_rng(7))


@pytest.mark.parametrize(('column', 'transform', 'low', 'span'), [
    (0, lambda rot: rot, 0, 360), (1, lambda tilt: np.cos(np.deg2rad(tilt)), -1, 2), (2, lambda psi: psi, 0, 360)])
def test_rot_psi_and_the_cosine_of_tilt_are_uniform(angles, column, transform, low, span):
    assert stats.kstest(transform(angles[:, column]), 'uniform', args=(low, span)).pvalue > 0.01


def test_the_mean_rotation_and_the_mean_view_vanish(angles):
    matrices = euler_to_matrix(angles)

    # each element has variance 1/3 on SO(3), so its mean over N has the standard error 1 / sqrt(3 N)
    assert np.abs(matrices.mean(axis=0)).max() < 4 / np.sqrt(3 * N)
    np.testing.assert_allclose((matrices ** 2).mean(axis=0), 1 / 3, atol=0.025)


def test_rotation_angles_follow_the_haar_measure(angles):
    trace = np.trace(euler_to_matrix(angles), axis1=1, axis2=2)
    turn = np.arccos(np.clip((trace - 1) / 2, -1, 1))

    assert stats.kstest(turn, lambda t: (t - np.sin(t)) / np.pi).pvalue > 0.01


def test_equal_seeds_give_equal_angles_and_no_two_are_the_same(angles):
    np.testing.assert_array_equal(angles, draw_uniform_orientations(N, np.random.default_rng(7)))
    assert len(np.unique(angles, axis=0)) == N
    assert draw_uniform_orientations(0, np.random.default_rng(0)).shape == (0, 3)
