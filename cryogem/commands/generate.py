"""`cryogem generate`: any number of micrographs that look like the real ones, with all labels."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cryogem.commands.inputs import check_compiler, choose_device, read_maps
from cryogem.commands.making import make_dataset
from cryogem.commands.simulate import build_filtered_ensemble, build_protocol
from cryogem.config import NOISE_MODELS, GenerateConfig, SimulateConfig, describe_run
from cryogem.dataset.reader import SimulatedDataset, read_dataset
from cryogem.dataset.writer import check_output, write_micrograph
from cryogem.errors import InputError
from cryogem.imaging.calibration import Calibration
from cryogem.imaging.exposure import GENERATED, NOISE, Protocol, add_ice, draw_record, expose, spawn_generator
from cryogem.imaging.grey import GreyScale
from cryogem.imaging.noise import (
    add_gaussian_noise,
    add_measured_noise,
    add_poisson_gaussian_noise,
    add_poisson_noise,
)
from cryogem.records import Micrograph
from cryogem.specimen.ensemble import Ensemble
from cryogem.specimen.volume import bring_to_pixel_size
from cryogem.translation.generator import PaperGenerator
from cryogem.translation.translate import load_generator, read_card, translate

Finish = Callable[[np.ndarray, Micrograph, np.random.Generator], np.ndarray]


def run(config: GenerateConfig, output: Path) -> None:
    """Draw, paint and image specimens like those of the simulate run, then add noise or translate them."""
    device = choose_device(config.device)
    check_compiler(config.compile_projection)
    check_output(output, describe_run('generate', config), config.continue_)
    dataset = read_dataset(Path(config.dataset))
    check_model(config.model, dataset.calibration)
    ensemble = _obtain_ensemble(config, dataset, device)
    settings: SimulateConfig = dataclasses.replace(dataset.config, seed=config.seed, prefix=config.prefix)
    protocol = build_protocol(settings, dataset.calibration, ensemble.diameter)
    # the same seed must not repeat the specimens that a model was trained on
    protocol = dataclasses.replace(protocol, purpose=GENERATED)
    make_dataset('generate', config, output, dataset.calibration, ensemble, _build_maker,
                 (output, config, protocol, dataset.calibration, ensemble, device),
                 config.box_size or int(dataset.manifest['box_size']), settings.symmetry)


def check_model(model: str, calibration: Calibration) -> None:
    """Refuse a model that does not fit the simulate run, before anything is made.

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


def build_finish(config: GenerateConfig, calibration: Calibration, device: torch.device) -> Finish:
    """Return what turns an (h, w) noise-free image with ice into a finished one, both in contrast units."""
    electrons = config.dose * calibration.pixel_size ** 2
    if config.model == 'gaussian':
        return lambda image, _, rng: add_gaussian_noise(image, config.snr, rng)
    if config.model == 'poisson':
        return lambda image, _, rng: add_poisson_noise(image, electrons, rng)
    if config.model == 'poisson_gaussian':
        return lambda image, _, rng: add_poisson_gaussian_noise(image, electrons, config.snr, rng)

    def add_measured(image: np.ndarray, record: Micrograph, rng: np.random.Generator) -> np.ndarray:
        return add_measured_noise(image, np.array(calibration.micrographs[record.source].noise_power), rng)

    if config.model == 'measured':
        return add_measured
    generator = load_generator(Path(config.model), device)
    if isinstance(generator, PaperGenerator):
        return lambda image, _, rng: translate_published(generator, add_gaussian_noise(image, config.snr, rng))
    return lambda image, record, rng: translate(generator, add_measured(image, record, rng))


def translate_published(generator: torch.nn.Module, noisy: np.ndarray) -> np.ndarray:
    """Run a published network over an (h, w) image: scaled to [-1, 1] on the way in, to unit sd on the way out."""
    low, high = float(noisy.min()), float(noisy.max())
    output = translate(generator, (noisy - low) / (high - low + 1e-8) * 2 - 1)
    return ((output - output.mean()) / output.std()).astype(np.float32)


def _obtain_ensemble(config: GenerateConfig, dataset: SimulatedDataset, device: torch.device) -> Ensemble:
    if not config.volume:
        return dataset.load_ensemble(device, config.compile_projection)
    maps, weights = read_maps(config.volume, dataset.config)
    volumes = [bring_to_pixel_size(one, dataset.calibration.pixel_size) for one in maps]
    return build_filtered_ensemble(volumes, weights, dataset.calibration.map_gain, device, config.compile_projection)


def _build_maker(output: Path, config: GenerateConfig, protocol: Protocol, calibration: Calibration,
                 ensemble: Ensemble, device: torch.device) -> Callable[[int], None]:
    """Return what makes one micrograph and writes it."""
    finish = build_finish(config, calibration, device)

    def make(index: int) -> None:
        exposure = expose(draw_record(protocol, calibration, ensemble, index), ensemble, protocol.defocus_error)
        record = exposure.record
        contrast = finish(add_ice(exposure.clean, record, calibration), record,
                          spawn_generator(protocol.seed, index, NOISE))
        write_micrograph(output, exposure, GreyScale(record.grey_mean, record.grey_sd).restore(contrast))
    return make
