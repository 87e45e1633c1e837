"""Placement: ours against the published search of all free pixels, at the density of 97 particles on 1024².

The published cost per particle grows with the frame; ours must not.

Run: python benchmarks/placement.py
"""

from functools import partial

import numpy as np
from reference import place_by_search
from timing import print_ratio, time_pair

from cryogem.specimen.placement import place_particles

_DISTANCE = 60                              # px between centres
CASES = ((1024, 97, 5), (4096, 1560, 1))    # side of the frame (px), particles, interleaved pairs


def main() -> None:
    """Print the cost per particle on a small and on a large frame."""
    costs = []
    for side, count, n_pairs in CASES:
        shape = (side, side)
        place = partial(_place, shape, count)
        reference, ours = time_pair(
            partial(place_by_search, shape, count, _DISTANCE, np.random.default_rng(0)), place, n_pairs)
        placed = len(place())
        costs.append(ours / placed)
        print_ratio(f'{placed} of {count} particles on {side}², each', reference / count, ours / placed, '-')
    print(f'ours, a particle at {CASES[1][0]}² over one at {CASES[0][0]}²: {costs[1] / costs[0]:.2f}   goal at most 1')


def _place(shape: tuple[int, int], count: int) -> np.ndarray:
    return place_particles(shape, count, (_DISTANCE,), 0, np.random.default_rng(0))


if __name__ == '__main__':
    main()
