"""Orientations are uniform on SO(3)."""

import numpy as np
import pytest
from scipy import stats

from cryogem.conventions import euler_to_matrix
from cryogem.specimen.orientation import ViewPreference, draw_uniform_orientations, jitter_orientations

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


def test_without_a_preference_all_views_are_equally_frequent():
    np.testing.assert_array_equal(ViewPreference().draw(50, np.random.default_rng(1)),
                                  draw_uniform_orientations(50, np.random.default_rng(1)))


def test_a_distribution_without_spread_gives_its_own_poses_in_equal_shares():
    poses = ((10.0, 20.0, 30.0), (100.0, 110.0, 120.0))
    drawn = ViewPreference(poses).draw(1000, np.random.default_rng(0))

    is_first = np.isclose(drawn, poses[0]).all(axis=1)
    assert (is_first | np.isclose(drawn, poses[1]).all(axis=1)).all()
    assert is_first.mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize('spread', [2.0, 10.0])
def test_views_spread_around_a_preferred_direction_by_the_angle_that_is_said(spread):
    preference = ViewPreference(((40.0, 60.0, 0.0),), spread, is_in_plane_free=True)
    drawn = preference.draw(N, np.random.default_rng(0))
    directions = euler_to_matrix(drawn)[:, 2]
    angles = np.rad2deg(np.arccos(np.clip(directions @ euler_to_matrix(np.array([40.0, 60.0, 0.0]))[2], -1, 1)))

    # two of the three random turns move the direction: a Rayleigh law of that spread
    assert np.sqrt(np.mean(angles ** 2) / 2) == pytest.approx(spread, rel=0.05)
    assert stats.kstest(drawn[:, 2] % 360, 'uniform', args=(0, 360)).pvalue > 0.01


def test_jitter_turns_each_pose_by_the_spread_along_each_axis():
    angles = draw_uniform_orientations(N, np.random.default_rng(0))
    turned = jitter_orientations(angles, 3.0, np.random.default_rng(1))
    traces = np.trace(euler_to_matrix(turned) @ np.swapaxes(euler_to_matrix(angles), 1, 2), axis1=1, axis2=2)

    turns = np.rad2deg(np.arccos(np.clip((traces - 1) / 2, -1, 1)))
    assert np.sqrt(np.mean(turns ** 2) / 3) == pytest.approx(3.0, rel=0.05)
    np.testing.assert_array_equal(jitter_orientations(angles, 0.0, np.random.default_rng(1)), angles)
