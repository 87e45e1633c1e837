"""Particle stacks: cut from the micrographs, or imaged without noise."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from cryogem.dataset import layout, tables
from cryogem.dataset.plan import Plan
from cryogem.dataset.reader import read_grey_values
from cryogem.imaging.exposure import expose_particles
from cryogem.imaging.refinement import FineGrid, choose_lengths, pad_spectrum
from cryogem.io.mrc import StackWriter
from cryogem.records import Micrograph, Particle
from cryogem.specimen.ensemble import Ensemble

_MARGIN = 16                                # working px around a box that keep its edges from ringing into it


def write_image_stack(folder: Path, plan: Plan, records: Iterable[Micrograph], n_particles: int) -> None:
    """Cut the pickable particles from the micrographs: bright, normalised to the ring around them, as RELION does."""
    box = plan.box_size
    radius = np.hypot(*np.mgrid[:box, :box] - box // 2)
    is_ring = radius > 0.375 * box                      # outside the circle of three quarters of the box
    with StackWriter(folder / layout.STACK, n_particles, box, plan.pixel_size) as stack:
        for record in records:
            contrast = (read_grey_values(folder, record) - record.grey_mean) / record.grey_sd
            padded = np.pad(-contrast, box // 2, mode='edge')             # RELION repeats the border, too
            for particle in tables.select_particles(record):
                x, y = particle.coordinate_xy
                stack.append(normalise_to_ring(padded[y:y + box, x:x + box], is_ring))


def write_clean_stack(
    folder: Path, plan: Plan, records: Iterable[Micrograph], n_particles: int, ensemble: Ensemble
) -> None:
    """Image each pickable particle alone, without noise."""
    grid = plan.find_grid(ensemble.volumes[0].pixel_size)
    with StackWriter(folder / layout.CLEAN_STACK, n_particles, plan.box_size, plan.pixel_size) as stack:
        for record in records:
            particles = tuple(tables.select_particles(record))
            images = expose_particles(record, particles, ensemble, plan.box_size) if grid is None else \
                _expose_refined(record, particles, ensemble, plan.box_size, grid)
            for image in images:
                stack.append(image)


def _expose_refined(
    record: Micrograph, particles: tuple[Particle, ...], ensemble: Ensemble, box_size: int, grid: FineGrid
) -> np.ndarray:
    """Return (n, box_size, box_size) images of particles in fine pixels; `box_size` and the record are fine, too."""
    coarse, fine = choose_lengths(math.ceil(box_size / grid.ratio) + _MARGIN, grid.ratio)
    # each particle lies off its fine pixel by its origin: imaged at that distance from the centre of a coarse box
    origins = [(one.origin_xy[1] / grid.ratio, one.origin_xy[0] / grid.ratio) for one in particles]
    centered = tuple(dataclasses.replace(one, center_yx=(-origin[0], -origin[1]))
                     for one, origin in zip(particles, origins, strict=True))
    working = dataclasses.replace(record, pixel_size=grid.working_pixel_size)
    images = torch.from_numpy(expose_particles(working, centered, ensemble, coarse))
    start = coarse // 2 - fine // 2 / grid.ratio
    refined = pad_spectrum(torch.fft.rfft2(images), (coarse, coarse), (fine, fine), (start, start))
    low = fine // 2 - box_size // 2
    return refined[:, low:low + box_size, low:low + box_size].numpy()


def normalise_to_ring(image: np.ndarray, is_ring: np.ndarray) -> np.ndarray:
    """Give the pixels of the ring zero mean and unit sd."""
    ring = image[is_ring]
    return ((image - ring.mean()) / max(float(ring.std()), 1e-12)).astype(np.float32)
