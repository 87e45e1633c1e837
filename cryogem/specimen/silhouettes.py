"""Which pixels of a frame belong to which particle, and how much of each particle is seen."""

from collections.abc import Sequence

import numpy as np

from cryogem.specimen.compiling import compile_loop

SILHOUETTE_DEPTH = 1.0                      # px of masked volume along the beam that make a pixel part of a particle


def paint_silhouettes(
    depths: np.ndarray, instance_ids: Sequence[int], corners_yx: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint the silhouettes of particles; of several at a pixel the deepest owns it, of equal ones the first.

    Parameters
    ----------
    depths : (n, b, b) float32, px of each particle's masked volume along the beam.
    corners_yx : (n, 2) px in the frame of the first pixel of each box; boxes may reach beyond the frame.
    shape : of the frame.

    Returns
    -------
    (h, w) int16 instance ids, 0 outside particles; (n,) share of each silhouette inside the frame; (n,) share of what
    is visible of it that others cover too.
    """
    owner, deepest = np.zeros(shape, np.int16), np.full(shape, SILHOUETTE_DEPTH, np.float32)
    coverage = np.zeros(shape, np.uint16)
    ids, corners = np.array(instance_ids, np.int16), corners_yx.astype(np.int64)
    areas = _cover(depths, ids, corners, np.float32(SILHOUETTE_DEPTH), owner, deepest, coverage)
    visible, shared = _count_covered(depths, corners, np.float32(SILHOUETTE_DEPTH), coverage)
    return owner, visible / np.maximum(areas, 1), shared / np.maximum(visible, 1)


@compile_loop
def _cover(depths, ids, corners, threshold, owner, deepest, coverage):                      # type: ignore[no-untyped-def]
    """Add each silhouette to `coverage`, give it what it owns; return the pixels of each, those outside too."""
    n, box = len(depths), depths.shape[1]
    height, width = owner.shape
    areas = np.zeros(n)
    for i in range(n):
        top, left, area = corners[i, 0], corners[i, 1], 0
        for row in range(box):
            y = top + row
            is_row_inside = 0 <= y < height
            for column in range(box):
                depth = depths[i, row, column]
                if depth > threshold:
                    area += 1
                    x = left + column
                    if is_row_inside and 0 <= x < width:
                        coverage[y, x] += 1
                        if depth > deepest[y, x]:
                            deepest[y, x], owner[y, x] = depth, ids[i]
        areas[i] = area
    return areas


@compile_loop
def _count_covered(depths, corners, threshold, coverage):                                   # type: ignore[no-untyped-def]
    """Return the pixels of each silhouette inside the frame, and those of them that others cover too."""
    n, box = len(depths), depths.shape[1]
    height, width = coverage.shape
    visible, shared = np.zeros(n), np.zeros(n)
    for i in range(n):
        top, left, n_visible, n_shared = corners[i, 0], corners[i, 1], 0, 0
        for row in range(max(0, -top), min(box, height - top)):
            for column in range(max(0, -left), min(box, width - left)):
                if depths[i, row, column] > threshold:
                    n_visible += 1
                    if coverage[top + row, left + column] > 1:
                        n_shared += 1
        visible[i], shared[i] = n_visible, n_shared
    return visible, shared
