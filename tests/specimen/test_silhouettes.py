"""Silhouettes against their definition, pixel by pixel over whole frames."""

import numpy as np
import pytest

from cryogem.specimen.silhouettes import SILHOUETTE_DEPTH, paint_silhouettes

SHAPE, BOX = (40, 56), 16


def paint_whole_frames(depths, ids, corners):
    """Do what `paint_silhouettes` does with one frame of depths per particle, its box's reach around it."""
    frames = np.zeros((len(ids), SHAPE[0] + 2 * BOX, SHAPE[1] + 2 * BOX), np.float32)
    for frame, depth, (y, x) in zip(frames, depths, corners, strict=True):
        frame[y + BOX:y + 2 * BOX, x + BOX:x + 2 * BOX] = depth
    inside = frames[:, BOX:-BOX, BOX:-BOX]
    is_covered = inside > SILHOUETTE_DEPTH
    owner = np.where(is_covered.any(axis=0), np.array(ids)[inside.argmax(axis=0)], 0)
    visible = is_covered.sum(axis=(1, 2))
    shared = (is_covered & (is_covered.sum(axis=0) > 1)).sum(axis=(1, 2))
    return owner, visible / np.maximum((frames > SILHOUETTE_DEPTH).sum(axis=(1, 2)), 1), shared / np.maximum(visible, 1)


@pytest.mark.parametrize('seed', range(5))
def test_silhouettes_follow_their_definition_inside_and_across_borders(seed):
    rng = np.random.default_rng(seed)
    corners = rng.integers((-BOX, -BOX), SHAPE, (20, 2))
    depths = rng.uniform(0, 4, (20, BOX, BOX)).astype(np.float32)
    ids = list(rng.permutation(20) + 1)

    painted = paint_silhouettes(depths, ids, corners, SHAPE)

    for ours, expected in zip(painted, paint_whole_frames(depths, ids, corners), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_of_equal_depths_the_first_particle_owns_the_pixel():
    depths = np.full((2, BOX, BOX), 3.0, np.float32)

    owner, _, overlap = paint_silhouettes(depths, [7, 3], np.array([[4, 4], [4, 4]]), SHAPE)

    assert set(np.unique(owner)) == {0, 7}
    assert list(overlap) == [1, 1]


def test_a_frame_without_particles_is_empty():
    owner, visible, overlap = paint_silhouettes(np.zeros((0, BOX, BOX), np.float32), [], np.zeros((0, 2)), SHAPE)

    assert not owner.any()
    assert len(visible) == len(overlap) == 0
