"""A made-up detector whose noise no spectrum can express, and a distance that sees it."""

import numpy as np
import torch

from cryogem.evaluation.features import TopazNetwork, compute_frechet_distance, extract_features
from cryogem.translation.pairs import SimulatedCrop
from cryogem.translation.textures import draw_textures

SIDE = 96                                   # px
_RADIUS = 9.0                               # px of the particles


def draw_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw correlated Gaussian noise of unit variance: what a spectrum can express."""
    white = rng.standard_normal((size, size))
    smooth = (white + np.roll(white, 1, 0) + np.roll(white, 1, 1) + np.roll(white, (1, 1), (0, 1))) / 2
    return smooth.astype(np.float32)


def draw_particles(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw dark discs: picture and mask."""
    y, x = np.mgrid[:size, :size]
    mask = np.zeros((size, size), bool)
    for center in rng.uniform(0, size, size=(4, 2)):
        mask |= np.hypot(y - center[0], x - center[1]) < _RADIUS
    return np.where(mask, np.float32(-0.5), np.float32(0)), mask


def draw_simulated(rng: np.random.Generator, size: int) -> SimulatedCrop:
    """Draw particles under Gaussian noise with the spectrum of the detector's."""
    signal, mask = draw_particles(rng, size)
    return SimulatedCrop(signal + draw_noise(rng, size), mask, signal)


def draw_real(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw particles as the detector records them: noise that comes in patches, with a tail towards bright counts."""
    signal, _ = draw_particles(rng, size)
    noise = draw_noise(rng, size) * np.exp(0.5 * draw_textures((size, size), rng)[1] - 0.25)
    skewed = np.exp(0.35 * np.clip(noise, -4, 4))
    return (signal + (skewed - skewed.mean()) / skewed.std()).astype(np.float32)


def make_judge(n_crops: int = 96) -> tuple[np.ndarray, np.ndarray, 'Distance']:
    """Return real crops of SIDE px, other real ones, and their distance from crops.

    Features are those of Topaz' architecture with random weights: they were trained on nothing, so on nothing here.
    """
    real, other = (np.stack([draw_real(np.random.default_rng((seed, i)), SIDE) for i in range(n_crops)])
                   for seed in (1000, 1001))
    return real, other, Distance(real)


class Distance:
    """Fréchet distance to real crops."""

    def __init__(self, real: np.ndarray):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._network = TopazNetwork().eval()
            for parameter in self._network.parameters():
                if parameter.ndim == 4:
                    torch.nn.init.kaiming_normal_(parameter)
        self._real = self._describe(real)

    def __call__(self, crops: np.ndarray) -> float:
        """Return the distance of (n, SIDE, SIDE) crops."""
        return compute_frechet_distance(self._real, self._describe(crops))

    def _describe(self, crops: np.ndarray) -> np.ndarray:
        normal = (crops - crops.mean((1, 2), keepdims=True)) / crops.std((1, 2), keepdims=True)
        return extract_features(self._network, normal)
