"""Where particles lie: random sub-pixel centres that keep a distance."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

_TRIES = 200                                # rounds of darts without a hit before the frame counts as full


def draw_count(mean: float, sd: float, rng: np.random.Generator) -> int:
    """Draw the number of particles of one frame: Normal(mean, sd) cut at two sd, at least 0."""
    while True:
        deviation = rng.normal()
        if abs(deviation) <= 2:
            return max(0, int(round(mean + sd * deviation)))


def place_particles(
    shape: tuple[int, int], count: int, distances: Sequence[float], margin: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw centres uniformly over the frame and a margin around it, each keeping a distance from those before it.

    Parameters
    ----------
    shape : (h, w) of the frame, px.
    count : particles wanted with their centre inside the frame; the margin is filled at the same density.
    distances : px, evenly spaced quantiles of the distance that a particle keeps; one value is the same for all.
    margin : px around the frame in which centres may lie (particles cut by the border).

    Returns
    -------
    (m, 2) float64 y, x centres, px, in order of placement. When the frame is full there are fewer than asked.
    """
    low = np.array([-margin, -margin])
    high = np.array([shape[0] - 1 + margin, shape[1] - 1 + margin])
    wanted = int(round(count * np.prod(high - low + 1) / (shape[0] * shape[1])))
    placed = np.empty((0, 2))
    failures = 0
    while len(placed) < wanted and failures < _TRIES:
        darts = rng.uniform(low, high, size=(max(64, wanted - len(placed)), 2))
        own = np.interp(rng.uniform(size=len(darts)), np.linspace(0, 1, len(distances)), distances)
        kept = _keep_distant(darts, own, placed)[: wanted - len(placed)]
        failures = 0 if len(kept) else failures + 1
        placed = np.concatenate([placed, kept])
    return placed


def _keep_distant(darts: np.ndarray, own: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """Return the darts that keep their `own` distance from what is placed and from the darts kept before them."""
    if len(placed):
        nearest, _ = cKDTree(placed).query(darts)
        darts, own = darts[nearest >= own], own[nearest >= own]
    is_kept = np.ones(len(darts), dtype=bool)
    for first, second in sorted(cKDTree(darts).query_pairs(own.max())) if len(darts) else []:
        if is_kept[first] and np.hypot(*(darts[first] - darts[second])) < own[second]:
            is_kept[second] = False
    return darts[is_kept]


def measure_nearest_distances(centers: np.ndarray) -> np.ndarray:
    """Return the distance of each of (n, 2) centres to its nearest neighbour, px; empty for fewer than two."""
    if len(centers) < 2:
        return np.empty(0)
    distances, _ = cKDTree(centers).query(centers, k=2)
    return distances[:, 1]
