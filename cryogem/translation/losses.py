"""Losses of the translation: least-squares adversarial, mask-guided contrastive, gradient penalty."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cryogem.translation.sampling import Positions, RegionPositions, gather_features

PROJECTION_WIDTH = 256
Count = Callable[[Tensor], Tensor]          # of queries here -> their mean number over all processes


class ProjectionHeads(nn.Module):
    """Two linear layers per encoder layer that map its vectors to the unit sphere of the contrastive loss.

    Parameters
    ----------
    channels : maps of each encoder layer.
    """

    def __init__(self, channels: Sequence[int], width: int = PROJECTION_WIDTH):
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(one, width), nn.ReLU(), nn.Linear(width, width)) for one in channels)

    def forward(self, layer: int, vectors: Tensor) -> Tensor:
        """Project the `vectors` (b, n, channels[layer]) of one layer: (b, n, width), each of unit length."""
        return functional.normalize(self.heads[layer](vectors), dim=-1)


@dataclass(frozen=True)
class RegionVectors:
    """Unit vectors of one layer at the positions drawn in one region."""

    query: Tensor                           # (b, n, c) from the generated image
    key: Tensor                             # (b, n, c) from the noisy simulation, same positions
    is_drawn: Tensor                        # (b, n) bool


def compute_contrastive_loss(
    heads: ProjectionHeads,
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    positions: Sequence[RegionPositions | Positions],
    temperature: float,
    count: Count = lambda n: n,
) -> Tensor:
    """Return the contrastive loss, averaged over encoder layers.

    Parameters
    ----------
    queries : per layer (b, c, h, w), features of the generated image.
    keys : per layer (b, c, h, w), features of the noisy simulation it was made from; detached here.
    positions : per layer, where to compare: in two regions (guided by the mask), or anywhere (plain CUT).
    temperature : divides all similarities.
    count : with several processes, gives the mean number of queries over them, so that the mean of their losses is the
        loss of all crops.
    """
    total = queries[0].new_zeros(())
    for layer, (query, key, where) in enumerate(zip(queries, keys, positions, strict=True)):
        if isinstance(where, RegionPositions):
            regions = [_project(heads, layer, query, key, one) for one in (where.particle, where.background)]
            total = total + compute_layer_contrast(regions[0], regions[1], temperature, count)
        else:
            total = total + compute_patch_contrast(_project(heads, layer, query, key, where), temperature, count)
    return total / len(queries)


def _project(heads: ProjectionHeads, layer: int, query: Tensor, key: Tensor, region: Positions) -> RegionVectors:
    with torch.no_grad():
        key_vectors = heads(layer, gather_features(key, region))
    return RegionVectors(heads(layer, gather_features(query, region)), key_vectors, region.is_drawn)


def compute_layer_contrast(
    particle: RegionVectors, background: RegionVectors, temperature: float, count: Count = lambda n: n
) -> Tensor:
    """Return the mask-guided contrastive loss of one layer.

    For a query q of one region, k+ is the key at its own position and the k- are all keys of the other region of
    the same image: ``-log(exp(q·k+/t) / (exp(q·k+/t) + sum_j exp(q·k-_j/t)))``, averaged over the queries of both
    regions and all images. Where an image lacks one region its queries have nothing to be told apart from and are
    left out; without any query left the loss is zero.
    """
    first, n_first = _sum_region_contrast(particle, background, temperature)
    second, n_second = _sum_region_contrast(background, particle, temperature)
    return (first + second) / count((n_first + n_second).float()).clamp(min=1e-3)


def compute_patch_contrast(anywhere: RegionVectors, temperature: float, count: Count = lambda n: n) -> Tensor:
    """Return the contrastive loss of one layer without a mask (CUT, Park et al. 2020, arXiv 2007.15651).

    As `compute_layer_contrast`, but the k- of a query are the keys of all other positions of its image.
    """
    similarity = anywhere.query @ anywhere.key.transpose(1, 2) / temperature
    similarity = similarity.masked_fill(~anywhere.is_drawn.unsqueeze(1), -torch.inf)
    own = torch.diagonal(similarity, dim1=1, dim2=2)
    is_counted = anywhere.is_drawn & (anywhere.is_drawn.sum(1, keepdim=True) > 1)
    losses = (similarity.logsumexp(-1) - own).masked_fill(~is_counted, 0.0)
    return losses.sum() / count(is_counted.sum().float()).clamp(min=1e-3)


def _sum_region_contrast(own: RegionVectors, other: RegionVectors, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the summed loss of the queries of `own` against the keys of `other`, and their number."""
    positive = (own.query * own.key).sum(-1, keepdim=True) / temperature
    negative = own.query @ other.key.transpose(1, 2) / temperature
    negative = negative.masked_fill(~other.is_drawn.unsqueeze(1), -torch.inf)
    losses = torch.cat([positive, negative], dim=-1).logsumexp(-1) - positive.squeeze(-1)
    is_counted = own.is_drawn & other.is_drawn.any(1, keepdim=True)
    return losses.masked_fill(~is_counted, 0.0).sum(), is_counted.sum()


def compute_discriminator_loss(scores_real: Tensor, scores_generated: Tensor) -> Tensor:
    """Return the least-squares loss that pulls scores of real crops to 1 and of generated ones to 0."""
    return 0.5 * ((scores_real - 1).square().mean() + scores_generated.square().mean())


def compute_generator_loss(scores_generated: Tensor) -> Tensor:
    """Return the least-squares loss that pulls the scores of generated crops to 1."""
    return (scores_generated - 1).square().mean()


def compute_gradient_penalty(scores_real: Tensor, real: Tensor) -> Tensor:
    """Return R1: how steeply the scores of real crops change with their px, squared.

    Keeps the discriminator flat around the few real crops (Mescheder et al. 2018, arXiv 1801.04406). It is the mean
    over px of the squared gradient of the mean score times the number of px, so that it does not depend on the size
    of the crops.

    Parameters
    ----------
    scores_real : (b, 1, h', w') made from `real`.
    real : (b, 1, h, w) that requires gradients.
    """
    n_px = real.shape[-2] * real.shape[-1]
    integrated = scores_real.mean(dim=(1, 2, 3)).sum() * n_px
    (gradient,) = torch.autograd.grad(integrated, real, create_graph=True)
    return gradient.square().mean()
