"""Generators: the residual network of the `fast` preset and the published U-Net of the `paper` preset.

All maps are ``(b, c, h, w)`` float32. A generator draws no random numbers: the noise is in its input.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cryogem.errors import ConfigError, InputError

N_PAPER_FEATURES = 5                        # encoder layers whose features enter the contrastive loss
_SLOPE = 0.2                                # of LeakyReLU, in all networks here


class ResidualGenerator(nn.Module):
    """Small U-Net whose output is its input plus a residual, in contrast units.

    Nothing in it looks further than `receptive_field`: no normalisation, so a micrograph may be cut into tiles and
    may have any height and width. The last convolution begins at zero: an untrained network returns its input.

    Parameters
    ----------
    channels : maps at full resolution; twice as many on all levels below.
    n_levels : resolutions: full, half, quarter, ...
    """

    architecture = 'residual'

    def __init__(self, channels: int = 24, n_levels: int = 3):
        super().__init__()
        if channels < 1 or n_levels < 1:
            raise ConfigError(f'channels and n_levels cannot be {channels} and {n_levels}; give positive numbers')
        self.channels, self.n_levels = channels, n_levels
        self.feature_channels = (channels, *[2 * channels] * (n_levels - 1))
        widths = self.feature_channels
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 5, padding=2), nn.LeakyReLU(_SLOPE))
        self.down = nn.ModuleList(_make_down_step(*pair) for pair in zip(widths, widths[1:], strict=False))
        self.reduce = nn.ModuleList(
            nn.Conv2d(below, above, 1) for above, below in zip(widths, widths[1:], strict=False))
        self.merge = nn.ModuleList(_make_merge_step(width, is_full=level == 0) for level, width in enumerate(widths))
        self.last = nn.Conv2d(channels, 1, 3, padding=1)
        self._initialise()
        use_channels_last(self)

    def _initialise(self) -> None:
        """Keep the variance of the features from level to level."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, _SLOPE)
                nn.init.zeros_(cast(Tensor, module.bias))
        nn.init.zeros_(self.last.weight)

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments that rebuild this network."""
        return {'channels': self.channels, 'n_levels': self.n_levels}

    @property
    def multiple(self) -> int:
        """Sides are padded inside to multiples of this many px; tiles must begin at multiples of it."""
        return 2 ** (self.n_levels - 1)

    @property
    def receptive_field(self) -> int:
        """Side of the square of input px around an output px beyond which nothing has an influence, px."""
        radius = 2                                                  # stem 5x5
        for level in range(1, self.n_levels):
            radius += 2 ** (level - 1) + 2 ** level                 # 3x3 stride 2, then 3x3
            radius += 2 ** level                                    # nearest px of the level below, either side
            radius += 2 ** level                                    # merge 3x3 below full resolution
        return 2 * (radius + 1) + 1                                 # last 3x3

    def forward(self, image: Tensor) -> Tensor:
        """Translate `image` (b, 1, h, w), contrast units, any h and w; same shape and units back."""
        return self.decode(image, self.encode(image))

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps of `image` (b, 1, h, w), finest first.

        Level k is (b, feature_channels[k], H / 2^k, W / 2^k) with H, W the sides rounded up to `multiple`.
        """
        features = [self.stem(pad_to_multiple(image, self.multiple))]
        for step in self.down:
            features.append(step(features[-1]))
        return features

    def decode(self, image: Tensor, features: list[Tensor]) -> Tensor:
        """Return `image` (b, 1, h, w) plus the residual made from its own `encode` features."""
        merged = self.merge[-1](features[-1])
        for level in range(self.n_levels - 2, -1, -1):
            coarse = functional.interpolate(self.reduce[level](merged), scale_factor=2, mode='nearest')
            merged = self.merge[level](features[level] + coarse)
        return image + self.last(merged)[..., :image.shape[-2], :image.shape[-1]]


def _make_down_step(above: int, below: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(above, below, 3, stride=2, padding=1), nn.LeakyReLU(_SLOPE),
        nn.Conv2d(below, below, 3, padding=1), nn.LeakyReLU(_SLOPE),
    )


