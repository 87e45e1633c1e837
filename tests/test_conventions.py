"""The conventions against closed forms and against the program that Scipion uses for the same angles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryogem.conventions import compute_wavelength, euler_to_matrix, matrix_to_euler, split_center

ANGLES = st.tuples(st.floats(-180, 180), st.floats(0, 180), st.floats(-180, 180))


def draw_angles(n: int, seed: int = 0) -> np.ndarray:
    """Return (n, 3) rot, tilt, psi, degrees, away from the poles."""
    return np.random.default_rng(seed).uniform((-180, 1, -180), (180, 179, 180), (n, 3))


@pytest.mark.parametrize(('voltage', 'wavelength'), [(100, 0.037014), (200, 0.025079), (300, 0.019687)])
def test_the_wavelength_is_the_tabulated_one(voltage, wavelength):
    # Williams and Carter, Transmission Electron Microscopy, table 1.2 (relativistic).
    assert compute_wavelength(voltage) == pytest.approx(wavelength, abs=2e-5)


@given(ANGLES)
def test_every_matrix_is_a_proper_rotation(angles):
    matrix = euler_to_matrix(np.array(angles))

    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


@given(ANGLES)
def test_the_angles_found_in_a_matrix_give_that_matrix_again_also_at_the_poles(angles):
    matrix = euler_to_matrix(np.array(angles))

    np.testing.assert_allclose(euler_to_matrix(matrix_to_euler(matrix)), matrix, atol=1e-6)


def test_angles_away_from_the_poles_come_back_as_they_were():
    angles = draw_angles(50)

    np.testing.assert_allclose(matrix_to_euler(euler_to_matrix(angles)), angles, atol=1e-9)


@pytest.mark.parametrize('tilt', [0, 180])
def test_at_a_pole_only_psi_is_used(tilt):
    rot, found_tilt, _ = matrix_to_euler(euler_to_matrix(np.array([30.0, tilt, 50.0])))

    assert (rot, found_tilt) == (0, pytest.approx(tilt, abs=1e-6))


def test_leading_dimensions_are_kept():
    angles = draw_angles(6).reshape(2, 3, 3)

    matrices = euler_to_matrix(angles)

    assert matrices.shape == (2, 3, 3, 3)
    np.testing.assert_array_equal(matrices[1, 2], euler_to_matrix(angles[1, 2]))
    assert matrix_to_euler(matrices).shape == (2, 3, 3)


@pytest.mark.parametrize(('angles', 'axis', 'image'), [
    ((0, 0, 0), (1, 0, 0), (1, 0, 0)),
    ((90, 0, 0), (0, 1, 0), (1, 0, 0)),         # rot and psi turn the volume clockwise, seen along -z
    ((0, 0, 90), (0, 1, 0), (1, 0, 0)),
    ((0, 90, 0), (0, 0, 1), (-1, 0, 0)),        # tilt 90: the z axis of the volume falls on -x of the image
    ((0, 90, 0), (1, 0, 0), (0, 0, 1)),         # and the beam looks along its x axis
    ((0, 180, 0), (0, 0, 1), (0, 0, -1)),
])
def test_axes_of_the_volume_fall_where_relion_puts_them(angles, axis, image):
    np.testing.assert_allclose(euler_to_matrix(np.array(angles)) @ np.array(axis), image, atol=1e-12)


def test_the_beam_looks_along_the_direction_of_rot_and_tilt():
    rot, tilt, psi = 40.0, 65.0, -110.0
    azimuth, polar = np.deg2rad([rot, tilt])
    direction = [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)]

    np.testing.assert_allclose(euler_to_matrix(np.array([rot, tilt, psi])) @ direction, [0, 0, 1], atol=1e-12)


def test_matrices_agree_with_those_of_scipion():
    transformations = pytest.importorskip('pwem.convert.transformations')
    for rot, tilt, psi in draw_angles(20):
        theirs = transformations.euler_matrix(*np.deg2rad([-rot, -tilt, -psi]), 'szyz')[:3, :3]

        np.testing.assert_allclose(euler_to_matrix(np.array([rot, tilt, psi])), theirs, atol=1e-12)


def test_matrices_agree_with_those_of_scipy():
    rotation = pytest.importorskip('scipy.spatial.transform').Rotation
    angles = draw_angles(20)

    theirs = rotation.from_euler('ZYZ', angles, degrees=True).inv().as_matrix()

    np.testing.assert_allclose(euler_to_matrix(angles), theirs, atol=1e-12)


@given(st.floats(-1e4, 1e5))
def test_coordinate_minus_origin_is_the_centre(center):
    coordinate, origin = split_center(center)

    assert isinstance(coordinate, int)
    assert coordinate - origin == pytest.approx(center, abs=1e-9)
    assert -0.5 <= origin <= 0.5


@pytest.mark.parametrize(('center', 'coordinate', 'origin'), [(10.7, 11, 0.3), (10.2, 10, -0.2), (7.0, 7, 0.0),
                                                              (-0.7, -1, -0.3)])
def test_the_origin_points_from_the_centre_to_the_coordinate(center, coordinate, origin):
    assert split_center(center) == (coordinate, pytest.approx(origin))
