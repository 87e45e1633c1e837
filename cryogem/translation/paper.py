"""The published U-Net of the `paper` preset. All maps are ``(b, c, h, w)`` float32."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cryogem.errors import ConfigError, InputError
from cryogem.translation.generator import SLOPE, use_channels_last

N_PAPER_FEATURES = 5                        # encoder layers whose features enter the contrastive loss


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
        return self.translate_with_features(image)[0]

    def translate_with_features(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what `forward` and `encode` return for `image` (b, 1, h, w), in one pass."""
        self.check_shape(image)
        features: list[Tensor] = []
        output = self.model(image, features)
        return output, features[:N_PAPER_FEATURES]

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of encoder layers 1-5 as the skip connections carry them, outermost first.

        Layer k of an `image` (b, 1, h, w) is (b, feature_channels[k-1], h / 2^k, w / 2^k).
        """
        self.check_shape(image)
        features: list[Tensor] = []
        block: _PaperBlock | None = self.model
        while block is not None and len(features) < N_PAPER_FEATURES:
            image = functional.leaky_relu(block.down(image), SLOPE)
            features.append(image)
            block = block.submodule
        return features

    def check_shape(self, image: Tensor) -> None:
        """Refuse an `image` (b, 1, h, w) whose sides are no multiples of 2^depth."""
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
                self.down.append(FrameNorm())
            self.up = nn.Sequential(nn.ReLU(), double, FrameNorm())
        self.submodule = submodule

    def forward(self, features: Tensor, skips: list[Tensor]) -> Tensor:
        """Map (b, above, h, w), activated, to the doubled output (b, above, h, w) without the skip.

        What the skip connections carry, and the innermost level, is appended to `skips`, outermost first.
        """
        skipped = functional.leaky_relu(self.down(features), SLOPE)
        skips.append(skipped)
        if self.submodule is None:
            return self.up(skipped)         # whose ReLU does not mind that LeakyReLU came first
        return self.up(torch.cat([skipped, self.submodule(skipped, skips)], dim=1))


class FrameNorm(nn.Module):
    """Each map of each frame to zero mean and unit variance: instance norm without parameters.

    A single frame takes the way of the batch norm, which gives the same numbers and keeps the layout of its input;
    torch's instance norm copies to another layout and back.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalise `features` (b, c, h, w) over their px."""
        if features.shape[0] > 1:
            return functional.instance_norm(features)
        if features.dtype == torch.float32:
            # the mean is taken off first: the batch norm's own way of finding the variance rounds worse beside it
            features = features - features.mean((2, 3), keepdim=True)
        normed = functional.batch_norm(features, None, None, training=True)
        if normed.requires_grad:
            # its gradient takes fifty times as long from maps in another layout, such as a part of joined ones
            is_last = normed.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if is_last else torch.contiguous_format
            normed.register_hook(lambda gradient: gradient.contiguous(memory_format=layout))
        return normed
