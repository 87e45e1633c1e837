"""Micrographs as they are judged: real, generated and control ones in the same contrast units, made the same way."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryogem.imaging.grey import GreyScale, measure_grey_scale
from cryogem.records import Micrograph


@dataclass(frozen=True)
class Frame:
    """One micrograph to be judged, with the truth where it is known."""

    name: str
    contrast: np.ndarray                    # (h, w) float32, contrast units of its own grey scale, dark particles
    centers_yx: np.ndarray                  # (n, 2) px: people's picks, or the particles a picker should find
    record: Micrograph | None = None        # truth of a generated one
    clean: np.ndarray | None = None         # (h, w) its noise-free twin, contrast units of the record
    unit: float = 1.0                       # contrast units of the record in one of `contrast`

    @property
    def painted_yx(self) -> np.ndarray:
        """Centres of all painted particles, also those a picker need not find, px (n, 2)."""
        particles = self.record.particles if self.record else ()
        return np.array([one.center_yx for one in particles]).reshape(-1, 2)


def build_frame(
    name: str, image: np.ndarray, centers_yx: np.ndarray, sign: int, record: Micrograph | None = None,
    clean: np.ndarray | None = None,
) -> Frame:
    """Bring a micrograph to its own contrast units.

    Parameters
    ----------
    image : (h, w) grey values.
    sign : -1 where particles of the set are bright in grey values, so that they become dark.
    """
    scale = measure_grey_scale(image)
    unit = scale.sd / abs(record.grey_sd) if record else 1.0
    return Frame(name, GreyScale(scale.mean, sign * scale.sd).normalise(image), centers_yx, record, clean, unit)


def count_particles(frames: Sequence[Frame]) -> int:
    """Return how many particles are marked on all frames."""
    return sum(len(one.centers_yx) for one in frames)
