"""What a training depends on besides its crops, and what the presets fix of it."""

from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from cryogem.translation.discriminator import PatchDiscriminator
from cryogem.translation.generator import ResidualGenerator
from cryogem.translation.losses import ProjectionHeads
from cryogem.translation.model import Generator
from cryogem.translation.paper import PaperGenerator

PAPER_SPAN = 5.0                            # contrast units that the published network's [-1, 1] stands for
_PUBLISHED_SD = 0.02                        # of the weights that the published training begins with


@dataclass(frozen=True)
class TrainerSettings:
    """What a training depends on besides its crops. Defaults of what users set are in `cryogem.config.TrainConfig`."""

    max_steps: int
    checkpoint_every: int
    learning_rate: float
    contrastive_weight: float
    temperature: float
    n_positions: int                        # per region, layer and crop
    seed: int
    max_minutes: float | None = None
    patience: int | None = None             # checks without a better model after which training ends
    preset: str = 'fast'
    sampling: str = 'guided'                # or uniform: without the mask
    decay_from: float = 1.0                 # share of the steps after which the learning rate falls linearly to zero
    mixed_precision: bool = False           # bf16 where the hardware has it
    channels: int = 16                      # of the residual generator
    n_levels: int = 3
    n_inputs: int = 1
    depth: int = 10                         # of the published generator
    width: int = 64
    discriminator_width: int = 32
    discriminator_layers: int = 3
    discriminator_widest: int = 4           # the last maps, in widths: the last layers would cost most
    discriminator_crop: int | None = None   # px: the discriminator sees a random part of this side; None: all
    contrastive_crops: int = 4              # crops per step in the contrastive loss, whose encoder pass costs a third
    penalty_weight: float = 0.01            # 1 makes the discriminator blind to skewed noise
    penalty_crops: int = 2                  # crops per step on which the gradient penalty is taken
    statistics_weight: float = 1.0          # of the texture statistics
    residual_weight: float = 0.0            # of the mean square of what the generator changes
    adversarial_weight: float = 1.0
    gain_rate: float = 5e-3                 # learning rate of the two gains of the residual generator for all places
    average_decay: float = 0.99             # of the running average of the generator's weights; 0: none


# What the publication fixes (METHOD): full passes, nothing beside its two losses.
PAPER: dict[str, Any] = {
    'preset': 'paper', 'decay_from': 0.25, 'discriminator_width': 128, 'discriminator_widest': 8, 'penalty_weight': 0.0,
    'residual_weight': 0.0, 'average_decay': 0.0, 'contrastive_crops': 1 << 30,
}


def build_networks(settings: TrainerSettings) -> tuple[Generator, nn.Module, ProjectionHeads]:
    """Return the untrained generator, discriminator and heads of a preset; they draw from torch's global stream."""
    is_paper = settings.preset == 'paper'
    generator: Generator
    if is_paper:
        generator = PaperGenerator(settings.depth, settings.width)
    else:
        generator = ResidualGenerator(settings.channels, settings.n_levels, settings.n_inputs)
    discriminator = PatchDiscriminator(settings.discriminator_width, settings.discriminator_layers,
                                       'instance' if is_paper else 'spectral', settings.discriminator_widest)
    heads = ProjectionHeads(generator.feature_channels)
    if is_paper:
        for network in (generator, discriminator, heads):
            draw_published_weights(network)
    return generator, discriminator, heads


def draw_published_weights(network: nn.Module) -> None:
    """Draw the weights of `network` as the published training begins: normal with a sd of 0.02, biases 0.

    Torch's own draws are several times as large in the last layer, which has 16 px for an input to torch's count: its
    tanh would begin saturated, and what it makes would have two grey levels.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, _PUBLISHED_SD)
            nn.init.zeros_(cast(nn.Parameter, module.bias))
