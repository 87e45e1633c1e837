"""A convolution that can be trained, with fewer products than it has taps, where a CPU gains by it.

A tile of m x m px of what a kernel of r x r gives takes at least (m + r - 1)^2 products for each pair of maps instead
of m^2 r^2 (Winograd 1980; Lavin and Gray 2016, arXiv 1509.09308): with three matrices, in each direction

    output = A ((G kernel) * (B input))

so that the products of all tiles are one matrix product for each point of the transform. Both gradients are its
transposes and take as few. The kernel here is 4 x 4, of stride 1.

In float32 a tile is 4 x 4 px: 49 products instead of 256, with four times the rounding of the plain convolution. In
bf16, whose numbers have eight bits, it is 2 x 2 px from two filters of two taps, and the matrices hold nothing but 0,
1 and -1: 36 products instead of 64, with twice the rounding.
"""

from dataclasses import dataclass
from functools import cache, reduce
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cryogem.translation.hardware import has_bf16_tiles

_TAPS, _PADDING = 4, 1                      # px, in each direction
_FEWEST_TILES = 256                         # with fewer, transforming the kernel takes what the products save
_FEWEST_MAPS = 128                          # with fewer, transforming the tiles does
_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0, 2.0)  # and infinity: of those tried, the ones that round least


@dataclass(frozen=True)
class Filter:
    """The matrices of a filter, in both directions at once.

    Parameters
    ----------
    of_input : B, (points, inputs of a tile).
    of_kernel : G, (points, 16); float32 always.
    of_output : A, (outputs of a tile, points).
    """

    of_input: Tensor
    of_kernel: Tensor
    of_output: Tensor

    @property
    def size(self) -> int:
        """Side of what a tile gives, px."""
        return int(len(self.of_output) ** 0.5)

    @property
    def reach(self) -> int:
        """Side of what a tile is made from, px."""
        return self.size + _TAPS - 1


@cache
def build_filter(kind: torch.dtype) -> Filter:
    """Return the filter for numbers of a `kind`, float32 or bf16."""
    matrices = _pair_up() if kind == torch.bfloat16 else _interpolate(4)
    of_input, of_kernel, of_output = (torch.from_numpy(np.kron(one, one)).float() for one in matrices)
    return Filter(of_input.to(kind), of_kernel, of_output.to(kind))


