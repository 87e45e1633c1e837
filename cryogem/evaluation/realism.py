"""Realism: every distance between sets of micrographs and the real ones, with floors, seeds and equal numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cryogem.evaluation.classifier import TwoSampleTest, tell_apart, tell_halves_apart
from cryogem.evaluation.comparison import Comparison, compare, merge
from cryogem.evaluation.features import compute_frechet_distance, compute_kernel_distance, draw_crops
from cryogem.evaluation.frames import Frame
from cryogem.evaluation.statistics import METRICS, Statistics, measure_statistics

# crops (n, h, w) of zero mean and unit sd -> (n · k, d) features
Extract = Callable[[np.ndarray], np.ndarray]
MakeFrames = Callable[[int], Sequence[Frame]]           # seed -> micrographs of one arm


@dataclass(frozen=True)
class Sampling:
    """How micrographs are sampled, alike for every arm."""

    crop_size: int                          # px
    crops_per_micrograph: int
    diameter_px: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """What was measured on one micrograph with one seed."""

    statistics: Statistics
    features: dict[str, np.ndarray]         # by network, (k, d)


def choose_crop_size(shapes: Sequence[tuple[int, ...]], wanted: int | None, default: int) -> int:
    """Return the side of the crops: what is said, else the default, but half of the smallest frame at most."""
    return wanted or min(default, min(min(shape) for shape in shapes) // 2)


def measure_arm(
    make_frames: MakeFrames, sampling: Sampling, networks: Mapping[str, Extract]
) -> list[list[Measured]]:
    """Measure the micrographs of an arm with each seed; statistics of the same micrographs are measured once."""
    measured: list[list[Measured]] = []
    before: Sequence[Frame] = ()
    for seed in sampling.seeds:
        frames = make_frames(seed)
        known = [one.statistics for one in measured[-1]] if measured and frames is before else None
        measured.append(measure_frames(frames, sampling, networks, seed, known))
        before = frames
    return measured


def measure_frames(
    frames: Sequence[Frame], sampling: Sampling, networks: Mapping[str, Extract], seed: int,
    statistics: Sequence[Statistics] | None = None,
) -> list[Measured]:
    """Measure micrographs; the seed decides which crops the networks see, `statistics` may be known already."""
    measured = []
    for index, frame in enumerate(frames):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
        crops = draw_crops(frame.contrast, sampling.crops_per_micrograph, sampling.crop_size, rng) if networks else None
        features = {name: extract(crops) for name, extract in networks.items()} if crops is not None else {}
        known = statistics[index] if statistics else measure_statistics(frame, sampling.diameter_px)
        measured.append(Measured(known, features))
    return measured


def compare_arm(
    arm: Sequence[Sequence[Measured]], real: Sequence[Sequence[Measured]], sampling: Sampling
) -> dict[str, Comparison]:
    """Compare an arm with the real micrographs by every statistic and network.

    Parameters
    ----------
    arm, real : for each seed, what was measured on each micrograph.

    Returns
    -------
    By statistic, and for each network ``frechet_NAME`` and ``kernel_NAME``; empty for fewer than two real micrographs.
    """
    distances: dict[str, Callable[[Sequence[Measured], Sequence[Measured]], float]] = {}
    for metric in METRICS:
        distances[metric.key] = _on_statistics(metric.distance)
    for network in real[0][0].features:
        distances[f'frechet_{network}'] = _on_features(network, compute_frechet_distance)
        distances[f'kernel_{network}'] = _on_features(network, compute_kernel_distance)
    found = {}
    for key, distance in distances.items():
        own = [compare(a, r, distance, np.random.default_rng(seed))
               for a, r, seed in zip(arm, real, sampling.seeds, strict=True)]
        known = [one for one in own if one is not None]
        if known:
            found[key] = merge(known)
    return found


def tell_arms_apart(arms: Mapping[str, Sequence[Frame]], real: Sequence[Frame], seeds: Sequence[int]
              ) -> dict[str, TwoSampleTest]:
    """Let the classifier tell each arm from the real micrographs, and one half of these from the other."""
    images = [one.contrast for one in real]
    found = {arm: tell_apart([one.contrast for one in frames], images, seeds) for arm, frames in arms.items()}
    found['real'] = tell_halves_apart(images, seeds)
    return {arm: one for arm, one in found.items() if one is not None}


def _on_statistics(distance: Callable[[Sequence[Statistics], Sequence[Statistics]], float]
                   ) -> Callable[[Sequence[Measured], Sequence[Measured]], float]:
    return lambda generated, real: distance([one.statistics for one in generated], [one.statistics for one in real])


def _on_features(network: str, distance: Callable[[np.ndarray, np.ndarray], float]
                 ) -> Callable[[Sequence[Measured], Sequence[Measured]], float]:
    def compare_features(generated: Sequence[Measured], real: Sequence[Measured]) -> float:
        # the real ones come first: their spread scales the channels
        return distance(*(np.concatenate([one.features[network] for one in group]) for group in (real, generated)))

    return compare_features
