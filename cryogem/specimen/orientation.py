"""Poses of the particles."""

import numpy as np


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
