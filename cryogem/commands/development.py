"""What turns noise-free micrographs into finished ones: noise, or a trained model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cryogem.commands.priors import MEASURED, PriorRecipe, make_prior, take_off_ice
from cryogem.config import NOISE_MODELS, GenerateConfig
from cryogem.imaging.calibration import Calibration
from cryogem.imaging.noise import (
    add_gaussian_noise,
    add_poisson_gaussian_noise,
    add_poisson_noise,
)
from cryogem.records import Micrograph
from cryogem.translation.hardware import keep_freed_memory
from cryogem.translation.lean import LeanPaperGenerator
from cryogem.translation.model import load_generator, passes_gate, read_card
from cryogem.translation.pairs import stack_inputs
from cryogem.translation.paper import PaperGenerator
from cryogem.translation.translate import plan_passes, translate_all, translate_scaled


@dataclass(frozen=True)
class Undeveloped:
    """A noise-free micrograph with its ice."""

    image: np.ndarray                       # (h, w) float32, contrast units
    record: Micrograph
    rng: np.random.Generator                # of its noise


Finish = Callable[[np.ndarray, Micrograph, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Developer:
    """Finishes micrographs, `batch_size` of them at once; each comes out the same whatever lies beside it."""

    finish: Callable[[Sequence[Undeveloped]], list[np.ndarray]]         # (h, w) float32 each, contrast units
    batch_size: int = 1


def build_developer(config: GenerateConfig, calibration: Calibration, device: torch.device) -> Developer:
    """Return what finishes the micrographs of a run; the shape of the frames is that of `calibration`."""
    if config.model in NOISE_MODELS:
        add_noise = build_noise(config, calibration)
        return Developer(lambda frames: [add_noise(one.image, one.record, one.rng) for one in frames])
    return _build_trained(config, calibration, device)


def build_noise(config: GenerateConfig, calibration: Calibration) -> Finish:
    """Return what adds the noise of a noise model to an (h, w) noise-free image with ice, both in contrast units."""
    electrons = config.dose * calibration.pixel_size ** 2
    if config.model == 'gaussian':
        return lambda image, _, rng: add_gaussian_noise(image, config.snr, rng)
    if config.model == 'poisson':
        return lambda image, _, rng: add_poisson_noise(image, electrons, rng)
    if config.model == 'poisson_gaussian':
        return lambda image, _, rng: add_poisson_gaussian_noise(image, electrons, config.snr, rng)
    return lambda image, record, rng: make_prior(MEASURED, image, record, calibration, rng)[0]


def _build_trained(config: GenerateConfig, calibration: Calibration, device: torch.device) -> Developer:
    """Return what finishes images with a trained model, or with the prior of one that did not pass its gate."""
    card = read_card(Path(config.model))
    description = card.get('description', {})
    recipe = PriorRecipe.from_card(description, config.snr)

    def start(one: Undeveloped) -> tuple[np.ndarray, np.ndarray]:
        clean = one.image if recipe.has_ice else take_off_ice(one.image, one.record, calibration)
        return make_prior(recipe, clean, one.record, calibration, one.rng)

    if not (config.force or passes_gate(card)):
        return Developer(lambda frames: [start(one)[0] for one in frames])
    keep_freed_memory()
    generator = load_generator(Path(config.model), device)
    if isinstance(generator, PaperGenerator):
        published = LeanPaperGenerator(generator)
        return Developer(lambda frames: [
            translate_scaled(published, start(one)[0], description.get('contrast_span')) for one in frames])
    passes = plan_passes(generator, calibration.shape, config.network_memory)
    is_conditioned = generator.sizes.get('n_inputs', 1) > 1

    def finish(frames: Sequence[Undeveloped]) -> list[np.ndarray]:
        inputs = []
        for one in frames:
            prior, signal = start(one)
            inputs.append(stack_inputs(prior, signal, one.rng) if is_conditioned else prior)
        return translate_all(generator, inputs, passes)

    return Developer(finish, passes.batch_size)
