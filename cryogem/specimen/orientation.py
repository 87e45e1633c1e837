"""Poses of the particles."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from cryogem.conventions import euler_to_matrix, matrix_to_euler


@dataclass(frozen=True)
class ViewPreference:
    """Views that particles prefer: around given poses, with a spread; without poses all views are equally frequent."""

    poses: tuple[tuple[float, float, float], ...] = ()      # rot, tilt, psi, degrees
    spread: float = 0.0                     # degrees, sd of the random turn added to a drawn pose
    is_in_plane_free: bool = False          # psi uniform: only the direction of view is preferred

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw (n, 3) rot, tilt, psi in degrees."""
        if not self.poses:
            return draw_uniform_orientations(n, rng)
        drawn = np.array(self.poses)[rng.integers(len(self.poses), size=n)]
        if self.is_in_plane_free:
            drawn[:, 2] = rng.uniform(0, 360, size=n)
        return jitter_orientations(drawn, self.spread, rng)


def draw_uniform_orientations(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw rotations uniform on SO(3).

    The sampling is the same for every symmetry group: symmetry changes which poses are equivalent, not how often
    particles take them.

    Returns
    -------
    (n, 3) rot, tilt, psi in degrees: rot and psi uniform in [0, 360), cos(tilt) uniform in [-1, 1].
    """
    rot, psi = rng.uniform(0, 360, size=(2, n))
    tilt = np.rad2deg(np.arccos(rng.uniform(-1, 1, size=n)))
    return np.stack([rot, tilt, psi], axis=-1)


def jitter_orientations(angles: np.ndarray, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Turn each pose about a random axis, by an angle whose sd along each axis is `spread`.

    Parameters
    ----------
    angles : (n, 3) rot, tilt, psi in degrees.
    spread : degrees; zero leaves the poses as they are.
    """
    if not spread:
        return angles
    turns = Rotation.from_rotvec(rng.normal(0, np.deg2rad(spread), size=(len(angles), 3)))
    return matrix_to_euler(turns.as_matrix() @ euler_to_matrix(angles))
