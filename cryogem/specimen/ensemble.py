"""The maps of a sample with their shares: what particles are drawn from and projected with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cryogem.errors import ConfigError
from cryogem.specimen.projection import ParticleProjector, choose_oversampling
from cryogem.specimen.volume import PreparedVolume, grow_box


@dataclass(frozen=True)
class Ensemble:
    """Maps in one box at one pixel size, ready to project (density and mask in channels 0 and 1)."""

    volumes: tuple[PreparedVolume, ...]
    shares: tuple[float, ...]               # of the particles, adding up to 1
    projectors: tuple[ParticleProjector, ...]

    @property
    def box_size(self) -> int:
        """Box of the projections, px."""
        return self.projectors[0].box_size

    @property
    def diameter(self) -> float:
        """Diameter of the largest map, Å."""
        return max(volume.diameter for volume in self.volumes)

    def draw_conformers(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return (n,) map indices drawn by their shares."""
        return rng.choice(len(self.volumes), size=n, p=self.shares)


def build_ensemble(
    volumes: Sequence[PreparedVolume], weights: Sequence[float], device: str | torch.device = 'cpu',
) -> Ensemble:
    """Bring maps into one box and make their projectors on a device.

    Raises
    ------
    ConfigError : a weight is negative, or all are zero.
    """
    if not (min(weights) >= 0 and 0 < sum(weights) < float('inf')):           # neither holds for a nan
        raise ConfigError(f'volume has weights {", ".join(f"{one:g}" for one in weights)}; '
                          'give weights of zero or more, not all zero')
    box = max(volume.density.shape[0] for volume in volumes)
    grown = tuple(grow_box(volume, box) for volume in volumes)
    oversampling = choose_oversampling(box, len(grown))
    projectors = tuple(
        ParticleProjector(torch.from_numpy(volume.density).to(device), torch.from_numpy(volume.mask).to(device),
                          oversampling)
        for volume in grown)
    return Ensemble(grown, tuple(weight / sum(weights) for weight in weights), projectors)
