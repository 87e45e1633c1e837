"""The transposed convolutions of the published network on a CPU, with 9 products instead of 16."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cryogem.translation.filtering import PHASES, POINTS, TILES, double_tiles, double_to_one, halve_one
from cryogem.translation.generator import SLOPE
from cryogem.translation.lanes import LANES

_EPSILON = 1e-5                             # of the variance, as in every norm of the network
# what the three products of two taps are made of, as shares of the taps of the kernel that the even and odd px see
_EVEN = [[0, 0, 0, 1], [0, 1, 0, 1], [0, 1, 0, 0]]
_ODD = [[0, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]]


class Maps(NamedTuple):
    """Maps as they were stored, and what is to be done to each to have its norm."""

    values: np.ndarray                      # (h, w, c) uint16, the bits of bf16
    scale: np.ndarray                       # (c,) float32
    shift: np.ndarray                       # (c,) float32, added after the scale


class Doubling:
    """A transposed convolution 4 x 4 of stride 2, without its bias, which a norm behind it would take away.

    Parameters
    ----------
    weights : (c_in, c_out, 4, 4) float32; both numbers are multiples of `LANES`.
    """

    def __init__(self, weights: Tensor):
        n_in, n_out = weights.shape[:2]
        taps = torch.tensor([_EVEN, _ODD], dtype=torch.float32)
        filters = torch.einsum('pak,qbl,iokl->abipqo', taps, taps, weights.detach().float().cpu())
        filters = filters.to(torch.bfloat16).reshape(POINTS, n_in // 2, 2, PHASES, n_out // LANES, LANES)
        self._filters = _read_bits(filters.permute(4, 0, 1, 3, 5, 2).contiguous()).view(np.uint32)[..., 0]

    def __call__(self, skip: Maps, inner: Maps) -> Maps:
        """Double rectified maps `skip` (h, w, c) and `inner` (h, w, c'), side by side: (2 h, 2 w, c_out)."""
        height, width, _ = skip.values.shape
        n_blocks, n_maps = -(-(height // 2 + 1) * (width // 2 + 1) // TILES), len(self._filters) * LANES
        out = np.empty((2 * height, 2 * width, n_maps), np.uint16)
        sums = np.empty((n_blocks, 2, n_maps), np.float32)
        _share_out(n_blocks, lambda first, last: double_tiles(skip, inner, self._filters, first, last, out, sums))
        mean, square = sums.sum(axis=0, dtype=np.float64) / (4 * height * width)
        scale = 1 / np.sqrt(np.maximum(square - mean ** 2, 0) + _EPSILON)     # the difference may be rounded below 0
        return Maps(out, scale.astype(np.float32), (-mean * scale).astype(np.float32))


class LastDoubling:
    """The transposed convolution 4 x 4 of stride 2 to a single map.

    Parameters
    ----------
    weights : (c_in, 1, 4, 4) float32; `c_in` is a multiple of `LANES`.
    bias : (1,) float32.
    """

    def __init__(self, weights: Tensor, bias: Tensor):
        pairs = weights.detach().cpu().reshape(len(weights) // 2, 2, -1).transpose(1, 2)
        self._filters = _read_bits(pairs.contiguous().to(torch.bfloat16)).view(np.uint32)[..., 0]
        self._bias = float(bias.detach())

    def __call__(self, skip: Maps, inner: Maps) -> Tensor:
        """Double rectified maps `skip` (h, w, c) and `inner` (h, w, c'), side by side: (1, 1, 2 h, 2 w) float32."""
        height, width, _ = skip.values.shape
        out = np.empty((2 * height, 2 * width), np.float32)
        _share_out(height, lambda first, last: double_to_one(skip, inner, self._filters, first, last, out))
        return torch.from_numpy(out)[None, None] + self._bias


class FirstHalving:
    """The convolution 4 x 4 of stride 2 of a single map, and the leaky rectifier behind it, in float32.

    Parameters
    ----------
    weights : (c_out, 1, 4, 4) float32; `c_out` is a multiple of `LANES`.
    bias : (c_out,) float32.
    """

    def __init__(self, weights: Tensor, bias: Tensor):
        self._filters = weights.detach().cpu().flatten(1).T.contiguous().numpy()
        self._bias = bias.detach().cpu().numpy().copy()

    def __call__(self, image: Tensor) -> Tensor:
        """Halve `image` (1, 1, h, w) float32: (1, c_out, h / 2, w / 2) bf16, channels last."""
        padded = functional.pad(image[0, 0], (1, 1, 1, 1)).numpy()
        height, width = image.shape[-2] // 2, image.shape[-1] // 2
        out = np.empty((height, width, len(self._bias)), np.uint16)
        _share_out(height, lambda first, last: halve_one(padded, self._filters, self._bias, SLOPE, first, last, out))
        return torch.from_numpy(out.view(np.int16)).view(torch.bfloat16).permute(2, 0, 1)[None]


def _share_out(n: int, work: Callable[[int, int], object]) -> None:
    """Call `work` with the bounds of each thread's share of `n` pieces."""
    n_threads = min(n, torch.get_num_threads())
    bounds = [n * index // n_threads for index in range(n_threads + 1)]
    if n_threads == 1:
        work(0, n)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, bounds[:-1], bounds[1:]))


def take_maps(features: Tensor) -> Maps:
    """Return `features` (1, c, h, w) bf16 as maps that need no norm."""
    n = features.shape[1]
    return Maps(_read_bits(features[0].permute(1, 2, 0).contiguous()), np.ones(n, np.float32), np.zeros(n, np.float32))


def _read_bits(values: Tensor) -> np.ndarray:
    return values.view(torch.int16).numpy().view(np.uint16)
