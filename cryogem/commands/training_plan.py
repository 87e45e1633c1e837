"""What a training is made of: its inputs read and checked, before anything is written."""

import dataclasses
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryogem.commands.crops import FreshCrops, RealCrops, SimulatedCrops, Split, split_micrographs
from cryogem.commands.judging import HeldOut
from cryogem.commands.priors import PriorRecipe
from cryogem.commands.simulate import build_protocol
from cryogem.config import TrainConfig, config_to_json
from cryogem.dataset import layout
from cryogem.dataset.reader import SimulatedDataset, read_dataset
from cryogem.errors import InputError
from cryogem.imaging.exposure import TRAINED, Protocol
from cryogem.io.files import compute_checksum, find_files
from cryogem.translation.engine import Engine
from cryogem.translation.pairs import CropSampler, DrawSimulated
from cryogem.translation.settings import PAPER, PAPER_SPAN, TrainerSettings
from cryogem.translation.statistics import (
    StatisticsGoal,
    TextureStatistics,
    estimate_certainty,
    measure_statistics,
)
from cryogem.translation.textures import SCALES

logger = logging.getLogger(__name__)

_LARGEST_CROP = 1024                        # px, of the paper preset: that of the publication
_LEAST_STRIP = 84                           # px: below it a strip says nothing about particles
_PRIOR_PARTS, _LEAST_PART = 8, 12           # groups of simulated crops; least crops of one group of micrographs
_STATISTICS_CROPS = 192                     # of each kind, whose texture statistics are compared
_JUDGED_CROPS = 96                          # of each kind, that choose the model: with 32 the choice was mostly chance
_JUDGED_STREAM, _STATISTICS_STREAM = 1, 2   # random streams of the seed, apart from that of the steps


