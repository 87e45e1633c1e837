"""Classifier two-sample test: can a small network tell generated micrographs from real ones it has not seen?

Trained on crops of some micrographs and asked about crops of others, in turn. An area under the ROC curve of 0.5 is
chance, 1 is certainty (Lopez-Paz and Oquab 2017, arXiv 1610.06545).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cryogem.evaluation.features import draw_crops

_CROP = 64                                  # px
_LAYERS = ((1, 16, 7), (16, 16, 3), (16, 16, 3))        # channels in and out, px
_TEST_CROPS = 24                            # per micrograph
_STEPS, _BATCH, _LEARNING_RATE = 80, 32, 4e-3
_FOLDS = 3
_RESAMPLES = 2000
_CONFIDENCE = (2.5, 97.5)                   # %


@dataclass(frozen=True)
class TwoSampleTest:
    """How well real and generated micrographs were told apart."""

    auc: float                              # mean over folds and seeds
    low: float                              # 95 % confidence interval, micrographs resampled
    high: float
    n_micrographs: tuple[int, int]          # generated, real
    n_crops: int                            # judged, of each kind and seed

    @property
    def is_chance(self) -> bool:
        """Whether the confidence interval does not lie above 0.5; below it, cross-validation of few has gone astray."""
        return self.low <= 0.5


def tell_apart(
    generated: Sequence[np.ndarray], real: Sequence[np.ndarray], seeds: Sequence[int]
) -> TwoSampleTest | None:
    """Train and test the classifier on (h, w) micrographs in contrast units, equal numbers of both kinds.

    Returns
    -------
    None for fewer than two micrographs of a kind: none would be left to test on.
    """
    n = min(len(generated), len(real))
    if n < 2:
        return None
    wins = np.full((len(seeds), n, n), np.nan)
    for s, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        groups = [[images[i] for i in rng.permutation(len(images))[:n]] for images in (generated, real)]
        for held_out in np.array_split(np.arange(n), min(_FOLDS, n)):
            kept = np.setdiff1d(np.arange(n), held_out)
            network = _train([[group[i] for i in kept] for group in groups], rng)
            scores = [[_score(network, group[i], rng) for i in held_out] for group in groups]
            wins[s][np.ix_(held_out, held_out)] = [[_count_wins(a, b) for b in scores[1]] for a in scores[0]]
    low, high = _resample(wins, np.random.default_rng(seeds[0]))
    return TwoSampleTest(float(np.nanmean(wins)), low, high, (n, n), n * _TEST_CROPS)


def tell_halves_apart(images: Sequence[np.ndarray], seeds: Sequence[int]) -> TwoSampleTest | None:
    """Tell random halves of (h, w) micrographs of one kind apart, other halves with each seed: what chance looks like.

    Few micrographs can be split by luck into thick and thin ice, so the interval spans those of all seeds.
    """
    half, tests = len(images) // 2, []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(images))
        tests.append(tell_apart([images[i] for i in order[:half]], [images[i] for i in order[half:2 * half]], (seed,)))
    known = [one for one in tests if one is not None]
    if not known:
        return None
    return TwoSampleTest(float(np.mean([one.auc for one in known])), min(one.low for one in known),
                         max(one.high for one in known), known[0].n_micrographs, known[0].n_crops)


def _train(groups: Sequence[Sequence[np.ndarray]], rng: np.random.Generator) -> nn.Module:
    """Train a classifier of crops; the first group of micrographs is the generated one."""
    torch_rng = torch.Generator().manual_seed(int(rng.integers(2 ** 31)))
    network = _Network(torch_rng)
    optimizer = torch.optim.AdamW(network.parameters(), _LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, _STEPS)
    labels = torch.tensor([1.0] * (_BATCH // 2) + [0.0] * (_BATCH // 2))
    for _ in range(_STEPS):
        crops = np.concatenate([_draw_batch(group, _BATCH // 2, rng) for group in groups])
        loss = functional.binary_cross_entropy_with_logits(network(_to_tensor(crops))[:, 0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


class _Network(nn.Module):
    """Three convolutions; of each the logarithm of its mean energy in the crop is judged, and the last one's mean.

    Energies tell noise of different spectra apart at once, where means of rectified features learn it slowly.
    """

    def __init__(self, rng: torch.Generator):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(above, below, size, stride=2) for above, below, size in _LAYERS)
        n_judged = sum(layer[1] for layer in _LAYERS) + _LAYERS[-1][1]
        self.norm, self.last = nn.BatchNorm1d(n_judged), nn.Linear(n_judged, 1)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, generator=rng)

    def forward(self, crops: Tensor) -> Tensor:
        """Return the (b, 1) scores of (b, 1, h, w) crops."""
        judged: list[Tensor] = []
        for convolution in self.convolutions:
            crops = convolution(crops)
            judged.append(torch.log(crops.square().mean(dim=(2, 3)) + 1e-6))
            crops = functional.relu(crops)
        return self.last(self.norm(torch.cat([*judged, crops.mean(dim=(2, 3))], dim=1)))


def _draw_batch(images: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw crops of random micrographs, turned and mirrored at random."""
    crops = []
    for i in rng.integers(len(images), size=count):
        crop = draw_crops(images[i], 1, min(_CROP, *images[i].shape), rng)[0]
        crop = np.rot90(crop, int(rng.integers(4)))
        crops.append(crop[::-1] if rng.integers(2) else crop)
    return np.stack(crops)


@torch.inference_mode()
def _score(network: nn.Module, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the (n,) scores of crops of one micrograph; higher looks generated."""
    return network(_to_tensor(draw_crops(image, _TEST_CROPS, min(_CROP, *image.shape), rng)))[:, 0].numpy()


def _to_tensor(crops: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(crops[:, None], dtype=np.float32))


def _count_wins(generated: np.ndarray, real: np.ndarray) -> float:
    """Return the share of pairs of crops in which the generated one has the higher score; ties count half."""
    return float((np.sign(generated[:, None] - real) / 2 + 0.5).mean())


def _resample(wins: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return the confidence interval of the mean of (seeds, n, n) wins when seeds and micrographs are drawn anew.

    Pairs of different folds were never compared and are left out (NaN).
    """
    n_seeds, n, _ = wins.shape
    means = []
    for _ in range(_RESAMPLES):
        seeds = rng.integers(n_seeds, size=n_seeds)
        weights = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(2)]
        table = wins[seeds].mean(axis=0)
        pairs = np.outer(*weights) * ~np.isnan(table)
        if pairs.sum():
            means.append(float((np.nan_to_num(table) * pairs).sum() / pairs.sum()))
    low, high = np.percentile(means, _CONFIDENCE)
    return float(low), float(high)
