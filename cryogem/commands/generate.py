"""`cryogem generate`: any number of micrographs that look like the real ones, with all labels."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryogem.commands.inputs import check_compiler, choose_device, read_maps
from cryogem.commands.making import enter_output, make_dataset
from cryogem.commands.memory import state_memory
from cryogem.commands.planning import build_plan, cover_output, refine
from cryogem.commands.priors import MEASURED, PriorRecipe, make_prior, take_off_ice
from cryogem.commands.simulate import build_filtered_ensemble, build_protocol
from cryogem.config import NOISE_MODELS, GenerateConfig, SimulateConfig
from cryogem.dataset.plan import Plan
from cryogem.dataset.production import Stages
from cryogem.dataset.reader import SimulatedDataset, read_dataset
from cryogem.dataset.team import join_team
from cryogem.dataset.writer import write_micrograph
from cryogem.errors import InputError
from cryogem.imaging.calibration import Calibration
from cryogem.imaging.exposure import (
    FINE_NOISE,
    GENERATED,
    NOISE,
    Exposure,
    Protocol,
    add_ice,
    draw_record,
    expose,
    spawn_generator,
)
from cryogem.imaging.grey import GreyScale
from cryogem.imaging.noise import (
    add_gaussian_noise,
    add_poisson_gaussian_noise,
    add_poisson_noise,
)
from cryogem.records import Micrograph
from cryogem.specimen.ensemble import Ensemble
from cryogem.specimen.volume import bring_to_pixel_size
from cryogem.translation.hardware import keep_freed_memory
from cryogem.translation.lean import LeanPaperGenerator
from cryogem.translation.model import load_generator, read_card
from cryogem.translation.pairs import stack_inputs
from cryogem.translation.paper import PaperGenerator
from cryogem.translation.translate import translate, translate_scaled

logger = logging.getLogger(__name__)

Finish = Callable[[np.ndarray, Micrograph, np.random.Generator], np.ndarray]


def run(config: GenerateConfig, output: Path) -> None:
    """Draw, paint and image specimens like those of the simulate run, then add noise or translate them."""
    with join_team(config.shard) as team:
        device = choose_device(config.device)
        check_compiler(config.compile_projection)
        enter_output('generate', config, output, team)
        dataset = read_dataset(Path(config.dataset))
        plan = build_plan('generate', config, dataset.calibration,
                          dataset.manifest['box_size'] * dataset.manifest['pixel_size'], dataset.config.symmetry)
        covering = cover_output(dataset.calibration, plan)
        check_model(config.model, covering, config.force)
        ensemble = _obtain_ensemble(config, dataset, device)
        settings: SimulateConfig = dataclasses.replace(dataset.config, seed=config.seed, prefix=config.prefix)
        protocol = build_protocol(settings, covering, ensemble.diameter)
        # the same seed must not repeat the specimens that a model was trained on
        protocol = dataclasses.replace(protocol, purpose=GENERATED)
        state_memory(plan, covering, ensemble, config.workers, find_architecture(config.model))
        make_dataset(config, output, plan, dataset.calibration, ensemble, team, _build_stages,
                     (output, plan, config, protocol, covering, ensemble, device))


def find_architecture(model: str) -> str:
    """Return the architecture of a trained model, nothing for a noise model."""
    return '' if model in NOISE_MODELS else str(read_card(Path(model)).get('architecture'))


def check_model(model: str, calibration: Calibration, is_forced: bool = False) -> None:
    """Refuse a model that does not fit the simulate run, before anything is made; say if its prior will be used.

    Raises
    ------
    InputError : the model was trained at another pixel size, or its network does not take frames of this shape.
    """
    if model in NOISE_MODELS:
        return
    card = read_card(Path(model))
    trained_at = card.get('description', {}).get('pixel_size')
    if trained_at is not None and abs(trained_at / calibration.pixel_size - 1) > 0.01:
        raise InputError(f'model {model!r} was trained at {trained_at:g} Å/px but the dataset has '
                         f'{calibration.pixel_size:g}; train on this dataset, or simulate at that working_pixel_size')
    generator = load_generator(Path(model))
    if isinstance(generator, PaperGenerator):
        side = 2 ** generator.sizes['depth']
        if any(length % side for length in calibration.shape):
            raise InputError(f'model {model!r} takes frames whose sides are multiples of {side} px, the dataset has '
                             f'{calibration.shape[1]} x {calibration.shape[0]}; use a model of the fast preset')
    if not passes_gate(card):
        realism = card['description']['gates']['realism']
        logger.warning('model %r is not better than the prior it starts from (distance %.4g to held-out real crops, '
                       'prior %.4g): %s', model, realism['model'], realism['prior'],
                       'it is used all the same' if is_forced else 'its prior is used; say --force to use the model')


def passes_gate(card: dict[str, Any]) -> bool:
    """Say whether a model was not found to be worse than its prior; one that was never judged passes."""
    return bool(card.get('description', {}).get('gates', {}).get('realism', {}).get('passed', True))


def build_finish(config: GenerateConfig, calibration: Calibration, device: torch.device) -> Finish:
    """Return what turns an (h, w) noise-free image with ice into a finished one, both in contrast units."""
    electrons = config.dose * calibration.pixel_size ** 2
    if config.model == 'gaussian':
        return lambda image, _, rng: add_gaussian_noise(image, config.snr, rng)
    if config.model == 'poisson':
        return lambda image, _, rng: add_poisson_noise(image, electrons, rng)
    if config.model == 'poisson_gaussian':
        return lambda image, _, rng: add_poisson_gaussian_noise(image, electrons, config.snr, rng)
    if config.model == 'measured':
        return lambda image, record, rng: make_prior(MEASURED, image, record, calibration, rng)[0]
    return _build_trained_finish(config, calibration, device)


def _build_trained_finish(config: GenerateConfig, calibration: Calibration, device: torch.device) -> Finish:
    """Return what finishes an image with a trained model, or with the prior of one that did not pass its gate."""
    card = read_card(Path(config.model))
    description = card.get('description', {})
    recipe = PriorRecipe.from_card(description, config.snr)

    def start(image: np.ndarray, record: Micrograph, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        clean = image if recipe.has_ice else take_off_ice(image, record, calibration)
        return make_prior(recipe, clean, record, calibration, rng)

    if not (config.force or passes_gate(card)):
        return lambda image, record, rng: start(image, record, rng)[0]
    keep_freed_memory()
    generator = load_generator(Path(config.model), device)
    published = LeanPaperGenerator(generator) if isinstance(generator, PaperGenerator) else None

    def finish(image: np.ndarray, record: Micrograph, rng: np.random.Generator) -> np.ndarray:
        prior, signal = start(image, record, rng)
        if published:
            return translate_scaled(published, prior, description.get('contrast_span'))
        is_conditioned = generator.sizes.get('n_inputs', 1) > 1
        return translate(generator, stack_inputs(prior, signal, rng) if is_conditioned else prior)

    return finish


def _obtain_ensemble(config: GenerateConfig, dataset: SimulatedDataset, device: torch.device) -> Ensemble:
    if not config.volume:
        return dataset.load_ensemble(device, config.compile_projection)
    maps, weights = read_maps(config.volume, dataset.config)
    volumes = [bring_to_pixel_size(one, dataset.calibration.pixel_size) for one in maps]
    return build_filtered_ensemble(volumes, weights, dataset.calibration.map_gain, device, config.compile_projection)


def _build_stages(output: Path, plan: Plan, config: GenerateConfig, protocol: Protocol, calibration: Calibration,
                  ensemble: Ensemble, device: torch.device) -> Stages:
    """Return what makes micrographs and writes them."""
    finish = build_finish(config, calibration, device)

    def prepare(index: int) -> Exposure:
        record = draw_record(protocol, calibration, ensemble, index)
        return expose(record, ensemble, protocol.defocus_error, calibration)

    def develop(exposures: list[Exposure]) -> list[tuple[Exposure, np.ndarray]]:
        developed = []
        for one in exposures:
            noise, fine_noise = (spawn_generator(protocol.seed, one.record.index, purpose)
                                 for purpose in (NOISE, FINE_NOISE))
            contrast = finish(add_ice(one.clean, one.record, calibration), one.record, noise)
            developed.append(refine(one, contrast, plan, calibration, fine_noise))
        return developed

    def write(developed: tuple[Exposure, np.ndarray]) -> None:
        exposure, contrast = developed
        grey = GreyScale(exposure.record.grey_mean, exposure.record.grey_sd)
        write_micrograph(output, exposure, grey.restore(contrast), plan)

    return Stages(prepare, develop, write)
