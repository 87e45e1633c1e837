"""`cryogem generate`: any number of micrographs that look like the real ones, with all labels."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import torch

from cryogem.commands.development import Undeveloped, build_developer
from cryogem.commands.inputs import choose_device, read_maps
from cryogem.commands.making import enter_output, make_dataset
from cryogem.commands.memory import state_memory
from cryogem.commands.planning import build_plan, cover_output, refine
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
from cryogem.specimen.ensemble import Ensemble
from cryogem.specimen.volume import bring_to_pixel_size
from cryogem.translation.model import load_generator, passes_gate, read_card
from cryogem.translation.paper import PaperGenerator
from cryogem.translation.translate import plan_passes

logger = logging.getLogger(__name__)


def run(config: GenerateConfig, output: Path) -> None:
    """Draw, paint and image specimens like those of the simulate run, then add noise or translate them."""
    with join_team(config.shard) as team:
        device = choose_device(config.device)
        enter_output('generate', config, output, team)
        dataset = read_dataset(Path(config.dataset))
        plan = build_plan('generate', config, dataset.calibration,
                          dataset.manifest['box_size'] * dataset.manifest['pixel_size'], dataset.config.symmetry)
        covering = cover_output(dataset.calibration, plan)
        check_model(config.model, covering, config.network_memory, config.force)
        ensemble = _obtain_ensemble(config, dataset, device)
        settings: SimulateConfig = dataclasses.replace(dataset.config, seed=config.seed, prefix=config.prefix)
        protocol = build_protocol(settings, covering, ensemble.diameter)
        # the same seed must not repeat the specimens that a model was trained on
        protocol = dataclasses.replace(protocol, purpose=GENERATED)
        state_memory(plan, covering, ensemble, config.workers, find_architecture(config.model),
                     config.network_memory * 2 ** 30)
        make_dataset(config, output, plan, dataset.calibration, ensemble, team, _build_stages,
                     (output, plan, config, protocol, covering, ensemble, device))


def find_architecture(model: str) -> str:
    """Return the architecture of a trained model, nothing for a noise model."""
    return '' if model in NOISE_MODELS else str(read_card(Path(model)).get('architecture'))


def check_model(model: str, calibration: Calibration, network_memory: float, is_forced: bool = False) -> None:
    """Refuse a model that does not fit the simulate run, before anything is made; say if its prior will be used.

    Raises
    ------
    InputError : the model was trained at another pixel size, or its network does not take frames of this shape or in
        so little memory.
    """
    if model in NOISE_MODELS:
        return
    card = read_card(Path(model))
    trained_at = card.get('description', {}).get('pixel_size')
    if trained_at is not None and abs(trained_at / calibration.pixel_size - 1) > 0.01:
        raise InputError(f'model {model!r} was trained at {trained_at:g} Å/px but the dataset has '
                         f'{calibration.pixel_size:g}; train on this dataset, or simulate at that working_pixel_size')
    generator = load_generator(Path(model))
    plan_passes(generator, calibration.shape, network_memory)
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


def _obtain_ensemble(config: GenerateConfig, dataset: SimulatedDataset, device: torch.device) -> Ensemble:
    if not config.volume:
        return dataset.load_ensemble(device)
    maps, weights = read_maps(config.volume, config.volume_pixel_size, dataset.config)
    volumes = [bring_to_pixel_size(one, dataset.calibration.pixel_size) for one in maps]
    return build_filtered_ensemble(volumes, weights, dataset.calibration.map_gain, device)


def _build_stages(output: Path, plan: Plan, config: GenerateConfig, protocol: Protocol, calibration: Calibration,
                  ensemble: Ensemble, device: torch.device) -> Stages:
    """Return what makes micrographs and writes them."""
    developer = build_developer(config, calibration, device)

    def prepare(index: int) -> Exposure:
        record = draw_record(protocol, calibration, ensemble, index)
        return expose(record, ensemble, protocol.defocus_error, calibration)

    def develop(exposures: list[Exposure]) -> list[tuple[Exposure, np.ndarray]]:
        undeveloped = [Undeveloped(add_ice(one.clean, one.record, calibration), one.record,
                                   spawn_generator(protocol.seed, one.record.index, NOISE)) for one in exposures]
        return [refine(one, contrast, plan, calibration,
                       spawn_generator(protocol.seed, one.record.index, FINE_NOISE))
                for one, contrast in zip(exposures, developer.finish(undeveloped), strict=True)]

    def write(developed: tuple[Exposure, np.ndarray]) -> None:
        exposure, contrast = developed
        grey = GreyScale(exposure.record.grey_mean, exposure.record.grey_sd)
        write_micrograph(output, exposure, grey.restore(contrast), plan)

    return Stages(prepare, develop, write, developer.batch_size)
