"""The published network made ready for use: the same function, several times as fast on a CPU.

Its weights are converted to bf16 once (where the hardware computes in it), activations have channels last, and the
first and the last convolution, which have a single map on one side and are slow as convolutions, are matrix products.
"""

import copy
import logging
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cryogem.translation.generator import SLOPE
from cryogem.translation.hardware import has_fast_bf16
from cryogem.translation.paper import PaperGenerator

logger = logging.getLogger(__name__)

_KERNEL = 4                                 # px, of both convolutions; they halve and double the frame
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
        first, last = cast(nn.Conv2d, generator.model.down[0]), cast(nn.ConvTranspose2d, generator.model.up[1])
        self._first = first.weight.detach().flatten(1).T.contiguous().to(self._dtype)           # (16, width)
        self._first_bias = cast(Tensor, first.bias).detach().to(self._dtype)
        self._last = last.weight.detach().flatten(1).contiguous().to(self._dtype)               # (2 width, 16)
        self._last_bias = cast(Tensor, last.bias).detach()
        self.inner = cast(nn.Module, copy.deepcopy(generator.model.submodule)).to(self._dtype).eval()
        for module in self.inner.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = True       # of maps joined for it alone: a large frame needs less memory
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Translate `image` (1, 1, h, w) scaled to [-1, 1]; the same shape back, in (-1, 1)."""
        self._check_shape(image)
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
