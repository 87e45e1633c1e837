"""Pose errors modulo symmetry, the export, and RELION and a network finding labelled poses."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryogem.evaluation.pose import (
    fit_to_box,
    measure_chance,
    measure_pose_errors,
)
from cryogem.evaluation.regressor import to_rotation, turn_batch
from cryogem.specimen.symmetry import find_symmetry_group

C1 = np.eye(3)[None]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_rotations(n, seed=0):
    return Rotation.random(n, random_state=seed).as_matrix()


def test_the_error_is_the_angle_of_the_turn_between_two_poses():
    labels = random_rotations(50)
    turned = labels @ Rotation.from_euler('y', 17, degrees=True).as_matrix()

    np.testing.assert_allclose(measure_pose_errors(turned, labels, C1), 17, atol=1e-5)
    np.testing.assert_allclose(measure_pose_errors(labels, labels, C1), 0, atol=1e-5)


@pytest.mark.parametrize('symmetry', ['C3', 'D2', 'O', 'I'])
def test_equivalent_poses_have_no_error_and_small_turns_keep_theirs(symmetry, rng):
    group, labels = find_symmetry_group(symmetry), random_rotations(40)
    equivalent = labels @ group[rng.integers(len(group), size=40)]
    turn = Rotation.from_rotvec([0.05, 0, 0]).as_matrix()

    np.testing.assert_allclose(measure_pose_errors(equivalent, labels, group), 0, atol=1e-4)
    np.testing.assert_allclose(measure_pose_errors(turn @ equivalent, labels, group), np.rad2deg(0.05), atol=1e-4)


def test_the_chance_level_falls_with_symmetry(rng):
    labels = random_rotations(60)
    levels = [measure_chance(labels, find_symmetry_group(name), rng) for name in ('C1', 'D2', 'O')]

    # the angle of a random rotation has the density (1 - cos a) / pi: its median is 132 degrees
    assert levels[0] == pytest.approx(132, abs=4)
    assert levels[0] > levels[1] > levels[2]


def test_six_values_make_a_rotation():
    found = to_rotation(torch.randn(20, 6, generator=torch.Generator().manual_seed(0))).numpy()

    np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (20, 3, 3)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(found), 1, atol=1e-5)


def test_a_turned_image_keeps_its_pose(rng):
    """A point of the volume lies in the turned image where the turned pose puts it."""
    n = 33
    for quarters in range(4):
        pose = random_rotations(1, seed=quarters)
        point = np.array([3.0, -5.0, 7.0])
        x, y, _ = np.rint(pose[0] @ point).astype(int)
        image = torch.zeros(1, 1, n, n)
        image[0, 0, y + n // 2, x + n // 2] = 1
        turned, new_pose = turn_batch(image, torch.from_numpy(pose).float(), quarters)
        found_y, found_x = np.argwhere(turned[0, 0].numpy())[0] - n // 2

        expected = new_pose[0].numpy() @ point
        assert np.hypot(expected[0] - found_x, expected[1] - found_y) < 1


@pytest.mark.parametrize(('old', 'new'), [(8, 12), (12, 8), (9, 12), (8, 8)])
def test_a_map_keeps_its_centre_in_another_box(old, new):
    density = np.zeros((old,) * 3, np.float32)
    density[old // 2, old // 2, old // 2 + 1] = 1
    fitted = fit_to_box(density, new)

    assert fitted.shape == (new,) * 3
    assert tuple(np.argwhere(fitted)[0]) == (new // 2, new // 2, new // 2 + 1)
