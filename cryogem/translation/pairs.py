"""Training crops: simulated ones with their masks, and real ones that are not their pairs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryogem.errors import InputError

DrawSimulated = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
DrawReal = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class CropBatch:
    """Crops of one training step, in contrast units."""

    prior: Tensor                           # (b, 1, c, c) float32, noisy simulation
    mask: Tensor                            # (b, 1, c, c) bool, True on its particles
    real: Tensor                            # (b, 1, c, c) float32, real micrographs

    def __post_init__(self) -> None:
        shapes = [tuple(one.shape) for one in (self.prior, self.mask, self.real)]
        is_good = len(set(shapes)) == 1 and len(shapes[0]) == 4 and shapes[0][1] == 1
        if not is_good or self.mask.dtype != torch.bool:
            raise InputError(f'crops of shapes {shapes} and a mask of {self.mask.dtype} cannot be trained on; '
                             'give prior, mask and real of one shape (b, 1, c, c), the mask of booleans')

    def to(self, device: torch.device) -> 'CropBatch':
        """Return the batch on `device`."""
        return CropBatch(self.prior.to(device), self.mask.to(device), self.real.to(device))


class CropSampler:
    """Draws the crops of each step from the step's number alone, so that an interrupted run continues unchanged.

    Parameters
    ----------
    draw_simulated : (rng, crop_size) -> prior (c, c) float32 and mask (c, c) bool, contrast units.
    draw_real : (rng, crop_size) -> (c, c) float32, contrast units.
    crop_size : side of the crops, px.
    batch_size : crops per step.
    seed : of all crops.
    """

    def __init__(self, draw_simulated: DrawSimulated, draw_real: DrawReal, crop_size: int, batch_size: int, seed: int):
        self._draw_simulated, self._draw_real = draw_simulated, draw_real
        self._crop_size, self._batch_size, self._seed = crop_size, batch_size, seed

    def draw(self, step: int) -> CropBatch:
        """Return the crops of `step`, each turned and mirrored at random."""
        streams = np.random.SeedSequence(self._seed, spawn_key=(step,)).spawn(2 * self._batch_size)
        priors, masks, reals = [], [], []
        for for_simulated, for_real in zip(streams[::2], streams[1::2], strict=True):
            rng = np.random.default_rng(for_simulated)
            prior, mask = self._draw_simulated(rng, self._crop_size)
            symmetry = int(rng.integers(8))
            priors.append(turn_crop(prior, symmetry))
            masks.append(turn_crop(mask, symmetry))
            rng = np.random.default_rng(for_real)
            real = self._draw_real(rng, self._crop_size)
            reals.append(turn_crop(real, int(rng.integers(8))))
        return CropBatch(_stack(priors, np.float32), _stack(masks, np.bool_), _stack(reals, np.float32))


def turn_crop(crop: np.ndarray, symmetry: int) -> np.ndarray:
    """Return a square `crop` (c, c) under one of the eight symmetries of the square: 90° turns, then a mirror."""
    turned = np.rot90(crop, symmetry % 4)
    return turned if symmetry < 4 else turned[:, ::-1]


def _stack(crops: list[np.ndarray], dtype: type) -> Tensor:
    return torch.from_numpy(np.stack(crops)[:, None].astype(dtype))
