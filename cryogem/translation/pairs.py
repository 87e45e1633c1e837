"""Training crops: simulated ones with their masks, and real ones that are not their pairs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cryogem.errors import CryogemError, InputError
from cryogem.translation.textures import draw_textures


@dataclass(frozen=True)
class SimulatedCrop:
    """One crop of a simulated micrograph, in contrast units."""

    prior: np.ndarray                       # (c, c) float32, noisy
    mask: np.ndarray                        # (c, c) bool, True on particles
    signal: np.ndarray                      # (c, c) float32, what is in it beside the noise: particles and ice


DrawSimulated = Callable[[np.random.Generator, int], SimulatedCrop]
DrawReal = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class CropBatch:
    """Crops of one training step, in contrast units."""

    inputs: Tensor                          # (b, n_inputs, c, c) float32: prior, then signal and textures if wanted
    mask: Tensor                            # (b, 1, c, c) bool, True on its particles
    real: Tensor                            # (b, 1, c, c) float32, real micrographs
    numbers: tuple[int, ...] = ()           # of the crops among those of their step, over all processes
    signal: Tensor | None = None            # (b, 1, c, c) float32, what is in the prior beside noise; to be looked at

    def __post_init__(self) -> None:
        shapes = [tuple(one.shape) for one in (self.inputs[:, :1], self.mask, self.real)]
        is_good = len(set(shapes)) == 1 and len(shapes[0]) == 4 and shapes[0][1] == 1
        if not is_good or self.mask.dtype != torch.bool:
            raise InputError(f'crops of shapes {shapes} and a mask of {self.mask.dtype} cannot be trained on; '
                             'give prior, mask and real of one shape (b, 1, c, c), the mask of booleans')
        if not self.numbers:
            object.__setattr__(self, 'numbers', tuple(range(len(self.inputs))))

    @property
    def prior(self) -> Tensor:
        """The noisy simulations (b, 1, c, c)."""
        return self.inputs[:, :1]

    def to(self, device: torch.device) -> 'CropBatch':
        """Return the batch on `device`."""
        return CropBatch(self.inputs.to(device), self.mask.to(device), self.real.to(device), self.numbers,
                         self.signal)


class Sampler(Protocol):
    """Where crops come from."""

    def draw(self, step: int) -> CropBatch:
        """Return the crops of `step`, which follow from `step` alone."""


class CropSampler:
    """Draws the crops of each step from the step's number alone, so that an interrupted run continues unchanged.

    Parameters
    ----------
    draw_simulated : (rng, crop_size) -> a simulated crop.
    draw_real : (rng, crop_size) -> (c, c) float32, contrast units.
    crop_size : side of the crops, px.
    batch_size : crops per step, over all processes.
    seed : of all crops.
    is_conditioned : whether the generator sees the signal and textures beside the prior.
    n_symmetries : 8 turns and mirrors the crops, 4 turns them.
    rank, n_processes : this process draws crop number `rank` and every `n_processes`-th after it.
    """

    def __init__(
        self, draw_simulated: DrawSimulated, draw_real: DrawReal, crop_size: int, batch_size: int, seed: int,
        is_conditioned: bool = False, n_symmetries: int = 8, rank: int = 0, n_processes: int = 1,
    ):
        self._draw_simulated, self._draw_real = draw_simulated, draw_real
        self._crop_size, self._batch_size, self._seed = crop_size, batch_size, seed
        self._is_conditioned, self._n_symmetries = is_conditioned, n_symmetries
        self._numbers = tuple(range(rank, batch_size, n_processes))

    def draw(self, step: int) -> CropBatch:
        """Return this process' crops of `step`, each turned at random."""
        streams = np.random.SeedSequence(self._seed, spawn_key=(step,)).spawn(2 * self._batch_size)
        inputs, masks, reals, signals = [], [], [], []
        for number in self._numbers:
            rng = np.random.default_rng(streams[2 * number])
            crop = self._draw_simulated(rng, self._crop_size)
            symmetry = int(rng.integers(self._n_symmetries))
            turned = [turn_crop(one, symmetry) for one in (crop.prior, crop.mask, crop.signal)]
            masks.append(turned[1][None])
            signals.append(turned[2][None])
            inputs.append(stack_inputs(turned[0], turned[2], rng) if self._is_conditioned else turned[0][None])
            rng = np.random.default_rng(streams[2 * number + 1])
            real = self._draw_real(rng, self._crop_size)
            reals.append(turn_crop(real, int(rng.integers(self._n_symmetries)))[None])
        return CropBatch(_stack(inputs, np.float32), _stack(masks, np.bool_), _stack(reals, np.float32), self._numbers,
                         _stack(signals, np.float32))


def stack_inputs(prior: np.ndarray, signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what a conditioned generator sees, (n_inputs, h, w): `prior`, `signal` (h, w) and fresh textures."""
    return np.concatenate([prior[None], signal[None], draw_textures((prior.shape[0], prior.shape[1]), rng)])


def turn_crop(crop: np.ndarray, symmetry: int) -> np.ndarray:
    """Return a square `crop` (c, c) under one of the eight symmetries of the square: 90° turns, then a mirror."""
    turned = np.rot90(crop, symmetry % 4)
    return turned if symmetry < 4 else turned[:, ::-1]


def stream_crops(sampler: Sampler, first: int, last: int, n_workers: int) -> Iterator[CropBatch]:
    """Yield the crops of steps `first` to `last` - 1, drawn ahead by `n_workers` processes if more than one.

    The crops do not depend on the number of processes. An error in one of them is raised here.
    """
    is_parallel = n_workers > 1
    loader = DataLoader(
        _Steps(sampler), batch_size=None, sampler=range(first, last), num_workers=n_workers if is_parallel else 0,
        # spawn: a forked process with torch's threads hangs. A generator of its own leaves the global one alone.
        multiprocessing_context='spawn' if is_parallel else None, generator=torch.Generator())
    for drawn in loader:
        if isinstance(drawn, CryogemError):
            raise drawn
        yield drawn


class _Steps(Dataset):
    """The steps as a torch data set; an expected error is handed over as it is, not wrapped in a traceback."""

    def __init__(self, sampler: Sampler):
        self._sampler = sampler

    def __getitem__(self, step: int) -> CropBatch | CryogemError:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)            # as in a worker: the same sums in the same order
        try:
            return self._sampler.draw(step)
        except CryogemError as error:
            return error
        finally:
            torch.set_num_threads(n_threads)


def _stack(crops: list[np.ndarray], dtype: type) -> Tensor:
    return torch.from_numpy(np.stack(crops).astype(dtype))
