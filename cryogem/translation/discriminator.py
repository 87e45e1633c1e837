"""The discriminator: is each patch of a crop real?"""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cryogem.errors import ConfigError
from cryogem.translation.generator import SLOPE, use_channels_last
from cryogem.translation.minimal import MinimalConv2d
from cryogem.translation.paper import FrameNorm

NORMS = ('instance', 'spectral')


class PatchDiscriminator(nn.Module):
    """Convolutional discriminator of overlapping patches (70 px with 3 layers).

    Parameters
    ----------
    width : maps after the first convolution; then 2, 4, 8, 8, ... times as many.
    n_layers : convolutions that halve the frame.
    norm : 'instance' is the published network, under its parameter names; 'spectral' bounds the slope of every
        convolution instead (Miyato et al. 2018, arXiv 1802.05957), without statistics over the frame.
    widest : bound of the growth of the maps, in widths.
    """

    def __init__(self, width: int, n_layers: int = 3, norm: str = 'spectral', widest: int = 8):
        super().__init__()
        if norm not in NORMS:
            raise ConfigError(f'norm cannot be {norm!r}; say one of {", ".join(NORMS)}')
        if width < 1 or n_layers < 1 or widest < 1:
            raise ConfigError(f'width, n_layers and widest cannot be {width}, {n_layers} and {widest}; '
                              'give positive numbers')
        widths = [1] + [width * min(2 ** level, widest) for level in range(n_layers + 1)]
        layers: list[nn.Module] = []
        for level, (above, below) in enumerate(zip(widths, widths[1:], strict=False)):
            convolution: nn.Conv2d
            if norm == 'instance' and level == n_layers:        # half of all products of the published training
                convolution = MinimalConv2d(above, below)
            else:
                convolution = nn.Conv2d(above, below, 4, stride=2 if level < n_layers else 1, padding=1)
            layers.append(spectral_norm(convolution) if norm == 'spectral' else convolution)
            if norm == 'instance' and level > 0:
                layers.append(FrameNorm())
            layers.append(nn.LeakyReLU(SLOPE))
        last = nn.Conv2d(widths[-1], 1, 4, padding=1)
        layers.append(spectral_norm(last) if norm == 'spectral' else last)
        self.model = nn.Sequential(*layers)
        use_channels_last(self)

    def forward(self, image: Tensor) -> Tensor:
        """Judge each patch of `image` (b, 1, h, w): (b, 1, h', w') scores, towards 1 for real and 0 for generated."""
        return self.model(image)
