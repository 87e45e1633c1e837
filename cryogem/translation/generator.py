"""The generator of the `fast` preset. All maps are ``(b, c, h, w)`` float32.

A generator draws no random numbers: the noise is in its input.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cryogem.errors import ConfigError

SLOPE = 0.2                                 # of LeakyReLU, in all networks of this room
_BLOCK = 2                                  # px per side that become channels: nothing is computed at full resolution


class ResidualGenerator(nn.Module):
    """Small U-Net that makes noise and signal of its input stronger or weaker by place, and adds to them.

    With s the signal in the prior and n the rest of it, the output is ``prior + g n + h s + r`` in contrast units.
    The gains g and h lie between -1 and 1: what the network says of a place, plus a number for all places. All begin
    at zero: an untrained network returns the prior. Without a signal among the inputs s is zero.
    Nothing looks further than `receptive_field`: no normalisation, so a micrograph may be cut into tiles and may have
    any height and width.

    Parameters
    ----------
    channels : maps at half the resolution, where the work is done; twice as many on all levels below.
    n_levels : resolutions: half, quarter, ...
    n_inputs : maps of the input: the prior; then, if more, the signal that is in it; then textures
        (`cryogem.translation.textures`).
    """

    architecture = 'residual'

    def __init__(self, channels: int = 24, n_levels: int = 3, n_inputs: int = 1):
        super().__init__()
        if channels < 1 or n_levels < 1 or n_inputs < 1:
            raise ConfigError(f'channels, n_levels and n_inputs cannot be {channels}, {n_levels} and {n_inputs}; '
                              'give positive numbers')
        self.channels, self.n_levels, self.n_inputs = channels, n_levels, n_inputs
        self.feature_channels = (channels, *[2 * channels] * (n_levels - 1))
        widths = self.feature_channels
        self.stem = nn.Sequential(nn.Conv2d(_BLOCK ** 2 * n_inputs, channels, 3, padding=1), nn.LeakyReLU(SLOPE))
        self.down = nn.ModuleList(_make_down_step(*pair) for pair in zip(widths, widths[1:], strict=False))
        self.reduce = nn.ModuleList(
            nn.Conv2d(below, above, 1) for above, below in zip(widths, widths[1:], strict=False))
        self.merge = nn.ModuleList(_make_merge_step(width) for width in widths)
        self.last = nn.Conv2d(channels, 3 * _BLOCK ** 2, 3, padding=1)
        self.gains = nn.Parameter(torch.zeros(2))               # of noise and signal, for all places
        self._initialise()
        use_channels_last(self)

    def _initialise(self) -> None:
        """Keep the variance of the features from level to level."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, SLOPE)
                nn.init.zeros_(cast(Tensor, module.bias))
        nn.init.zeros_(self.last.weight)

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments that rebuild this network."""
        return {'channels': self.channels, 'n_levels': self.n_levels, 'n_inputs': self.n_inputs}

    @property
    def multiple(self) -> int:
        """Sides are padded inside to multiples of this many px; tiles must begin at multiples of it."""
        return _BLOCK * 2 ** (self.n_levels - 1)

    @property
    def receptive_field(self) -> int:
        """Side of the square of input px around an output px beyond which nothing has an influence, px."""
        scales = [_BLOCK * 2 ** level for level in range(self.n_levels)]
        radius = 3 * scales[0] + _BLOCK - 1             # stem, merge and last 3x3 in the blocks of half the resolution
        for above, scale in zip(scales, scales[1:], strict=False):
            radius += above + scale                     # 3x3 stride 2, then 3x3
            radius += above                             # nearest px of the level below, either side
            radius += scale                             # merge 3x3
        return 2 * radius + 1

    def forward(self, inputs: Tensor) -> Tensor:
        """Translate `inputs` (b, n_inputs, h, w), contrast units, any h and w: (b, 1, h, w), the same units."""
        return self.translate_with_features(inputs)[0]

    def translate_with_features(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what `forward` and `encode` return for `inputs` (b, n_inputs, h, w), in one pass."""
        features = self.encode(inputs)
        return self.decode(inputs, features), features

    def encode(self, inputs: Tensor) -> list[Tensor]:
        """Return the feature maps of `inputs` (b, n_inputs, h, w), finest first.

        Level k is (b, feature_channels[k], H / 2^(k+1), W / 2^(k+1)) with H, W the sides rounded up to `multiple`.
        """
        blocks = functional.pixel_unshuffle(pad_to_multiple(inputs, self.multiple), _BLOCK)
        features = [self.stem(blocks.contiguous(memory_format=torch.channels_last))]
        for step in self.down:
            features.append(step(features[-1]))
        return features

    def decode(self, inputs: Tensor, features: list[Tensor]) -> Tensor:
        """Return the translation (b, 1, h, w) of `inputs` (b, n_inputs, h, w), made from their `encode` features."""
        merged = self.merge[-1](features[-1])
        for level in range(self.n_levels - 2, -1, -1):
            coarse = functional.interpolate(self.reduce[level](merged), scale_factor=2, mode='nearest')
            merged = self.merge[level](features[level] + coarse)
        shape = inputs.shape[-2:]
        changes = functional.pixel_shuffle(self.last(merged), _BLOCK)[..., :shape[0], :shape[1]].to(inputs.dtype)
        prior = inputs[:, :1]
        signal = inputs[:, 1:2] if self.n_inputs > 1 else torch.zeros_like(prior)
        gains = torch.tanh(changes[:, :2] + self.gains.view(1, 2, 1, 1))
        return prior + gains[:, :1] * (prior - signal) + gains[:, 1:] * signal + changes[:, 2:]


def _make_down_step(above: int, below: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(above, below, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE),
        nn.Conv2d(below, below, 3, padding=1), nn.LeakyReLU(SLOPE),
    )


def _make_merge_step(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LeakyReLU(SLOPE), nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(SLOPE))


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad `image` (b, c, h, w) at the bottom and right until both sides are multiples of `multiple`.

    The frame is mirrored; where it is too narrow for that its last row or column is repeated.
    """
    height, width = image.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not (below or right):
        return image
    mode = 'reflect' if below < height and right < width else 'replicate'
    return functional.pad(image, (0, right, 0, below), mode=mode)


def use_channels_last(network: nn.Module) -> None:
    """Store the kernels of `network` with channels last: convolutions follow, and are faster on CPU and GPU."""
    use_layout(network, torch.channels_last)


def use_layout(network: nn.Module, layout: torch.memory_format) -> None:
    """Store the kernels of `network` in a layout, which its convolutions follow."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            # Kernels of one map count as being in either layout: a new array makes their strides definite too.
            stored = torch.empty_like(parameter.data, memory_format=layout)
            parameter.data = stored.copy_(parameter.data)
