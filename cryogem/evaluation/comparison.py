"""Distances that mean something: every one beside what two halves of the real set differ by, at equal numbers.

The real micrographs are split in halves at random, several times. The floor is the mean distance of the two halves; the
distance of a generated set is that of as many of its micrographs, put in the place of the second half. So both have the
same numbers, and a bias of small numbers cancels in their ratio.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

N_SPLITS = 20
Measured = TypeVar('Measured')
Distance = Callable[[Sequence[Measured], Sequence[Measured]], float]


@dataclass(frozen=True)
class Comparison:
    """A distance and its floor, over random halves of the real set."""

    distance: float                         # mean over the splits
    spread: float                           # its sd
    floor: float                            # mean of real against real
    floor_spread: float
    n_micrographs: int                      # on either side

    @property
    def ratio(self) -> float | None:
        """The distance in units of the floor; None where the floor is not above zero (an unbiased estimate may be)."""
        return self.distance / self.floor if self.floor > 0 else None

    @property
    def excess(self) -> float:
        """How far the distance lies above the floor, in sd of the floor."""
        return (self.distance - self.floor) / max(self.floor_spread, 1e-12)


def compare(
    generated: Sequence[Measured], real: Sequence[Measured], distance: Distance, rng: np.random.Generator,
    n_splits: int = N_SPLITS,
) -> Comparison | None:
    """Compare what was measured on each generated micrograph with what was measured on each real one.

    Returns
    -------
    None for fewer than two real micrographs or without generated ones: nothing says what is near.
    """
    values, floors, half = [], [], 0
    for chosen, first, second in _draw_halves(generated, real, rng, n_splits):
        values.append(distance(chosen, first))
        floors.append(distance(second, first))
        half = len(first)
    if not half:
        return None
    return Comparison(float(np.mean(values)), float(np.std(values)), float(np.mean(floors)), float(np.std(floors)),
                      half)


def merge(comparisons: Sequence[Comparison]) -> Comparison:
    """Return the mean of comparisons with different seeds; spreads hold what splits and seeds differ by."""
    def pool(means: list[float], spreads: list[float]) -> tuple[float, float]:
        return float(np.mean(means)), float(np.sqrt(np.mean(np.square(spreads)) + np.var(means)))

    distance = pool([one.distance for one in comparisons], [one.spread for one in comparisons])
    floor = pool([one.floor for one in comparisons], [one.floor_spread for one in comparisons])
    return Comparison(*distance, *floor, comparisons[0].n_micrographs)


def _draw_halves(
    generated: Sequence[Measured], real: Sequence[Measured], rng: np.random.Generator, n_splits: int
) -> Iterator[tuple[list[Measured], list[Measured], list[Measured]]]:
    """Yield generated micrographs, one half of the real ones and the other, all three of the same number."""
    half = min(len(real) // 2, len(generated))
    # a stream of its own, so that all sets of at least half as many micrographs see the same halves
    chooser = rng.spawn(1)[0]
    for _ in range(n_splits if half else 0):
        order = rng.permutation(len(real))
        # sets of one size share the order, so that a set compared with itself stands exactly at the floor
        own = order[half:2 * half] if len(generated) == len(real) else chooser.permutation(len(generated))[:half]
        yield [generated[i] for i in own], [real[i] for i in order[:half]], [real[i] for i in order[half:2 * half]]