@dataclass(frozen=True)
class TrainingPlan:
    """What a training is made of, all inputs read and checked."""

    config: TrainConfig
    dataset: SimulatedDataset
    recipe: PriorRecipe
    settings: TrainerSettings
    crop_size: int
    split: Split | None                     # None: nothing is held out
    real: RealCrops
    simulated: DrawSimulated

    @property
    def is_conditioned(self) -> bool:
        """Whether the generator sees signal and textures beside the prior."""
        return self.settings.n_inputs > 1

    def build_sampler(self, engine: Engine) -> CropSampler:
        """Return what gives this process its crops of each step."""
        return CropSampler(
            self.simulated, self.real.draw, self.crop_size, self.config.choose('batch_size'), self.config.seed,
            self.is_conditioned, 4 if self.config.preset == 'paper' else 8, engine.rank, engine.n_processes)

    def measure_textures(self) -> StatisticsGoal | None:
        """Return the statistics of real crops and of priors, where they are learned."""
        if not self.settings.statistics_weight:
            return None
        rng = np.random.default_rng(np.random.SeedSequence(self.config.seed, spawn_key=(0, _STATISTICS_STREAM)))
        n_parts = min(self.real.n_micrographs, _STATISTICS_CROPS // _LEAST_PART)
        n_crops = -(-_STATISTICS_CROPS // n_parts)
        # micrograph by micrograph, or where they are many so many of them at a time
        real = [[self.real.draw_from(index, rng, self.crop_size)
                 for index in np.resize(np.arange(part, self.real.n_micrographs, n_parts), n_crops)]
                for part in range(n_parts)]
        prior = [[self.simulated(rng, self.crop_size).prior for _ in range(_STATISTICS_CROPS // _PRIOR_PARTS)]
                 for _ in range(_PRIOR_PARTS)]
        (real_all, real_parts), (prior_all, prior_parts) = (_measure_parts(one) for one in (real, prior))
        return StatisticsGoal(real_all, prior_all, estimate_certainty(real_all, prior_all, real_parts, prior_parts))

    def build_judge(self, seed: int, n_crops: int = _JUDGED_CROPS) -> HeldOut:
        """Return held-out real crops and simulated ones of their own.

        Raises
        ------
        InputError : nothing is held out.
        """
        stream = int(np.random.SeedSequence(seed, spawn_key=(0, _JUDGED_STREAM)).generate_state(1)[0])
        return self.draw_crops(self.open_held_out(), n_crops, stream)

    def draw_crops(self, real: RealCrops, n_crops: int, seed: int,
                   make_draw: Callable[[int], DrawSimulated] | None = None) -> HeldOut:
        """Return crops of any real micrographs and as many simulated ones, as the generator must be given them."""
        whole = self.crop_size if self.config.preset == 'paper' else None
        return HeldOut(self.config.topaz_weights, real, make_draw or self.make_draw, whole, self.is_conditioned,
                       n_crops, seed)

    def open_held_out(self) -> RealCrops:
        """Return the held-out real micrographs.

        Raises
        ------
        InputError : nothing is held out.
        """
        if self.split is None:
            raise InputError('held_out 0 leaves nothing to judge a model by; give a share')
        return RealCrops(self.split.held_out, self.config.pixel_size, self.dataset.calibration,
                         self.split.held_out_part)

    def make_draw(self, side: int) -> DrawSimulated:
        """Return what draws simulated crops of another side, px."""
        return _make_simulated(self.config, self.dataset, side, self.recipe).draw

    def describe(self, engine: Engine) -> dict[str, Any]:
        """Return what the model's card says of its origin."""
        split = self.split
        settings = {key: self.config.choose(key) if key in vars(self.config) else value
                    for key, value in config_to_json(self.config).items()}
        return {
            'preset': self.config.preset, 'pixel_size': self.dataset.calibration.pixel_size,
            'n_real_micrographs': self.real.n_micrographs,
            'n_held_out_micrographs': len(split.held_out) if split else 0,
            'held_out_columns': list(split.held_out_part) if split else None,
            'n_simulated_micrographs': len(self.dataset.manifest['micrographs']),
            'data': {'dataset_manifest_sha256': compute_checksum(self.dataset.folder / layout.MANIFEST),
                     'real_micrographs': [one.name for one in (split.train if split else self.real.files)],
                     'held_out': [one.name for one in split.held_out] if split else []},
            'device': str(engine.device), 'n_processes': engine.n_processes, 'seed': self.config.seed,
            'crop_size': self.crop_size, 'settings': settings,
            **({'contrast_span': PAPER_SPAN} if self.config.preset == 'paper' else {}),
        }


def plan_training(config: TrainConfig) -> TrainingPlan:
    """Read and check what a training needs.

    Raises
    ------
    InputError : a file cannot be used, or crops do not fit.
    """
    dataset = read_dataset(Path(config.dataset))
    files = find_files(config.micrographs, 'micrographs')
    recipe = PriorRecipe(config.choose('input_noise'), config.ice, config.snr)
    split = split_micrographs(files, config.held_out, least_whole=2 if config.preset == 'paper' else 5)
    real, split = _choose_real(config, dataset, files, split)
    crop_size = config.choose('crop_size') or min(
        _LARGEST_CROP, *(1 << (min(shape).bit_length() - 1) for shape in (real.shape, dataset.calibration.shape)))
    dataset = leave_out(dataset, {one.stem for one in files} - {one.stem for one in real.files})
    simulated = _make_simulated(config, dataset, crop_size, recipe)
    real.check(crop_size)
    return TrainingPlan(config, dataset, recipe, _make_settings(config, crop_size), crop_size, split, real,
                        simulated.draw)


def leave_out(dataset: SimulatedDataset, names: Collection[str]) -> SimulatedDataset:
    """Return the dataset without the ice, noise and CTFs of the real micrographs that are named, if others remain.

    What is simulated is then like the micrographs that are learned from; else the learning would also make up for what
    these happen to differ in from those that are held out.
    """
    known = dataset.calibration.micrographs
    weights = [0.0 if one.name in names else one.weight for one in known]
    if not any(weights):
        return dataset
    kept = tuple(dataclasses.replace(one, weight=weight) for one, weight in zip(known, weights, strict=True))
    return dataclasses.replace(dataset, calibration=dataclasses.replace(dataset.calibration, micrographs=kept))


def _choose_real(
    config: TrainConfig, dataset: SimulatedDataset, files: list[Path], split: Split | None
) -> tuple[RealCrops, Split | None]:
    """Return the real crops to learn from, and the split unless a strip to be held out would be too narrow."""
    if split is not None and split.held_out_part != (0.0, 1.0):
        strip = RealCrops(files, config.pixel_size, dataset.calibration, split.held_out_part)
        if min(strip.shape) < _LEAST_STRIP:
            logger.warning('a strip of %d px is too narrow to judge a model by: nothing is held out, the last model '
                           'is kept unjudged; give more or larger micrographs', min(strip.shape))
            split = None
    if split is None:
        return RealCrops(files, config.pixel_size, dataset.calibration), None
    return RealCrops(split.train, config.pixel_size, dataset.calibration, split.train_part), split


def _make_simulated(
    config: TrainConfig, dataset: SimulatedDataset, crop_size: int, recipe: PriorRecipe
) -> FreshCrops | SimulatedCrops:
    if config.simulation == 'dataset':
        return SimulatedCrops(dataset, crop_size, recipe)
    return FreshCrops(dataset, build_training_protocol(config, dataset), crop_size, recipe)


def build_training_protocol(config: TrainConfig, dataset: SimulatedDataset) -> Protocol:
    """Return the experiment of the simulate run with random streams that no run of simulate or generate has."""
    diameter = max(one.diameter for one in dataset.load_ensemble().volumes)
    protocol = build_protocol(dataclasses.replace(dataset.config, seed=config.seed), dataset.calibration, diameter)
    return dataclasses.replace(protocol, purpose=TRAINED)


def _measure_parts(parts: Sequence[Sequence[np.ndarray]]) -> tuple[TextureStatistics, list[TextureStatistics]]:
    """Return the statistics of all crops together and of each part."""
    stacks = [torch.from_numpy(np.stack(one)[:, None].astype(np.float32)) for one in parts]
    return measure_statistics(torch.cat(stacks)), [measure_statistics(one) for one in stacks]


def _make_settings(config: TrainConfig, crop_size: int) -> TrainerSettings:
    shared: dict[str, Any] = {key: config.choose(key) for key in (
        'max_steps', 'max_minutes', 'checkpoint_every', 'patience', 'learning_rate', 'adversarial_weight',
        'contrastive_weight', 'statistics_weight', 'sampling', 'temperature', 'n_positions', 'seed',
        'discriminator_crop')}
    if config.held_out == 0:
        shared['patience'] = None
    if config.preset == 'paper':
        return TrainerSettings(**shared, **PAPER, depth=crop_size.bit_length() - 1,
                               mixed_precision=config.mixed_precision)
    return TrainerSettings(**shared, n_inputs=2 + len(SCALES))
