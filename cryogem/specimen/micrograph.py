"""One virtual specimen seen along the beam: projected particles pasted in, sorted by height, and their masks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cryogem.conventions import euler_to_matrix
from cryogem.records import Particle
from cryogem.specimen.projection import ParticleProjector
from cryogem.specimen.silhouettes import paint_silhouettes


@dataclass(frozen=True)
class Painting:
    """What the electrons meet: projected density in slices, and where each particle is."""

    slices: tuple[tuple[float, torch.Tensor], ...]      # (height in Å, (h + 2m, w + 2m) density·px), m = margin
    margin: int                                         # px around the frame on every side
    instance_mask: np.ndarray                           # (h, w) int16, 0 outside particles
    visible_fractions: np.ndarray                       # (n,) share of each silhouette inside the frame
    overlap_fractions: np.ndarray                       # (n,) share of the visible silhouette that others cover too


def project_particles(
    projectors: Sequence[ParticleProjector], particles: Sequence[Particle], fractions_yx: np.ndarray
) -> torch.Tensor:
    """Project each particle from its own map, in its own pose.

    Parameters
    ----------
    projectors : one per map, with equal boxes.
    fractions_yx : (n, 2) px by which each particle is moved from the centre of its box.

    Returns
    -------
    (n, 2, b, b) float32 density and mask, in density·px and px.
    """
    rotations = euler_to_matrix(np.array([(p.rot, p.tilt, p.psi) for p in particles]).reshape(-1, 3))
    box = projectors[0].box_size
    images = torch.zeros((len(particles), 2, box, box))
    conformers = np.array([p.volume_index for p in particles], dtype=int)
    for index, projector in enumerate(projectors):
        chosen = np.flatnonzero(conformers == index)
        if len(chosen):
            projected = projector.project(torch.from_numpy(rotations[chosen]), torch.from_numpy(fractions_yx[chosen]))
            images[torch.from_numpy(chosen)] = projected.cpu()
    return images


def paint(
    projectors: Sequence[ParticleProjector], particles: Sequence[Particle], shape: tuple[int, int], margin: int,
    slice_thickness: float,
) -> Painting:
    """Paint particles into a frame with a margin; what lies beyond is left out.

    Parameters
    ----------
    margin : px.
    slice_thickness : Å; particles no farther apart in height share the defocus of the middle of their slice.
    """
    corners, fractions = split_centers(np.array([p.center_yx for p in particles]).reshape(-1, 2))
    images = project_particles(projectors, particles, fractions)
    corners = corners - projectors[0].box_size // 2
    padded = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    slices = []
    for height, members in _divide_heights(np.array([p.height for p in particles]), slice_thickness):
        density = torch.zeros(padded)
        for i in members:
            _add_clipped(density, images[i, 0], corners[i] + margin)
        slices.append((height, density))
    masks = paint_silhouettes(images[:, 1].numpy(), [p.instance_id for p in particles], corners, shape)
    return Painting(tuple(slices), margin, *masks)


def split_centers(centers_yx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split (n, 2) sub-pixel centres into whole pixels and the rest in [-0.5, 0.5)."""
    whole = np.floor(centers_yx + 0.5).astype(int)
    return whole, centers_yx - whole


def _divide_heights(heights: np.ndarray, thickness: float) -> list[tuple[float, np.ndarray]]:
    """Divide particles among as few equally thick slices as do; return the middle (Å) and the members of each."""
    if not len(heights):
        return []
    low, reach = float(heights.min()), float(np.ptp(heights))
    n_slices = max(1, math.ceil(reach / thickness))
    levels = np.minimum((heights - low) * (n_slices / max(reach, 1e-9)), n_slices - 1).astype(int)
    return [(low + (level + 0.5) * reach / n_slices, np.flatnonzero(levels == level)) for level in np.unique(levels)]


def _add_clipped(canvas: torch.Tensor, image: torch.Tensor, corner_yx: np.ndarray) -> None:
    """Add a square image to the canvas, but for what reaches beyond it."""
    box = len(image)
    (top, left), (height, width) = corner_yx.tolist(), canvas.shape
    y, x = max(0, top), max(0, left)
    bottom, right = min(height, top + box), min(width, left + box)
    if y < bottom and x < right:
        canvas[y:bottom, x:right] += image[y - top:bottom - top, x - left:right - left]
