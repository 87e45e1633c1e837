"""Point groups are those of RELION, and equivalent poses are reported as one."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from cryogem.conventions import euler_to_matrix, matrix_to_euler
from cryogem.errors import ConfigError
from cryogem.specimen.orientation import draw_uniform_orientations
from cryogem.specimen.symmetry import find_symmetry_group, reduce_to_asymmetric_unit

ORDERS = {'C1': 1, 'C7': 7, 'D2': 4, 'D7': 14, 'T': 12, 'O': 24, 'I': 60}


def read_relion_group(symmetry: str) -> list[np.ndarray]:
    done = subprocess.run(['relion_refine', '--i', 'x', '--o', 'y', '--sym', symmetry, '--print_symmetry_ops'],
                          capture_output=True, text=True, timeout=600, check=False)
    blocks = re.split(r'R\(\d+\)=', done.stdout)[1:]
    return [np.array(re.findall(r'[-\d.e]+', block.split('Euler')[0]), float).reshape(3, 3) for block in blocks]


@pytest.mark.parametrize(('symmetry', 'order'), ORDERS.items())
def test_a_group_has_its_order_and_is_closed(symmetry, order):
    group = find_symmetry_group(symmetry)
    products = (group[:, None] @ group).reshape(-1, 3, 3)

    assert len(group) == order
    np.testing.assert_allclose(np.linalg.det(group), 1)
    for product in products[:200]:
        assert np.abs(group - product).max(axis=(1, 2)).min() < 1e-9


@pytest.mark.skipif(shutil.which('relion_refine') is None, reason='RELION is not installed')
@pytest.mark.parametrize('symmetry', ORDERS)
def test_a_group_is_that_of_relion(symmetry):
    theirs = read_relion_group(symmetry)
    ours = find_symmetry_group(symmetry)

    assert len(theirs) == len(ours)
    for one in theirs:
        assert np.abs(ours - one).max(axis=(1, 2)).min() < 1e-4


@pytest.mark.parametrize('symmetry', ORDERS)
def test_equivalent_poses_are_reported_as_one(symmetry):
    rng = np.random.default_rng(3)
    group = find_symmetry_group(symmetry)
    angles = draw_uniform_orientations(50, rng)
    others = matrix_to_euler(euler_to_matrix(angles) @ group[rng.integers(len(group), size=50)])
    reduced = [euler_to_matrix(reduce_to_asymmetric_unit(one, group)) for one in (angles, others)]

    np.testing.assert_allclose(*reduced, atol=1e-9)


@pytest.mark.parametrize('symmetry', ORDERS)
def test_the_reported_pose_shows_the_same_view(symmetry):
    group = find_symmetry_group(symmetry)
    angles = draw_uniform_orientations(20, np.random.default_rng(4))
    reduced = euler_to_matrix(reduce_to_asymmetric_unit(angles, group))

    for pose, other in zip(euler_to_matrix(angles), reduced, strict=True):
        assert np.abs(pose.T @ other - group).max(axis=(1, 2)).min() < 1e-9


@pytest.mark.parametrize('symmetry', ORDERS)
def test_the_asymmetric_unit_is_filled_evenly(symmetry):
    """Uniform views fill it: its share of the sphere is one over the order of the group."""
    group = find_symmetry_group(symmetry)
    angles = draw_uniform_orientations(4000, np.random.default_rng(5))
    is_unchanged = np.isclose(
        euler_to_matrix(reduce_to_asymmetric_unit(angles, group)), euler_to_matrix(angles), atol=1e-9).all(axis=(1, 2))

    share = 1 / len(group)
    assert abs(is_unchanged.mean() - share) < 4 * np.sqrt(share * (1 - share) / 4000) + 1e-9


@pytest.mark.parametrize('symmetry', ['X', 'C0', 'C', 'D', 'O2', '', 'I3'])
def test_an_unknown_group_is_refused_in_one_sentence(symmetry):
    with pytest.raises(ConfigError, match='symmetry cannot be .*; say Cn or Dn'):
        find_symmetry_group(symmetry)
