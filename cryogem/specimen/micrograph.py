"""One virtual specimen seen along the beam: projected particles pasted in, sorted by height, and their masks."""

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
    """Paint particles into a frame with a margin; every particle must touch the frame with its margin.

    Parameters
    ----------
    margin : px, at least the box of the projections.
    slice_thickness : Å; particles whose heights round to the same slice share one defocus.
    """
    corners, fractions = split_centers(np.array([p.center_yx for p in particles]).reshape(-1, 2))
    images = project_particles(projectors, particles, fractions)
    box = projectors[0].box_size
    corners = corners + margin - box // 2
    padded = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    levels = np.array([round(p.height / slice_thickness) for p in particles], dtype=int)
    slices = []
    for level in np.unique(levels):
        density = torch.zeros(padded)
        for i in np.flatnonzero(levels == level):
            y, x = corners[i]
            density[y:y + box, x:x + box] += images[i, 0]
        slices.append((float(level) * slice_thickness, density))
    masks = paint_silhouettes(images[:, 1].numpy(), [p.instance_id for p in particles], corners - margin, shape)
    return Painting(tuple(slices), margin, *masks)


def split_centers(centers_yx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split (n, 2) sub-pixel centres into whole pixels and the rest in [-0.5, 0.5)."""
    whole = np.floor(centers_yx + 0.5).astype(int)
    return whole, centers_yx - whole
