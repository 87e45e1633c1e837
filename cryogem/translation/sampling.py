"""Positions for the contrastive loss, drawn from the particle region and from the background."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Positions:
    """Up to n positions in each image of a batch."""

    index: Tensor                           # (b, n) int64, row-major px of the feature map
    is_drawn: Tensor                        # (b, n) bool, False where the region had no position left


@dataclass(frozen=True)
class RegionPositions:
    """Positions of the two regions that the contrastive loss tells apart."""

    particle: Positions
    background: Positions


def reduce_mask(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """Reduce a particle mask to the size of a feature map.

    Parameters
    ----------
    mask : (b, 1, h, w) bool, True on particles.
    shape : (h', w') of the feature map.

    Returns
    -------
    (b, 1, h', w') bool, True where particles cover more than half of the px.
    """
    if tuple(mask.shape[-2:]) == tuple(shape):
        return mask
    return functional.adaptive_avg_pool2d(mask.float(), (shape[0], shape[1])) > 0.5


def draw_positions(region: Tensor, n: int, generator: torch.Generator) -> Positions:
    """Draw up to `n` different positions from the region of each image, each subset of it equally likely.

    Parameters
    ----------
    region : (b, 1, h, w) bool, True where positions may lie.
    n : positions wanted; a smaller region gives all it has, an empty one none.
    generator : source of random numbers, on the CPU so that every device draws the same.
    """
    flat = region.flatten(1)
    n = min(n, flat.shape[1])
    # The n largest of independent uniform numbers are a sample without replacement; outside the region all are below 0.
    scores = torch.rand(flat.shape, generator=generator).to(flat.device).masked_fill(~flat, -1.0)
    best, index = scores.topk(n, dim=1)
    return Positions(index, best >= 0)


def draw_region_positions(mask: Tensor, n: int, generator: torch.Generator) -> RegionPositions:
    """Draw up to `n` positions in the particles and up to `n` in the background of `mask` (b, 1, h, w) bool."""
    particle = draw_positions(mask, n, generator)
    return RegionPositions(particle, draw_positions(~mask, n, generator))


def gather_features(features: Tensor, positions: Positions) -> Tensor:
    """Return the vectors (b, n, c) of `features` (b, c, h, w) at `positions`; rows not drawn are to be ignored."""
    channels = features.shape[1]
    index = positions.index.unsqueeze(1).expand(-1, channels, -1)
    return features.flatten(2).gather(2, index).transpose(1, 2)
