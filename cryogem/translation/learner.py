"""Networks, losses and optimizers: what one training step changes."""

import copy
import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cryogem.translation.engine import Engine
from cryogem.translation.generator import use_layout
from cryogem.translation.hardware import has_fast_bf16
from cryogem.translation.losses import (
    compute_contrastive_loss,
    compute_discriminator_loss,
    compute_generator_loss,
    compute_gradient_penalty,
)
from cryogem.translation.model import Generator
from cryogem.translation.pairs import CropBatch
from cryogem.translation.sampling import Positions, RegionPositions, draw_positions, draw_region_positions, reduce_mask
from cryogem.translation.settings import PAPER_SPAN, TrainerSettings, build_networks
from cryogem.translation.statistics import StatisticsGoal

LOSSES = ('d_loss', 'g_loss', 'contrastive_loss', 'statistics_loss', 'gradient_penalty', 'residual_rms', 'd_gradient',
          'g_gradient')
_POSITIONS_STREAM, _WINDOW_STREAM = 1, 2    # distinguish these streams from others of the same seed

logger = logging.getLogger(__name__)


class Learner:
    """Generator, discriminator and projection heads with their optimizers and the generator's running average.

    Parameters
    ----------
    engine : the processes that learn together; without, this one alone on the CPU.
    goal : what the texture statistics should become, for settings with a weight for them.
    """

    def __init__(self, settings: TrainerSettings, engine: Engine | None = None,
                 goal: StatisticsGoal | None = None):
        self._settings, self._engine = settings, engine or Engine()
        device = self._engine.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self._generator, self._discriminator, self._heads = build_networks(settings)
        networks: tuple[nn.Module, ...] = (self._generator, self._discriminator, self._heads)
        for network in networks:
            network.to(device)
        self._has_average = settings.average_decay > 0
        self.averaged: Generator = self._generator
        if self._has_average:
            self.averaged = copy.deepcopy(self._generator).eval().requires_grad_(False)
        self._goal = goal.to(device) if goal is not None and settings.statistics_weight > 0 else None
        self._span = PAPER_SPAN if settings.preset == 'paper' else None
        self._is_mixed = settings.mixed_precision and has_fast_bf16(device)
        if settings.mixed_precision and not self._is_mixed:
            logger.info('%s has no fast bf16; training in float32', device)
        if settings.preset == 'paper' and device.type == 'cpu' and not self._is_mixed:
            # where the gradients of its wide kernels are slower with channels last
            for network in (self._generator, self._discriminator):
                use_layout(network, torch.contiguous_format)
        self._optimizers = [torch.optim.Adam(_group(one, settings), settings.learning_rate, (0.5, 0.999))
                            for one in networks]
        self._parts: dict[str, Any] = {
            'generator': self._generator, 'discriminator': self._discriminator, 'heads': self._heads,
            **({'averaged': self.averaged} if self._has_average else {}),
            **{f'optimizer_{index}': one for index, one in enumerate(self._optimizers)},
        }

    def learn(self, batch: CropBatch, step: int) -> dict[str, float]:
        """Take one step and return the losses of it over all processes, by the names of `LOSSES`.

        When one of them is not finite the networks are left as they were. Generator and discriminator learn from the
        same crops, each against the other as it was before the step.
        """
        batch = batch.to(self._engine.device)
        inputs, real = self._scale(batch.inputs), self._scale(batch.real)
        with self._autocast():
            generated, features = self._generator.translate_with_features(inputs)
        generated = generated.float()
        windows = self._cut(step, real, generated)
        d_loss, penalty = self._measure_discriminator(windows[0], windows[1].detach())
        losses = {'d_loss': d_loss, 'gradient_penalty': penalty,
                  **self._measure_generator(batch, inputs, generated, windows[1], features, step)}
        for network in (self._discriminator, self._generator, self._heads):
            self._engine.average_gradients(network.parameters())
        losses['residual_rms'] = (generated.detach() - inputs[:, :1]).square().mean()       # its root comes last
        averaged = self._engine.average(torch.stack([one.detach().float() for one in losses.values()]))
        values = dict(zip(losses, averaged.double().tolist(), strict=True))
        values['residual_rms'] **= 0.5
        values['d_gradient'] = float(_measure_gradient(self._discriminator.parameters()))
        values['g_gradient'] = float(_measure_gradient([*self._generator.parameters(), *self._heads.parameters()]))
        if np.isfinite(list(values.values())).all():
            self._update(step)
        return {key: values[key] for key in LOSSES}

    def _scale(self, images: Tensor) -> Tensor:
        """Bring contrast units to what the networks see."""
        return images if self._span is None else (images / self._span).clamp(-1, 1)

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self._engine.device.type, torch.bfloat16, enabled=self._is_mixed)

    def _cut(self, step: int, *images: Tensor) -> list[Tensor]:
        """Return the part of `images` that the discriminator sees in this step."""
        side, length = self._settings.discriminator_crop, min(images[0].shape[-2:])
        if side is None or side >= length:
            return list(images)
        entropy = np.random.SeedSequence(self._settings.seed, spawn_key=(_WINDOW_STREAM, step))
        corners = np.random.default_rng(entropy).integers(length - side + 1, size=(len(images), 2))
        return [one[..., y:y + side, x:x + side] for one, (y, x) in zip(images, corners.tolist(), strict=True)]

    def _measure_discriminator(self, real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
        """Set the gradients of the discriminator; return its loss and the gradient penalty."""
        self._optimizers[1].zero_grad()
        if not self._settings.adversarial_weight:
            return generated.new_zeros(()), generated.new_zeros(())
        n_penalty = min(self._share(self._settings.penalty_crops), len(real)) if self._settings.penalty_weight else 0
        flat = real[:n_penalty].clone().requires_grad_()            # a part only: the penalty's gradient costs double
        with self._autocast():
            if len(real) == 1 and not n_penalty:        # frames one by one: their norms stay in the layout they are in
                scores_real, scores_generated = self._discriminator(real), self._discriminator(generated)
            else:
                scores = self._discriminator(torch.cat([flat, real[n_penalty:], generated]))
                scores_real, scores_generated = scores[:len(real)], scores[len(real):]
        loss = compute_discriminator_loss(scores_real.float(), scores_generated.float())
        penalty = loss.new_zeros(())
        if n_penalty:
            penalty = compute_gradient_penalty(scores_real[:n_penalty], flat)
        (loss + self._settings.penalty_weight * penalty).backward()
        return loss, penalty

    def _measure_generator(
        self, batch: CropBatch, inputs: Tensor, generated: Tensor, window: Tensor, features: list[Tensor], step: int
    ) -> dict[str, Tensor]:
        """Set the gradients of generator and heads; return their losses."""
        settings, zero = self._settings, generated.new_zeros(())
        self._optimizers[0].zero_grad()
        self._optimizers[2].zero_grad()
        self._discriminator.requires_grad_(False)
        adversarial = contrastive = statistics = zero
        if settings.adversarial_weight > 0:
            with self._autocast():
                scores = self._discriminator(window)
            adversarial = compute_generator_loss(scores.float())
        if settings.contrastive_weight > 0:
            contrastive = self._compare(batch, inputs, generated, features, step)
        if self._goal:
            prior = self._engine.gather(inputs[:, :1])
            statistics = self._goal.compare(self._engine.gather(generated), prior)
        changed = (generated - inputs[:, :1]).square().mean() if settings.residual_weight > 0 else zero
        (settings.adversarial_weight * adversarial + settings.contrastive_weight * contrastive
         + settings.statistics_weight * statistics + settings.residual_weight * changed).backward()
        self._discriminator.requires_grad_(True)
        return {'g_loss': adversarial, 'contrastive_loss': contrastive, 'statistics_loss': statistics}

    def _compare(self, batch: CropBatch, inputs: Tensor, generated: Tensor, features: list[Tensor], step: int
                 ) -> Tensor:
        """Return the contrastive loss; the keys are the features the generated crops were made from."""
        n = min(self._share(self._settings.contrastive_crops), len(generated))
        places: list[list[Positions | RegionPositions]] = [[] for _ in features]
        for crop, number in enumerate(batch.numbers[:n]):
            random = self._make_generator(step, number)
            for layer, one in enumerate(features):
                places[layer].append(self._draw_places(reduce_mask(batch.mask[crop:crop + 1], one.shape[-2:]), random))
        with self._autocast():                  # the encoder alone
            queries = self._generator.encode(torch.cat([generated[:n], inputs[:n, 1:]], dim=1))
        keys = [one[:n].detach().float() for one in features]
        return compute_contrastive_loss(
            self._heads, [one.float() for one in queries], keys, [_join(one) for one in places],
            self._settings.temperature, self._engine.average)

    def _draw_places(self, mask: Tensor, random: torch.Generator) -> Positions | RegionPositions:
        if self._settings.sampling == 'uniform':
            return draw_positions(torch.ones_like(mask), self._settings.n_positions, random)
        return draw_region_positions(mask, self._settings.n_positions, random)

    def _make_generator(self, step: int, number: int) -> torch.Generator:
        """Return the random stream of the positions in one crop: whichever process holds it draws the same."""
        entropy = np.random.SeedSequence(self._settings.seed, spawn_key=(_POSITIONS_STREAM, step, number))
        return torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def _share(self, n_crops: int) -> int:
        """Return this process' part of `n_crops` of a step."""
        return -(-n_crops // self._engine.n_processes)

    @torch.no_grad()
    def _update(self, step: int) -> None:
        """Step all optimizers; move the average, faster in the first steps, when it knows little."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group['lr'] = group['initial_lr'] * find_rate_factor(step, self._settings)
            optimizer.step()
        if self._has_average:
            decay = min(self._settings.average_decay, (1 + step) / (10 + step))
            for average, current in zip(self.averaged.parameters(), self._generator.parameters(), strict=True):
                average.lerp_(current, 1 - decay)

    def translate(self, inputs: Tensor) -> Tensor:
        """Translate `inputs` (b, n_inputs, h, w) with the averaged generator, contrast units in and out."""
        with torch.inference_mode(), self._autocast():
            output = self.averaged(self._scale(inputs.to(self._engine.device))).float()
        return output * (self._span or 1.0)

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


def _group(network: nn.Module, settings: TrainerSettings) -> list[dict[str, Any]]:
    """Return the parameters of `network` with their learning rates: the two gains for all places learn faster."""
    fast = [one for name, one in network.named_parameters() if name == 'gains']
    rest = [one for name, one in network.named_parameters() if name != 'gains']
    groups = [(rest, settings.learning_rate), (fast, settings.gain_rate)]
    return [{'params': members, 'lr': rate, 'initial_lr': rate} for members, rate in groups if members]


def find_rate_factor(step: int, settings: TrainerSettings) -> float:
    """Return the factor of the learning rate in `step` (from 0): one, then falling linearly towards zero at the end."""
    first = settings.decay_from * settings.max_steps
    if settings.decay_from >= 1 or step < first:
        return 1.0
    return max(0.0, (settings.max_steps - step) / (settings.max_steps - first))


def _join(places: list[Positions | RegionPositions]) -> Any:
    """Put the positions of single crops together."""
    if isinstance(places[0], RegionPositions):
        return RegionPositions(_join([one.particle for one in places if isinstance(one, RegionPositions)]),
                               _join([one.background for one in places if isinstance(one, RegionPositions)]))
    drawn = [one for one in places if isinstance(one, Positions)]
    return Positions(torch.cat([one.index for one in drawn]), torch.cat([one.is_drawn for one in drawn]))


def _measure_gradient(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together."""
    return nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
