"""Units, axes, signs and Euler angles: written once, referred to everywhere.

Images
    ``(h, w)`` as stored in the MRC file, origin top left, no flip; pixel centres at integers.
    ``center_yx`` may be fractional. The centre of a box of n pixels is index ``n // 2``.
Volumes
    ``(z, y, x)`` as stored, centre at index ``n // 2``; protein is bright.
Micrographs
    Particles are dark. Inside the engine grey values are in *contrast units*:
    ``(grey - grey_mean) / grey_sd`` with the robust mean and sd of one real micrograph.
Rotations
    RELION ZYZ ``(rot, tilt, psi)``, degrees. The matrix A of these angles maps volume coordinates (x, y, z)
    to image coordinates; the projection is ``p(x, y) = integral over z of V(A^T (x, y, z))``.
CTF
    RELION/CTFFIND form, Å and degrees, underfocus positive, ``defocus_u >= defocus_v``,
    ``defocus_angle`` from the x axis to the direction of ``defocus_u``; envelope ``exp(-B s^2 / 4)``.
Coordinates
    Tables hold integer centres; the sub-pixel rest is in the origin: ``centre = coordinate - origin / pixel_size``.
"""

import math

import numpy as np

_PLANCK_OVER_SQRT_2ME = 12.2643247          # Å·sqrt(V): h / sqrt(2 m_e e)
_RELATIVISTIC = 0.978466e-6                 # 1/V: e / (2 m_e c^2)


def compute_wavelength(voltage: float) -> float:
    """Return the relativistic electron wavelength in Å for an acceleration `voltage` in kV."""
    volts = voltage * 1e3
    return _PLANCK_OVER_SQRT_2ME / np.sqrt(volts * (1 + _RELATIVISTIC * volts))


def euler_to_matrix(angles: np.ndarray) -> np.ndarray:
    """Turn RELION Euler angles into rotation matrices.

    Parameters
    ----------
    angles : (..., 3) rot, tilt, psi in degrees.

    Returns
    -------
    (..., 3, 3) float64 matrices A acting on (x, y, z) columns: image = A · volume
    (Heymann, Chagoyen and Belnap 2005, J. Struct. Biol. 151:196).
    """
    rot, tilt, psi = np.moveaxis(np.deg2rad(np.asarray(angles, dtype=np.float64)), -1, 0)
    ca, cb, cg = np.cos(rot), np.cos(tilt), np.cos(psi)
    sa, sb, sg = np.sin(rot), np.sin(tilt), np.sin(psi)
    rows = [
        [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
        [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
        [sb * ca, sb * sa, cb],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_euler(matrices: np.ndarray) -> np.ndarray:
    """Invert `euler_to_matrix`: (..., 3, 3) matrices to (..., 3) rot, tilt, psi in degrees, tilt in [0, 180].

    At the poles (tilt 0 or 180), where only one in-plane angle is defined, rot is set to 0.
    """
    matrices = np.asarray(matrices, dtype=np.float64)
    sine = np.hypot(matrices[..., 2, 0], matrices[..., 2, 1])
    tilt = np.arctan2(sine, matrices[..., 2, 2])
    is_pole = sine < 1e-8
    rot = np.where(is_pole, 0.0, np.arctan2(matrices[..., 2, 1], matrices[..., 2, 0]))
    psi = np.where(
        is_pole,
        np.arctan2(matrices[..., 0, 1], matrices[..., 1, 1]),
        np.arctan2(matrices[..., 1, 2], -matrices[..., 0, 2]),
    )
    return np.rad2deg(np.stack([rot, tilt, psi], axis=-1))


def split_center(center: float) -> tuple[int, float]:
    """Split a sub-pixel centre into the integer coordinate of the tables and its origin, both in pixels.

    ``center = coordinate - origin`` with the origin within half a pixel (RELION truncates fractional coordinates).
    """
    coordinate = math.floor(center + 0.5)
    return coordinate, coordinate - center