def _interpolate(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return B, G and A for `size` px in one direction, by the values of polynomials (Toom and Cook)."""
    def evaluate(n: int) -> np.ndarray:
        return np.vstack([np.array(_POINTS)[:, None] ** np.arange(n), np.eye(n)[-1]])

    of_input, of_kernel, of_output = np.linalg.inv(evaluate(len(_POINTS) + 1)).T, evaluate(_TAPS), evaluate(size).T
    # numbers of like size on both sides round least
    scales = np.sqrt(np.abs(of_input).sum(1) / np.abs(of_kernel).sum(1))[:, None]
    return of_input / scales, of_kernel * scales, of_output


def _pair_up() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return B, G and A of two filters of two taps behind each other, for two px in one direction."""
    of_input, of_kernel, of_output = np.zeros((6, 5)), np.zeros((6, 4)), np.zeros((2, 6))
    for pair in range(2):
        points, first = slice(3 * pair, 3 * pair + 3), 2 * pair
        of_input[points, first:first + 3] = [[1, -1, 0], [0, 1, 0], [0, 1, -1]]
        of_kernel[points, first:first + 2] = [[1, 0], [1, 1], [0, 1]]
        of_output[:, points] = [[1, 1, 0], [0, 1, -1]]
    return of_input, of_kernel, of_output


class MinimalConv2d(nn.Conv2d):
    """A convolution of 4 x 4 px, stride 1, padding 1, that takes fewer products where a CPU gains by it.

    That is with wide maps of many px, in float32 or bf16; on CPUs that multiply tiles of bf16 in float32 alone.
    Elsewhere it is torch's. Its gradient has no gradient.
    """

    def __init__(self, above: int, below: int):
        super().__init__(above, below, _TAPS, padding=_PADDING)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve `features` (b, c, h, w): (b, c', h - 1, w - 1)."""
        kind = torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else features.dtype
        if not self.takes_fewer(features, kind):
            return super().forward(features)
        return cast(Tensor, _Convolution.apply(features, self.weight, self.bias, kind))

    def takes_fewer(self, features: Tensor, kind: torch.dtype) -> bool:
        """Say whether `features` (b, c, h, w) are convolved with fewer products in numbers of a `kind`."""
        if features.device.type != 'cpu' or kind not in (torch.float32, torch.bfloat16):
            return False
        if kind == torch.bfloat16 and has_bf16_tiles():
            return False
        size = build_filter(kind).size
        n_tiles = (features.shape[-2] // size) * (features.shape[-1] // size)
        return n_tiles >= _FEWEST_TILES and min(self.in_channels, self.out_channels) >= _FEWEST_MAPS


@dataclass(frozen=True)
class _Tiles:
    """The tiles that give a frame of `rows` x `columns`."""

    filter: Filter
    rows: int
    columns: int

    @property
    def down(self) -> int:
        return -(-self.rows // self.filter.size)

    @property
    def across(self) -> int:
        return -(-self.columns // self.filter.size)

    def take_inputs(self, image: Tensor) -> Tensor:
        """Return what the tiles are made from, of `image` (c, rows + 1, columns + 1): (reach^2, tiles, c)."""
        size, reach, n_maps = self.filter.size, self.filter.reach, len(image)
        high, wide = self._pad_sides()
        padded = functional.pad(image.permute(1, 2, 0),
                                (0, 0, 1, wide - self.columns - 2, 1, high - self.rows - 2))
        row = wide * n_maps
        tiles = padded.as_strided((reach, reach, self.down, self.across, n_maps),
                                  (row, n_maps, size * row, size * n_maps, 1))
        return tiles.reshape(reach ** 2, self.down * self.across, n_maps)

    def add_inputs(self, tiles: Tensor) -> Tensor:
        """Return the sum (c, rows + 1, columns + 1) of `tiles` (reach^2, tiles, c) in the places they come from."""
        size, reach = self.filter.size, self.filter.reach
        shares = tiles.view(reach, reach, self.down, self.across, -1)
        image = tiles.new_zeros(*self._pad_sides(), shares.shape[-1])
        for row in range(reach):
            for column in range(reach):
                image[row:row + size * self.down:size, column:column + size * self.across:size] += shares[row, column]
        return image[1:self.rows + 2, 1:self.columns + 2].permute(2, 0, 1)

    def join_outputs(self, tiles: Tensor) -> Tensor:
        """Return the image (c, rows, columns) of `tiles` (size^2, tiles, c)."""
        size = self.filter.size
        image = tiles.view(size, size, self.down, self.across, -1).permute(2, 0, 3, 1, 4)
        image = image.reshape(self.down * size, self.across * size, -1)
        return image[:self.rows, :self.columns].permute(2, 0, 1)

    def part_outputs(self, image: Tensor) -> Tensor:
        """Return the tiles (size^2, tiles, c) that `join_outputs` makes `image` (c, rows, columns) of."""
        size = self.filter.size
        beyond = (0, 0, 0, self.across * size - self.columns, 0, self.down * size - self.rows)
        padded = functional.pad(image.permute(1, 2, 0), beyond)
        tiles = padded.view(self.down, size, self.across, size, -1).permute(1, 3, 0, 2, 4)
        return tiles.reshape(size ** 2, self.down * self.across, -1)

    def _pad_sides(self) -> tuple[int, int]:
        """Return height and width of the frame that all tiles are made from."""
        size, beyond = self.filter.size, _TAPS - 1
        return self.down * size + beyond, self.across * size + beyond


class _Convolution(torch.autograd.Function):
    """See `MinimalConv2d`. Frames are taken one by one."""

    @staticmethod
    def forward(context: Any, features: Tensor, kernel: Tensor, bias: Tensor, kind: torch.dtype) -> Tensor:
        rows, columns = (side + 2 * _PADDING - _TAPS + 1 for side in features.shape[-2:])
        minimal = build_filter(kind)
        tiles, inputs = _Tiles(minimal, rows, columns), []
        output = torch.empty((len(features), len(kernel), rows, columns), dtype=kind,
                             memory_format=torch.channels_last)
        with torch.autocast('cpu', enabled=False):
            filters = _mix(minimal.of_kernel, kernel.permute(2, 3, 0, 1).flatten(0, 1).float()).to(kind)
            for image, joined in zip(features, output, strict=True):
                inputs.append(_mix(minimal.of_input, tiles.take_inputs(image.to(kind))))
                products = torch.bmm(inputs[-1], filters.transpose(1, 2))
                joined.copy_(tiles.join_outputs(_mix(minimal.of_output, products)))
                if not context.needs_input_grad[1]:
                    inputs.clear()
            output += bias.to(kind).view(-1, 1, 1)
        context.tiles = tiles
        context.save_for_backward(filters, *inputs)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tiles, (filters, *inputs) = context.tiles, context.saved_tensors
        minimal, of_features, of_points, of_bias = tiles.filter, [], [], None
        with torch.autocast('cpu', enabled=False):
            for index, image in enumerate(gradient):
                products = _mix(minimal.of_output.T, tiles.part_outputs(image))
                if context.needs_input_grad[0]:
                    of_inputs = _mix(minimal.of_input.T, torch.bmm(products, filters))
                    of_features.append(tiles.add_inputs(of_inputs))
                if context.needs_input_grad[1]:
                    of_points.append(torch.bmm(products.transpose(1, 2), inputs[index]).float())
            of_kernel = _mix(minimal.of_kernel.T, reduce(torch.add, of_points)) if of_points else None
            if context.needs_input_grad[2]:
                of_bias = gradient.sum((0, 2, 3), dtype=torch.float32)
        return (torch.stack(of_features) if of_features else None,
                None if of_kernel is None else of_kernel.view(_TAPS, _TAPS, *of_kernel.shape[1:]).permute(2, 3, 0, 1),
                of_bias, None)


def _mix(matrix: Tensor, parts: Tensor) -> Tensor:
    """Return the linear combinations (m, ...) of `parts` (n, ...) that a `matrix` (m, n) says."""
    return (matrix @ parts.flatten(1)).view(len(matrix), *parts.shape[1:])
