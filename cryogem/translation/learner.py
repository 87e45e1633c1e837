"""Networks, losses and optimizers of the `fast` preset: what one training step changes."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cryogem.translation.discriminator import PatchDiscriminator
from cryogem.translation.generator import ResidualGenerator
from cryogem.translation.losses import (
    ProjectionHeads,
    compute_contrastive_loss,
    compute_discriminator_loss,
    compute_generator_loss,
    compute_gradient_penalty,
)
from cryogem.translation.pairs import CropBatch
from cryogem.translation.sampling import draw_region_positions, reduce_mask

LOSSES = ('d_loss', 'g_loss', 'contrastive_loss', 'gradient_penalty', 'residual_rms', 'd_gradient', 'g_gradient')
_POSITIONS_STREAM = 1                       # distinguishes the stream of positions from others of the same seed


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
    device: str = 'cpu'
    channels: int = 24                      # of the generator
    n_levels: int = 3
    discriminator_width: int = 32
    discriminator_layers: int = 3
    discriminator_widest: int = 4           # the last maps, in widths: the last layers would cost most
    contrastive_crops: int = 4              # crops per step in the contrastive loss, whose encoder pass costs a third
    penalty_weight: float = 0.01            # 1 makes the discriminator blind to skewed noise
    penalty_crops: int = 2                  # crops per step on which the gradient penalty is taken
    average_decay: float = 0.99             # of the running average of the generator's weights


class Learner:
    """Generator, discriminator and projection heads with their optimizers and the generator's running average."""

    def __init__(self, settings: TrainerSettings):
        self._settings = settings
        self._device = torch.device(settings.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self._generator = ResidualGenerator(settings.channels, settings.n_levels)
            self._discriminator = PatchDiscriminator(
                settings.discriminator_width, settings.discriminator_layers, 'spectral', settings.discriminator_widest)
            self._heads = ProjectionHeads(self._generator.feature_channels)
        networks: tuple[nn.Module, ...] = (self._generator, self._discriminator, self._heads)
        for network in networks:
            network.to(self._device)
        self.averaged = copy.deepcopy(self._generator).eval().requires_grad_(False)
        self._optimizers = [self._make_optimizer(network) for network in networks]
        self._parts: dict[str, Any] = {
            'generator': self._generator, 'discriminator': self._discriminator, 'heads': self._heads,
            'averaged': self.averaged,
            **{f'optimizer_{index}': one for index, one in enumerate(self._optimizers)},
        }

    def _make_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), lr=self._settings.learning_rate, betas=(0.5, 0.999))

    def learn(self, batch: CropBatch, step: int) -> dict[str, float]:
        """Take one step and return the losses of it, by the names of `LOSSES`.

        When one of them is not finite the networks are left as they were.
        """
        batch = batch.to(self._device)
        features = self._generator.encode(batch.prior)
        generated = self._generator.decode(batch.prior, features)
        d_loss, penalty = self._measure_discriminator(generated.detach(), batch.real)
        for_generator = self._measure_generator(generated, features, batch.mask, step)
        losses = {
            'd_loss': d_loss, 'gradient_penalty': penalty, **for_generator,
            'residual_rms': (generated.detach() - batch.prior).square().mean().sqrt(),
            'd_gradient': _measure_gradient(self._discriminator.parameters()),
            'g_gradient': _measure_gradient([*self._generator.parameters(), *self._heads.parameters()]),
        }
        values = dict(zip(losses, torch.stack(list(losses.values())).detach().double().tolist(), strict=True))
        if np.isfinite(list(values.values())).all():
            for optimizer in self._optimizers:
                optimizer.step()
            self._update_average(step)
        return {key: values[key] for key in LOSSES}

    def _measure_discriminator(self, generated: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Set the gradients of the discriminator; return its loss and the gradient penalty."""
        self._optimizers[1].zero_grad()
        n_penalty = min(self._settings.penalty_crops, len(real))
        flat = real[:n_penalty].clone().requires_grad_()            # a part only: the penalty's gradient costs double
        scores = self._discriminator(torch.cat([flat, real[n_penalty:], generated]))
        scores_real, scores_generated = scores[:len(real)], scores[len(real):]
        loss = compute_discriminator_loss(scores_real, scores_generated)
        penalty = compute_gradient_penalty(scores_real[:n_penalty], flat) if n_penalty else loss.new_zeros(())
        (loss + self._settings.penalty_weight * penalty).backward()
        return loss, penalty

    def _measure_generator(self, generated: Tensor, features: list[Tensor], mask: Tensor, step: int
                           ) -> dict[str, Tensor]:
        """Set the gradients of generator and heads; return their losses.

        Generator and discriminator learn from the same crops, each against the other as it was before the step.
        """
        self._optimizers[0].zero_grad()
        self._optimizers[2].zero_grad()
        self._discriminator.requires_grad_(False)
        adversarial = compute_generator_loss(self._discriminator(generated))
        contrastive = adversarial.new_zeros(())
        if self._settings.contrastive_weight > 0:
            contrastive = self._compare(generated, features, mask, step)
        (adversarial + self._settings.contrastive_weight * contrastive).backward()
        self._discriminator.requires_grad_(True)
        return {'g_loss': adversarial, 'contrastive_loss': contrastive}

    def _compare(self, generated: Tensor, features: list[Tensor], mask: Tensor, step: int) -> Tensor:
        """Return the contrastive loss; the keys are the features the generated crops were made from."""
        n = self._settings.contrastive_crops
        entropy = np.random.SeedSequence(self._settings.seed, spawn_key=(_POSITIONS_STREAM, step))
        random = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        positions = [
            draw_region_positions(reduce_mask(mask[:n], one.shape[-2:]), self._settings.n_positions, random)
            for one in features]
        queries = self._generator.encode(generated[:n])
        keys = [one[:n].detach() for one in features]
        return compute_contrastive_loss(self._heads, queries, keys, positions, self._settings.temperature)

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        """Move the average towards the generator, faster in the first steps, when the average knows little."""
        decay = min(self._settings.average_decay, (1 + step) / (10 + step))
        for average, current in zip(self.averaged.parameters(), self._generator.parameters(), strict=True):
            average.lerp_(current, 1 - decay)

    def translate(self, prior: Tensor) -> Tensor:
        """Translate `prior` (b, 1, h, w) with the averaged generator."""
        with torch.inference_mode():
            return self.averaged(prior.to(self._device))

    def state_dict(self) -> dict[str, Any]:
        """Return all that a later step depends on."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Raises
        ------
        KeyError, RuntimeError, ValueError : the state is of other networks.
        """
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _measure_gradient(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together."""
    return nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
