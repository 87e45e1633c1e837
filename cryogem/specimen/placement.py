"""Where particles lie: random sub-pixel centres that keep a distance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

_JAMMING = 0.5                              # share of the area; random placement jams at 0.547
_CLUSTER_RING = 0.3                         # width of the ring around a particle, in its own distances
_EDGE = 1.0                                 # largest distances between the margin and the edge of where particles lie
_TRIES = 200                                # rounds of darts without a hit before the frame counts as full


def draw_count(mean: float, sd: float, rng: np.random.Generator) -> int:
    """Draw the number of particles of one frame: Normal(mean, sd) cut at two sd, at least 0."""
    while True:
        deviation = rng.normal()
        if abs(deviation) <= 2:
            return max(0, int(round(mean + sd * deviation)))


def place_particles(
    shape: tuple[int, int], count: int, distances: Sequence[float], margin: float, rng: np.random.Generator,
    clustering: float = 0.0, is_forbidden: np.ndarray | None = None,
) -> np.ndarray:
    """Draw centres over the frame and a margin around it, each keeping a distance from those before it.

    Frames that are too crowded for random placement, which jams at about half the area, are packed: a randomly turned
    hexagonal lattice of the wanted density, each centre moved at random as far as the distance allows.

    Parameters
    ----------
    shape : (h, w) of the frame, px.
    count : particles wanted with their centre inside the frame; the margin is filled alike.
    distances : px, evenly spaced quantiles of the distance that a particle keeps; one value is the same for all.
    margin : px around the frame in which centres may lie (particles cut by the border).
    clustering : share of the particles that are put beside another one, 0 to 1.
    is_forbidden : (h, w) bool, True where no centre may lie; the margin continues its edge.

    Returns
    -------
    (m, 2) float64 y, x centres, px, in order of placement. When the frame is full there are fewer than asked.
    """
    # they crowd at the edge of where they may lie, as they have no neighbours beyond: it is put out of sight
    field = _Field(shape, min(0.5, margin), margin + _EDGE * float(max(distances)), is_forbidden)
    free = 1.0 if is_forbidden is None else 1 - is_forbidden.mean()
    density = count / max(free * shape[0] * shape[1], 1)
    distance = float(np.quantile(distances, 0.1))
    if density * np.pi / 4 * distance ** 2 > _JAMMING:
        packed = _pack(field.low, field.high, density, distance, rng)
        placed = field.take(rng.permutation(packed[field.is_allowed(packed)]), count)
    else:
        n_anywhere = min(count, max(1, round((1 - clustering) * count)))
        placed = np.empty((0, 2))
        # clusters grow last, beside what lies there; what finds no room in them lies anywhere
        for n_wanted, is_beside in ((n_anywhere, False), (count, True), (count, False)):
            placed = _fill(placed, n_wanted, field, distances, is_beside, rng)
    return placed[_is_within(placed, shape, margin)]


@dataclass(frozen=True)
class _Field:
    """Where centres may lie, and which of them count."""

    shape: tuple[int, int]                  # (h, w) of the frame, px
    border: float                           # px by which its outermost pixels reach beyond their middles
    reach: float                            # px beyond the frame up to which centres lie
    is_forbidden: np.ndarray | None         # (h, w) bool

    @property
    def low(self) -> np.ndarray:
        """Least y, x of a centre."""
        return np.full(2, -self.reach)

    @property
    def high(self) -> np.ndarray:
        """Largest y, x of a centre."""
        return np.array(self.shape) - 1 + self.reach

    @property
    def relative_area(self) -> float:
        """Area in terms of the frame's."""
        return float(np.prod(self.high - self.low + 1) / np.prod(self.shape))

    def count_inside(self, centers: np.ndarray) -> int:
        """Return how many of (n, 2) centres lie in the frame."""
        return int(_is_within(centers, self.shape, self.border).sum())

    def take(self, centers: np.ndarray, count: int) -> np.ndarray:
        """Return the first of (n, 2) centres, up to the one with which `count` lie in the frame; all if fewer do."""
        n_inside = np.cumsum(_is_within(centers, self.shape, self.border))
        return centers[:np.searchsorted(n_inside, count) + 1] if count else centers[:0]

    def is_allowed(self, points: np.ndarray) -> np.ndarray:
        """Return (n,) bool, False for points on a forbidden pixel; points beyond the frame take the nearest pixel."""
        if self.is_forbidden is None:
            return np.ones(len(points), dtype=bool)
        nearest = np.clip(np.floor(points + 0.5).astype(int), 0, np.array(self.is_forbidden.shape) - 1)
        return ~self.is_forbidden[nearest[:, 0], nearest[:, 1]]


def _is_within(centers: np.ndarray, shape: tuple[int, int], border: float) -> np.ndarray:
    """Return (n,) bool, whether (n, 2) centres lie among the frame's pixels or up to `border` px beyond."""
    return ((centers >= -border) & (centers <= np.array(shape) - 1 + border)).all(axis=1)


def _fill(
    placed: np.ndarray, count: int, field: _Field, distances: Sequence[float], is_beside: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return `placed` with darts added that keep their distances, until `count` lie in the frame or no more find room.
    """
    failures, n_inside = _TRIES if is_beside and not len(placed) else 0, field.count_inside(placed)
    while n_inside < count and failures < _TRIES:
        n_darts = max(64, round((count - n_inside) * field.relative_area))
        own = np.interp(rng.uniform(size=n_darts), np.linspace(0, 1, len(distances)), distances)
        darts = _throw_beside(placed, own, rng) if is_beside else rng.uniform(field.low, field.high, (n_darts, 2))
        is_good = ((darts >= field.low) & (darts <= field.high)).all(axis=1) & field.is_allowed(darts)
        kept = _keep_distant(darts[is_good], own[is_good], placed)
        placed = field.take(np.concatenate([placed, kept]), count)
        failures, n_inside = 0 if len(kept) else failures + 1, field.count_inside(placed)
    return placed


def _throw_beside(placed: np.ndarray, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Throw one dart for each of `own` distances into the ring around a placed particle drawn at random."""
    radius = own * (1 + _CLUSTER_RING * rng.uniform(size=len(own)))
    angle = rng.uniform(0, 2 * np.pi, size=len(own))
    beside = placed[rng.integers(len(placed), size=len(own))]
    return beside + radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def _pack(low: np.ndarray, high: np.ndarray, density: float, distance: float, rng: np.random.Generator) -> np.ndarray:
    """Return the points of a hexagonal lattice, turned, shifted and shaken at random; closest packing at most."""
    spacing = max(np.sqrt(2 / (np.sqrt(3) * density)), distance * (1 + 1e-9))
    center, reach = (low + high) / 2, np.linalg.norm(high - low) / 2 + spacing
    steps = np.arange(-int(reach / spacing * 2), int(reach / spacing * 2) + 1)
    i, j = (one.ravel() for one in np.meshgrid(steps, steps))
    points = spacing * np.stack([j * np.sqrt(3) / 2, i + j / 2], axis=-1) + rng.uniform(0, spacing, size=2)
    angle = rng.uniform(0, 2 * np.pi)
    points = points @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) + center
    radius = (spacing - distance) / 2 * np.sqrt(rng.uniform(size=len(points)))
    turn = rng.uniform(0, 2 * np.pi, size=len(points))
    points = points + radius[:, None] * np.stack([np.sin(turn), np.cos(turn)], axis=-1)
    return points[((points >= low) & (points <= high)).all(axis=1)]


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
