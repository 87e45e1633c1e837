"""Projections against the closed form of a sum of Gaussians, and against another program."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from cryogem.conventions import euler_to_matrix
from cryogem.errors import InputError
from cryogem.specimen.projection import Projector, choose_oversampling
from cryogem.specimen.slices import sample_slices
from tests.phantom import make_chiral_phantom, relative_error

BOX, PIXEL_SIZE = 40, 3.0
ANGLES = np.array([[10, 5, 0], [90, 20, 40], [0, 70, 0], [30, 60, 0], [-120, 45, 75], [200, 135, -33], [77, 180, 10],
                   [12, 91, 275]], dtype=float)
SHIFTS = np.array([[0, 0], [0.5, -0.5], [-0.25, 0.1], [0.49, 0.33], [0, 0.5], [-0.5, 0], [0.2, 0.2], [-0.4, 0.45]])
ALONG_AXES = np.array([[0, 0, 0], [90, 0, 0], [0, 90, 0], [90, 90, 90], [0, 180, 0]], dtype=float)


@pytest.fixture(scope='module')
def phantom():
    return make_chiral_phantom()


@pytest.fixture(scope='module')
def projector(phantom) -> Projector:
    return Projector(torch.from_numpy(phantom.render(BOX, PIXEL_SIZE))[None])


def project(projector: Projector, angles: np.ndarray, shifts: np.ndarray | None = None) -> np.ndarray:
    rotations = torch.from_numpy(euler_to_matrix(angles))
    shifts = np.zeros((len(angles), 2)) if shifts is None else shifts
    return projector.project(rotations, torch.from_numpy(shifts)).numpy()


@pytest.mark.parametrize('i', range(len(ANGLES)))
def test_a_projection_equals_the_closed_form_with_its_sub_pixel_shift(phantom, projector, i):
    (image,), = project(projector, ANGLES[i:i + 1], SHIFTS[i:i + 1])

    expected = phantom.project(BOX, PIXEL_SIZE, euler_to_matrix(ANGLES[i]), tuple(SHIFTS[i]))

    assert relative_error(image, expected) < 0.03


@pytest.mark.parametrize('angles', ALONG_AXES.tolist())
def test_along_the_axes_of_the_map_the_error_is_largest_and_still_small(phantom, projector, angles):
    (image,), = project(projector, np.array([angles]))

    # all samples fall on grid points, where the division by the interpolation kernel makes up for what does not happen
    expected = phantom.project(BOX, PIXEL_SIZE, euler_to_matrix(np.array(angles)))
    assert relative_error(image, expected) < 0.04


def test_the_hand_is_right(phantom, projector):
    images = project(projector, ANGLES)[:, 0]
    mirrored = make_chiral_phantom()
    mirrored.positions[:, 2] *= -1                                  # the other hand, seen in any pose, looks different

    for image, angles in zip(images[3:6], ANGLES[3:6], strict=True):
        matrix = euler_to_matrix(angles)
        assert relative_error(image, phantom.project(BOX, PIXEL_SIZE, matrix)) < 0.03
        assert relative_error(image, mirrored.project(BOX, PIXEL_SIZE, matrix)) > 0.2
        assert relative_error(image, phantom.project(BOX, PIXEL_SIZE, matrix.T)) > 0.2
        assert relative_error(image[::-1], phantom.project(BOX, PIXEL_SIZE, matrix)) > 0.2


def test_projections_agree_with_torch_fourier_slice(phantom, projector):
    oracle = pytest.importorskip('torch_fourier_slice')
    rotations = torch.from_numpy(euler_to_matrix(ANGLES)).float()
    volume = torch.from_numpy(phantom.render(BOX, PIXEL_SIZE))

    theirs = oracle.project_3d_to_2d(volume, rotations.mT, pad_factor=2.0).numpy()      # their matrices are transposed

    ours = project(projector, ANGLES)[:, 0]
    expected = np.stack([phantom.project(BOX, PIXEL_SIZE, euler_to_matrix(angles)) for angles in ANGLES])
    for one, other in zip(ours, theirs, strict=True):
        assert relative_error(one, other) < 0.03
    # they crop the padded projection, and with it what interpolation spills there; ours is sampled at the output box
    assert relative_error(ours, expected) < 1.25 * relative_error(theirs, expected)


def test_the_sum_of_a_projection_is_the_sum_of_the_map(phantom, projector):
    total = phantom.render(BOX, PIXEL_SIZE).sum(dtype=np.float64)

    for image in project(projector, ANGLES, SHIFTS)[:, 0]:
        assert image.sum(dtype=np.float64) == pytest.approx(total, rel=1e-4)


def test_the_rotation_centre_stays_at_half_the_box(projector):
    volume = np.zeros((BOX,) * 3, np.float32)
    axis = np.arange(BOX) - BOX // 2
    volume[:] = np.exp(-(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis ** 2) / 18)

    for image in project(Projector(torch.from_numpy(volume)[None]), ANGLES)[:, 0]:
        peak = np.unravel_index(image.argmax(), image.shape)
        assert peak == (BOX // 2, BOX // 2)
        np.testing.assert_allclose(image[1:, 1:], image[1:, 1:][::-1, ::-1], atol=1e-3 * image.max())


def test_maps_are_projected_in_the_same_pose_and_linearly(phantom):
    first = phantom.render(BOX, PIXEL_SIZE)
    second = np.roll(first, 2, axis=0) * 3
    both = project(Projector(torch.from_numpy(np.stack([first, second]))), ANGLES, SHIFTS)
    total = project(Projector(torch.from_numpy(first + second)[None]), ANGLES, SHIFTS)

    assert both.shape == (len(ANGLES), 2, BOX, BOX)
    np.testing.assert_allclose(both.sum(axis=1), total[:, 0], atol=1e-4 * total.max())


def test_an_image_does_not_depend_on_those_projected_with_it(phantom, projector):
    many = np.tile(ANGLES, (60, 1))                                 # more than fit into one chunk
    images = project(projector, many)

    alone = project(projector, ANGLES[4:5])[0]
    for i in (4, 4 + 8 * 31, 4 + 8 * 59):
        np.testing.assert_allclose(images[i], alone, atol=1e-5 * alone.max())


def test_psi_turns_the_picture_and_nothing_else(phantom, projector):
    angles = np.array([[40.0, 70.0, 0.0], [40.0, 70.0, 90.0]])
    upright, turned = project(projector, angles)[:, 0]

    # psi 90 maps image x to -y: index (y, x) of the first is (-x, y) of the second, about n // 2
    np.testing.assert_allclose(np.rot90(upright[1:, 1:], 1), turned[1:, 1:], atol=2e-3 * upright.max())


def test_finer_sampling_of_the_transform_is_more_exact(phantom):
    volume = torch.from_numpy(phantom.render(BOX, PIXEL_SIZE))[None]
    matrices = euler_to_matrix(ANGLES)
    expected = np.stack([phantom.project(BOX, PIXEL_SIZE, one) for one in matrices])
    fine, coarse = (relative_error(project(Projector(volume, oversampling), ANGLES)[:, 0], expected)
                    for oversampling in (3, 2))

    assert fine < 0.6 * coarse
    assert fine < 0.01


def test_large_samples_are_sampled_more_coarsely_to_save_memory():
    assert [choose_oversampling(box, 2) for box in (64, 128, 200)] == [2, 3, 2]
    assert [choose_oversampling(110, n) for n in (2, 5, 40)] == [3, 3, 2]


def test_the_kernel_of_the_cpu_and_torch_sample_the_same(phantom):
    volumes = torch.from_numpy(np.stack([phantom.render(BOX, PIXEL_SIZE)] * 2)) * torch.tensor([1.0, 0.5])[
        :, None, None, None]
    projector = Projector(volumes)
    rotations = 3 * torch.from_numpy(euler_to_matrix(ANGLES)).float()
    phases = projector._compute_phases(torch.from_numpy(SHIFTS).float())
    kernel = sample_slices(projector._transform, BOX, rotations, BOX / 2, *phases)

    expected = projector._sample_with_torch(rotations, *phases)
    assert (kernel - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize('value', [np.nan, np.inf, 2.0])
def test_what_is_no_rotation_is_refused(projector, value):
    rotations = torch.eye(3)[None].clone()
    rotations[0, 1, 1] = value
    with pytest.raises(InputError, match='no rotations'):
        projector.project(rotations, torch.zeros(1, 2))


def test_threads_and_inference_mode_do_not_change_a_bit(projector):
    made = []
    n_threads = torch.get_num_threads()
    for number, is_inference in ((1, False), (3, False), (3, True)):
        torch.set_num_threads(number)
        with torch.inference_mode(is_inference):
            made.append(project(projector, ANGLES, SHIFTS))
    torch.set_num_threads(n_threads)

    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])


def test_the_kernel_works_where_no_folder_can_hold_its_code(tmp_path):
    """A read-only installation of a user without a home."""
    script = (
        'import numba.core.caching as caching\n'
        'caching.CacheImpl._locator_classes = []\n'
        'import torch\n'
        'from cryogem.specimen.projection import Projector\n'
        'print(Projector(torch.ones(1, 4, 4, 4)).project(torch.eye(3)[None], torch.zeros(1, 2)).shape)')
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'torch.Size([1, 1, 4, 4])'
