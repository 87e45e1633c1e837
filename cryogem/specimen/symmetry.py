"""Point groups: which poses show the same view of a symmetric particle."""

import re

import numpy as np
from scipy.spatial.transform import Rotation

from cryogem.conventions import euler_to_matrix, matrix_to_euler
from cryogem.errors import ConfigError

_GROUP = re.compile(r'[CD][1-9]\d*|[TOI]')
# no group has this axis: of all equivalent views one lies nearest to it, and that one is reported
_REFERENCE_VIEW = np.array([0.05, 0.12, 1.0]) / np.linalg.norm([0.05, 0.12, 1.0])


def find_symmetry_group(symmetry: str) -> np.ndarray:
    """Return the rotations of a point group, its axes as RELION lays them.

    The groups are SciPy's, two of them turned: RELION's T has a three-fold axis along z and a two-fold one in the
    yz plane; its I (I2) has five-fold axes in the xz plane near z.

    Parameters
    ----------
    symmetry : Cn, Dn, T, O or I.

    Returns
    -------
    (m, 3, 3) float64 matrices acting on (x, y, z) of the map, the identity among them.

    Raises
    ------
    ConfigError : the group is unknown.
    """
    name = symmetry.upper()
    if not _GROUP.fullmatch(name):
        raise ConfigError(f'symmetry cannot be {symmetry!r}; say Cn or Dn with a number n, T, O or I')
    group = Rotation.create_group(name).as_matrix()
    turn = {'T': _turn_tetrahedron(), 'I': Rotation.from_euler('z', 90, degrees=True).as_matrix()}.get(name, np.eye(3))
    return turn @ group @ turn.T


def reduce_to_asymmetric_unit(angles: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return, of all poses that show the same view, the one whose view direction lies in the asymmetric unit.

    Parameters
    ----------
    angles : (n, 3) rot, tilt, psi in degrees.
    group : (m, 3, 3) rotations that leave the map unchanged.

    Returns
    -------
    (n, 3) rot, tilt, psi in degrees.
    """
    equivalent = euler_to_matrix(angles)[:, None] @ group                   # (n, m, 3, 3): image = A g · volume
    nearness = equivalent[:, :, 2] @ _REFERENCE_VIEW                        # the third row is the view direction
    return matrix_to_euler(equivalent[np.arange(len(equivalent)), nearness.argmax(axis=1)])


def _turn_tetrahedron() -> np.ndarray:
    """Return the rotation that takes (1, 1, 1) to z and the z axis into the yz plane."""
    three_fold = np.ones(3) / np.sqrt(3)
    across = np.array([0, 0, 1]) - three_fold / np.sqrt(3)
    across /= np.linalg.norm(across)
    return np.stack([np.cross(across, three_fold), across, three_fold])
