"""The published network made ready for use: the same function, several times as fast on a CPU.

Its weights are converted to bf16 once (where the hardware computes in it), activations have channels last, and the
first and the last convolution, which have a single map on one side and are slow as convolutions, are matrix products.
On CPUs that multiply bf16 in vectors the transposed convolutions take fewer products (`cryogem.translation.doubling`).
"""

import copy
import logging
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cryogem.translation.doubling import Doubling, FirstHalving, LastDoubling, take_maps
from cryogem.translation.generator import SLOPE
from cryogem.translation.hardware import has_bf16_vectors, has_fast_bf16
from cryogem.translation.lanes import LANES
from cryogem.translation.paper import PaperGenerator

logger = logging.getLogger(__name__)

_KERNEL = 4                                 # px, of both convolutions; they halve and double the frame
_SMALLEST_DOUBLED = 16                      # px: the tiles of smaller maps reach too far beyond them
# rows of the kernel that reach the even and the odd rows of the doubled frame, and from which row of the input
_TAPS = (((1, 0), (3, -1)), ((2, 0), (0, 1)))


class LeanPaperGenerator(nn.Module):
    """A `PaperGenerator` for use, not for training; input and output are those of the original, float32.

    Parameters
    ----------
    generator : trained; it is copied.
    is_half : compute in bf16; None: if the hardware of the generator's device does.
    """

    def __init__(self, generator: PaperGenerator, is_half: bool | None = None):
        super().__init__()
        device = next(generator.parameters()).device
        self.is_half = has_fast_bf16(device) if is_half is None else is_half
        if not self.is_half:
            logger.info('%s has no fast bf16; the published network runs in float32', device)
        self._dtype = torch.bfloat16 if self.is_half else torch.float32
        self.sizes = generator.sizes
        self._check_shape = generator.check_shape
        self.in_vectors: nn.Module | None = None
        if self.is_half and generator.width % LANES == 0 and has_bf16_vectors(device):
            self.in_vectors = _VectorGenerator(generator).requires_grad_(False)
            return
        first, last = cast(nn.Conv2d, generator.model.down[0]), cast(nn.ConvTranspose2d, generator.model.up[1])
        self._first = first.weight.detach().flatten(1).T.contiguous().to(self._dtype)           # (16, width)
        self._first_bias = cast(Tensor, first.bias).detach().to(self._dtype)
        self._last = last.weight.detach().flatten(1).contiguous().to(self._dtype)               # (2 width, 16)
        self._last_bias = cast(Tensor, last.bias).detach()
        self.inner = _copy_block(cast(nn.Module, generator.model.submodule), self._dtype)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Translate `image` (1, 1, h, w) scaled to [-1, 1]; the same shape back, in (-1, 1)."""
        self._check_shape(image)
        if self.in_vectors is not None:
            return cast(Tensor, self.in_vectors(image))
        skipped = functional.leaky_relu(self._halve(image.to(self._dtype)), SLOPE)
        merged = torch.cat([skipped, self.inner(skipped, [])], dim=1)
        return torch.tanh(self._double(merged.relu_()))

    def _halve(self, image: Tensor) -> Tensor:
        """Return the first convolution of `image` (1, 1, h, w): (1, width, h / 2, w / 2), channels last."""
        h, w = image.shape[-2] // 2, image.shape[-1] // 2
        padded = functional.pad(image[0, 0], (1, 1, 1, 1))
        patches = padded.unfold(0, _KERNEL, 2).unfold(1, _KERNEL, 2).reshape(h * w, _KERNEL ** 2)
        return torch.addmm(self._first_bias, patches, self._first).view(1, h, w, -1).permute(0, 3, 1, 2)

    def _double(self, features: Tensor) -> Tensor:
        """Return the last transposed convolution of `features` (1, c, h, w): (1, 1, 2 h, 2 w), float32."""
        _, channels, h, w = features.shape
        flat = features.permute(0, 2, 3, 1).reshape(h * w, channels)
        spread = functional.pad((flat @ self._last).view(h, w, -1).permute(2, 0, 1), (1, 1, 1, 1)).float()
        output = torch.empty((h, 2, w, 2), device=features.device)
        for row, taps_y in enumerate(_TAPS):
            for column, taps_x in enumerate(_TAPS):
                parts = [spread[_KERNEL * ky + kx, 1 + dy:1 + dy + h, 1 + dx:1 + dx + w]
                         for ky, dy in taps_y for kx, dx in taps_x]
                output[:, row, :, column] = parts[0] + parts[1] + parts[2] + parts[3]
        return (output.view(1, 1, 2 * h, 2 * w) + self._last_bias)


class _VectorGenerator(nn.Module):
    """The same network in bf16 with loops of our own where a frame has most of its px.

    A level passes on maps without their norm and beside the skip, not behind it: who reads them does the rest.
    """

    def __init__(self, generator: PaperGenerator):
        super().__init__()
        first, last = cast(nn.Conv2d, generator.model.down[0]), cast(nn.ConvTranspose2d, generator.model.up[1])
        self._first = FirstHalving(first.weight, cast(Tensor, first.bias))
        self._last = LastDoubling(last.weight, cast(Tensor, last.bias))
        self.halvings, self._doublings = nn.ModuleList(), list[Doubling]()
        block = cast(nn.Module, generator.model.submodule)
        for level in range(1, generator.depth - 1):
            if 2 ** (generator.depth - level - 1) < _SMALLEST_DOUBLED:
                break
            self.halvings.append(_copy_block(cast(nn.Module, block.down), torch.bfloat16))
            self._doublings.append(Doubling(cast(nn.ConvTranspose2d, cast(nn.Sequential, block.up)[1]).weight))
            block = cast(nn.Module, block.submodule)
        self.inner = _copy_block(block, torch.bfloat16)

    def forward(self, image: Tensor) -> Tensor:
        """Translate `image` (1, 1, h, w) float32 scaled to [-1, 1]."""
        skips = [self._first(image)]
        for halving in self.halvings:
            skips.append(functional.leaky_relu(halving(skips[-1]), SLOPE))
        maps = take_maps(self.inner(skips[-1], []))
        for doubling in reversed(self._doublings):
            maps = doubling(take_maps(skips.pop()), maps)
        return torch.tanh(self._last(take_maps(skips.pop()), maps))


def _copy_block(block: nn.Module, kind: torch.dtype) -> nn.Module:
    """Return a copy of a part of a network, for use in another type of number."""
    copied = copy.deepcopy(block).to(kind).eval()
    for module in copied.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True           # of maps joined for it alone: a large frame needs less memory
    return copied