def _make_merge_step(width: int, is_full: bool) -> nn.Sequential:
    """A convolution below full resolution only: at full resolution it would cost as much as all the rest."""
    layers: list[nn.Module] = [nn.LeakyReLU(_SLOPE)]
    if not is_full:
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*layers)


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
    for parameter in network.parameters():
        if parameter.ndim == 4:
            # Kernels of one map count as being in either layout: a new array makes their strides definite too.
            stored = torch.empty_like(parameter.data, memory_format=torch.channels_last)
            parameter.data = stored.copy_(parameter.data)


class PaperGenerator(nn.Module):
    """The published U-Net (Zhang et al. 2024, arXiv 2312.02235), parameters under the names of its checkpoints.

    Parameters
    ----------
    depth : number of halvings; sides must be multiples of 2^depth. Published: 10.
    width : maps after the first convolution; then 2, 4, 8, 8, ... times as many. Published: 64.
    """

    architecture = 'paper'

    def __init__(self, depth: int = 10, width: int = 64):
        super().__init__()
        if depth < N_PAPER_FEATURES or width < 1:
            raise ConfigError(f'depth and width cannot be {depth} and {width}; '
                              f'give at least {N_PAPER_FEATURES} and 1')
        self.depth, self.width = depth, width
        widths = [width * min(2 ** level, 8) for level in range(depth)]
        self.feature_channels = tuple(widths[:N_PAPER_FEATURES])
        block = _PaperBlock(widths[-2], widths[-1], None)
        for above, below in zip(widths[-3::-1], widths[-2:0:-1], strict=True):
            block = _PaperBlock(above, below, block)
        self.model = _PaperBlock(1, width, block, is_outermost=True)
        # Beside its speed: on CPUs with AVX2 this layout rounds five times better, and the instance norms of nearly
        # constant maps amplify rounding.
        use_channels_last(self)

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments that rebuild this network."""
        return {'depth': self.depth, 'width': self.width}

    def forward(self, image: Tensor) -> Tensor:
        """Translate `image` (b, 1, h, w) scaled to [-1, 1]; the same shape back, in (-1, 1).

        Raises
        ------
        InputError : a side is no multiple of 2^depth.
        """
        self._check_shape(image)
        return self.model(image)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of encoder layers 1-5 as the skip connections carry them, outermost first.

        Layer k of an `image` (b, 1, h, w) is (b, feature_channels[k-1], h / 2^k, w / 2^k).
        """
        self._check_shape(image)
        features: list[Tensor] = []
        block: _PaperBlock | None = self.model
        while block is not None and len(features) < N_PAPER_FEATURES:
            image = functional.leaky_relu(block.down(image), _SLOPE)
            features.append(image)
            block = block.submodule
        return features

    def _check_shape(self, image: Tensor) -> None:
        multiple = 2 ** self.depth
        if image.shape[-2] % multiple or image.shape[-1] % multiple:
            raise InputError(f'image shape {tuple(image.shape[-2:])} does not fit this model; '
                             f'give sides that are multiples of {multiple}')


class _PaperBlock(nn.Module):
    """One level of the published U-Net: halve, all deeper levels, double.

    A level receives features already passed through LeakyReLU, as its skip connection carries them, so the activation
    in front of each convolution is applied by the level above; index 0 of ``down`` stays an identity for the names.
    """

    def __init__(self, above: int, below: int, submodule: '_PaperBlock | None', is_outermost: bool = False):
        super().__init__()
        halve = nn.Conv2d(above, below, 4, stride=2, padding=1)
        double = nn.ConvTranspose2d(below if submodule is None else 2 * below, above, 4, stride=2, padding=1)
        if is_outermost:
            self.down, self.up = nn.Sequential(halve), nn.Sequential(nn.ReLU(), double, nn.Tanh())
        else:
            self.down = nn.Sequential(nn.Identity(), halve)
            if submodule is not None:       # the innermost map is one px: nothing to normalise over
                self.down.append(nn.InstanceNorm2d(below))
            self.up = nn.Sequential(nn.ReLU(), double, nn.InstanceNorm2d(above))
        self.submodule = submodule

    def forward(self, features: Tensor) -> Tensor:
        """Map (b, above, h, w), activated, to the doubled output (b, above, h, w) without the skip."""
        halved = self.down(features)
        if self.submodule is None:
            return self.up(halved)
        skipped = functional.leaky_relu(halved, _SLOPE)
        return self.up(torch.cat([skipped, self.submodule(skipped)], dim=1))
