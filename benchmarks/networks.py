"""The published networks written plainly by us, to be timed beside ours: eager float32 modules, full frames, and a full
forward pass for every request of features. Weights go under the published names, so both sides compute the same.
"""

from functools import partial

import torch
from timing import time_runs
from torch import Tensor, nn
from torch.nn import functional


class PlainBlock(nn.Module):
    """One level of the U-Net: its parts in the order in which they are applied, features concatenated."""

    def __init__(self, above: int, below: int, inner: 'PlainBlock | None' = None, is_outermost: bool = False):
        super().__init__()
        halve = nn.Conv2d(above, below, 4, stride=2, padding=1)
        double = nn.ConvTranspose2d(below if inner is None else 2 * below, above, 4, stride=2, padding=1)
        if is_outermost:
            self.down, self.up = nn.Sequential(halve), nn.Sequential(nn.ReLU(True), double, nn.Tanh())
        elif inner is None:
            self.down = nn.Sequential(nn.LeakyReLU(0.2), halve)
            self.up = nn.Sequential(nn.ReLU(), double, nn.InstanceNorm2d(above))
        else:
            self.down = nn.Sequential(nn.LeakyReLU(0.2), halve, nn.InstanceNorm2d(below))
            self.up = nn.Sequential(nn.ReLU(True), double, nn.InstanceNorm2d(above))
        self.submodule, self.is_outermost = inner, is_outermost

    def forward(self, features: Tensor) -> Tensor:
        """Return the doubled output, beside its activated input but for the outermost level."""
        halved = self.down(features)
        doubled = self.up(halved if self.submodule is None else self.submodule(halved))
        return doubled if self.is_outermost else torch.cat([functional.leaky_relu(features, 0.2), doubled], 1)

    def encode(self, features: Tensor, n: int) -> list[Tensor]:
        """Return the activated features of the `n` outermost levels."""
        halved = self.down(features)
        own = functional.leaky_relu(halved, 0.2)
        return [own] if n == 1 or self.submodule is None else [own, *self.submodule.encode(halved, n - 1)]


class PlainGenerator(nn.Module):
    """The U-Net of `depth` levels."""

    def __init__(self, depth: int = 10, width: int = 64):
        super().__init__()
        widths = [width * min(2 ** level, 8) for level in range(depth)]
        block = None
        for level in range(depth - 1, 0, -1):
            block = PlainBlock(widths[level - 1], widths[level], block)
        self.model = PlainBlock(1, width, block, is_outermost=True)

    def forward(self, image: Tensor) -> Tensor:
        """Translate `image` (1, 1, h, w)."""
        return self.model(image)

    def request_features(self, image: Tensor) -> list[Tensor]:
        """Return the features of five levels after a whole forward pass, which is what the published code runs."""
        self.model(image)
        return self.model.encode(image, 5)


class PlainDiscriminator(nn.Module):
    """The PatchGAN of three layers."""

    def __init__(self, width: int = 128):
        super().__init__()
        widths = [1, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for level in range(4):
            layers.append(nn.Conv2d(widths[level], widths[level + 1], 4, stride=2 if level < 3 else 1, padding=1))
            layers += [nn.InstanceNorm2d(widths[level + 1])] if level else []
            layers.append(nn.LeakyReLU(0.2, True))
        self.model = nn.Sequential(*layers, nn.Conv2d(widths[4], 1, 4, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Judge each patch of `image`."""
        return self.model(image)


def measure_convolution_rate(is_half: bool, n_runs: int = 15) -> float:
    """Return the FLOP/s of the layer that is fastest on known CPUs: what no network of convolutions can exceed here."""
    kind = torch.bfloat16 if is_half else torch.float32
    maps, weights = (one.to(dtype=kind, memory_format=torch.channels_last)
                     for one in (torch.randn(1, 256, 128, 128), torch.randn(512, 256, 4, 4)))
    run = partial(functional.conv2d, maps, weights, stride=2, padding=1)
    return 2 * 16 * 256 * 512 * 64 ** 2 / time_runs(run, n_runs)
