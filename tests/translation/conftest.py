"""Fixtures of this room: the published network's tensors, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[3] / 'shared' / 'golden' / 'published_network_tensors.npz'

torch.set_num_threads(1)                    # the networks of these tests are tiny


class Golden:
    """Arrays made by the published network."""

    def __init__(self, path: Path):
        self._arrays = np.load(path)

    def read(self, key: str) -> Tensor:
        """Return one array."""
        return torch.from_numpy(self._arrays[key])

    def read_state(self, prefix: str) -> dict[str, Tensor]:
        """Return the weights whose keys begin with `prefix`, by the rest of their keys."""
        return {key.removeprefix(prefix): self.read(key) for key in self._arrays.files if key.startswith(prefix)}


@pytest.fixture(scope='session')
def golden() -> Golden:
    if not GOLDEN.exists():
        pytest.skip(f'{GOLDEN.name} is not at hand')
    return Golden(GOLDEN)


@pytest.fixture
def golden_input(golden: Golden) -> Tensor:
    """The generator's input as the published network scales it, to [-1, 1] over the whole tensor."""
    image = golden.read('generator/input')
    return (image - image.min()) / (image.max() - image.min() + 1e-8) * 2 - 1
