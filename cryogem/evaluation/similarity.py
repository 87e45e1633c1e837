"""Similarity maps, Figure 3 of the paper: where on a micrograph the encoder sees what it sees at a chosen place."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional

from cryogem.evaluation.frames import Frame
from cryogem.imaging.measurement import find_background

_TOPAZ_BORDER = 35                         # px that the detector takes off each side of a frame
_TOPAZ_STRIP = 128                         # rows at once: a whole frame of 1024² would take 3 GB
_TOPAZ_CELL = 4                            # px, side of the cells its features are averaged over; divides the strip
Encoder = Callable[[Tensor], Tensor]        # (1, 1, h, w) image -> (1, c, h', w') features


@dataclass(frozen=True)
class SimilarityMap:
    """Cosine similarity of all places of one micrograph to one query place."""

    encoder: str                            # which network
    query: str                              # particle or background
    query_yx: tuple[float, float]           # px
    similarity: np.ndarray                  # (h, w) -1 to 1
    auc: float | None                       # area under the ROC curve against the particle mask; None without particles


def make_encoder(network: nn.Module, level: int = -2) -> Encoder:
    """Return the features of one level of a trained generator; the last but one sees about a particle."""
    def encode(image: Tensor) -> Tensor:
        # what else the network is given in training, of a simulation, is not known of a real micrograph: nothing
        n_others = int(getattr(network, 'n_inputs', 1)) - 1
        others = torch.zeros(image.shape[0], n_others, *image.shape[2:])
        features = network.encode(torch.cat([image, others], dim=1))    # type: ignore[operator]
        return features[max(level, -len(features))]

    return encode


def draw_maps(name: str, encoder: Encoder, frame: Frame, diameter_px: float, queries: dict[str, tuple[float, float]],
              radius: float) -> list[SimilarityMap]:
    """Draw the similarity map of each query place on a micrograph.

    Parameters
    ----------
    queries : (y, x) in px by their names.
    radius : px around every place over which its features are averaged, before they are compared: a particle is more
        than one cell of them, and the middle of a hollow one looks like what is around it.
    """
    is_particle = ~find_background(frame.contrast.shape, frame.centers_yx, diameter_px / 1.2)
    features = _average(_encode(encoder, frame.contrast), radius, frame.contrast.shape)
    maps = []
    for query, place in queries.items():
        similarity = _compare(features, place, frame.contrast.shape)
        score = similarity if query == 'particle' else -similarity
        maps.append(SimilarityMap(name, query, place, similarity, compute_auc(score, is_particle)))
    return maps


def choose_queries(frame: Frame, diameter_px: float, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Choose an ordinary particle well inside the frame and the place farthest from all particles.

    Ordinary is one on ice as bright as that of most: on dirt, or in a dark corner, a place is like its surroundings. Of
    the ordinary half one is drawn.
    """
    h, w = frame.contrast.shape
    border = diameter_px
    is_inner = ((frame.centers_yx > border) & (frame.centers_yx < np.array([h, w]) - border)).all(axis=1)
    inner = frame.centers_yx[is_inner]
    queries = {}
    if len(inner):
        levels = np.array([frame.contrast[window].mean() for window in _list_windows(inner, diameter_px, (h, w))])
        ordinary = inner[np.argsort(abs(levels - np.median(levels)), kind='stable')[:max(1, len(inner) // 2)]]
        y, x = ordinary[int(rng.integers(len(ordinary)))]
        queries['particle'] = (float(y), float(x))
    grid = np.stack(np.meshgrid(*(np.linspace(min(border, n / 2), max(n - border, n / 2), 40) for n in (h, w)),
                                indexing='ij'), axis=-1).reshape(-1, 2)
    if len(frame.centers_yx):
        distances = np.linalg.norm(grid[:, None] - frame.centers_yx[None], axis=-1).min(axis=1)
        y, x = grid[int(distances.argmax())]
        queries['background'] = (float(y), float(x))
    return queries


def _list_windows(centers_yx: np.ndarray, side: float, shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Return the squares of two sides around (n, 2) centres, cut at the edges of the frame."""
    low = np.maximum(np.rint(centers_yx - side).astype(int), 0)
    high = np.minimum(np.rint(centers_yx + side).astype(int) + 1, np.array(shape))
    return [(slice(y0, y1), slice(x0, x1)) for (y0, x0), (y1, x1) in zip(low.tolist(), high.tolist(), strict=True)]


def compute_auc(score: np.ndarray, is_positive: np.ndarray) -> float | None:
    """Return the probability that a positive px scores higher than a negative one; None if all are of one kind."""
    ranks = rankdata(score.ravel())
    positive = is_positive.ravel()
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return None
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


@torch.inference_mode()
def _encode(encoder: Encoder, contrast: np.ndarray) -> Tensor:
    """Return the (c, h', w') features of the (h, w) micrograph, about their mean."""
    image = torch.from_numpy(np.ascontiguousarray(contrast, dtype=np.float32))[None, None]
    features = encoder(image)
    return (features - features.mean(dim=(2, 3), keepdim=True))[0]      # what all places share says nothing


def _average(features: Tensor, radius: float, shape: tuple[int, ...]) -> Tensor:
    """Return the (c, h', w') means of features over squares of about two radii (px), cut at the edges of the frame."""
    kernel = [2 * round(radius * n / length) + 1 for length, n in zip(shape, features.shape[1:], strict=True)]
    return functional.avg_pool2d(features[None], kernel, stride=1, padding=[one // 2 for one in kernel],
                                 count_include_pad=False)[0]


def _compare(features: Tensor, place_yx: tuple[float, float], shape: tuple[int, ...]) -> np.ndarray:
    """Return the (h, w) similarity of all places to the features nearest to a place; cells between are interpolated."""
    pitch = [length / n for length, n in zip(shape, features.shape[1:], strict=True)]           # px of a cell
    y, x = torch.meshgrid(*((torch.arange(n) + 0.5) * step - 0.5 for n, step in
                            zip(features.shape[1:], pitch, strict=True)), indexing='ij')
    query = features.flatten(1)[:, torch.hypot(y - place_yx[0], x - place_yx[1]).argmin()]
    similarity = functional.cosine_similarity(features, query[:, None, None], dim=0)
    return functional.interpolate(similarity[None, None], size=tuple(shape), mode='bilinear',
                                  align_corners=False)[0, 0].numpy()


def make_topaz_encoder(network: nn.Module) -> Encoder:
    """Return the features of Topaz's detector, over a frame mirrored at its edges so that its places keep theirs.

    Strip by strip, averaged over cells of a few px, much less than a particle: the same features in bounded memory.
    """
    def encode(image: Tensor) -> Tensor:
        padded = functional.pad(image, (_TOPAZ_BORDER,) * 4, mode='reflect')
        height = image.shape[2]
        return torch.cat([functional.avg_pool2d(
            network(padded[:, :, top:min(top + _TOPAZ_STRIP, height) + 2 * _TOPAZ_BORDER]), _TOPAZ_CELL,
            ceil_mode=True) for top in range(0, height, _TOPAZ_STRIP)], dim=2)

    return encode
