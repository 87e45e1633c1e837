"""`cryogem train`: learn what the measured noise cannot say about the real micrographs."""

import logging
from functools import lru_cache
from pathlib import Path

import numpy as np

from cryogem.commands.inputs import choose_device, read_real_image
from cryogem.config import TrainConfig, config_to_json, describe_run
from cryogem.dataset import layout
from cryogem.dataset.reader import SimulatedDataset, read_dataset
from cryogem.dataset.writer import check_output
from cryogem.errors import InputError
from cryogem.imaging.calibration import Calibration
from cryogem.imaging.exposure import add_ice
from cryogem.imaging.grey import GreyScale, find_good_region, measure_grey_scale
from cryogem.imaging.noise import draw_field
from cryogem.imaging.resampling import resample_image
from cryogem.io.files import find_files, make_folder, write_json
from cryogem.translation.learner import TrainerSettings
from cryogem.translation.pairs import CropSampler
from cryogem.translation.trainer import train

logger = logging.getLogger(__name__)

_CACHED_MICROGRAPHS = 16                    # frames of each kind held in memory
_MAY_CHANGE = ('max_steps', 'max_minutes', 'checkpoint_every')                # when a training is continued
_FIELD_BORDER = 64                          # px of noise drawn beyond a crop, so that its opposite edges do not match


def run(config: TrainConfig, output: Path) -> None:
    """Train a model of the real micrographs on the simulated ones."""
    device = choose_device(config.device)
    description = describe_run('train', config)
    check_output(output, description, config.continue_, _MAY_CHANGE)
    dataset = read_dataset(Path(config.dataset))
    simulated = SimulatedCrops(dataset, config.crop_size)
    real = RealCrops(find_files(config.micrographs, 'micrographs'), config.pixel_size, dataset.calibration,
                     config.crop_size)
    settings = TrainerSettings(
        max_steps=config.max_steps, max_minutes=config.max_minutes, checkpoint_every=config.checkpoint_every,
        learning_rate=config.learning_rate, contrastive_weight=config.contrastive_weight,
        temperature=config.temperature, n_positions=config.n_positions, seed=config.seed, device=str(device))
    make_folder(output)
    write_json(output / layout.CONFIG, description)
    sampler = CropSampler(simulated.draw, real.draw, config.crop_size, config.batch_size, config.seed)
    result = train(sampler, settings, output, config.continue_, {
        'preset': config.preset, 'pixel_size': dataset.calibration.pixel_size, 'n_real_micrographs': real.n_micrographs,
        'n_simulated_micrographs': simulated.n_micrographs, 'device': str(device), 'seed': config.seed,
        'settings': config_to_json(config)})
    write_json(output / layout.CALIBRATION, dataset.calibration.to_json())
    logger.info('model after %d steps and %.0f s: %s', result.step, result.seconds, output)


class SimulatedCrops:
    """Crops of simulated micrographs under fresh measured noise, with their masks; read from disk as they are drawn."""

    def __init__(self, dataset: SimulatedDataset, crop_size: int):
        self._dataset, self._names = dataset, dataset.manifest['micrographs']
        self._load = lru_cache(_CACHED_MICROGRAPHS)(self._read)
        _check_crop(dataset.calibration.shape, crop_size, 'simulated micrographs')

    @property
    def n_micrographs(self) -> int:
        """Number of micrographs the crops come from."""
        return len(self._names)

    def draw(self, rng: np.random.Generator, crop_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (c, c) float32 noisy simulation, contrast units, and (c, c) bool mask."""
        signal, mask, power = self._load(self._names[rng.integers(len(self._names))])
        window = _draw_window(signal.shape, crop_size, rng)
        padded = crop_size + _FIELD_BORDER
        noise = draw_field(power, (padded, padded), rng)[:crop_size, :crop_size]
        return signal[window] + noise, mask[window]

    def _read(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        clean, mask = self._dataset.read_pair(name)
        record = self._dataset.read_record(name)
        power = np.array(self._dataset.calibration.micrographs[record.source].noise_power)
        return add_ice(clean, record, self._dataset.calibration), mask, power


class RealCrops:
    """Crops of real micrographs in contrast units; read from disk as they are drawn."""

    def __init__(self, files: list[Path], pixel_size: float | None, calibration: Calibration, crop_size: int):
        self._files, self._pixel_size = files, pixel_size
        self._working = calibration.pixel_size
        self._sign = -1 if calibration.micrographs[0].grey_sd < 0 else 1
        self._load = lru_cache(_CACHED_MICROGRAPHS)(self._read)
        _check_crop(self._load(0).shape, crop_size, f'micrograph {str(files[0])!r}')

    @property
    def n_micrographs(self) -> int:
        """Number of micrographs the crops come from."""
        return len(self._files)

    def draw(self, rng: np.random.Generator, crop_size: int) -> np.ndarray:
        """Return (c, c) float32, contrast units, dark particles."""
        index = int(rng.integers(len(self._files)))
        image = self._load(index)
        _check_crop(image.shape, crop_size, f'micrograph {str(self._files[index])!r}')
        return image[_draw_window(image.shape, crop_size, rng)]

    def _read(self, index: int) -> np.ndarray:
        image, pixel_size = read_real_image(self._files[index], self._pixel_size)
        image = resample_image(image, pixel_size, self._working)
        scale = measure_grey_scale(image)
        return GreyScale(scale.mean, self._sign * scale.sd).normalise(image[find_good_region(image)])


def _draw_window(shape: tuple[int, ...], crop_size: int, rng: np.random.Generator) -> tuple[slice, slice]:
    y, x = (int(rng.integers(length - crop_size + 1)) for length in shape)
    return slice(y, y + crop_size), slice(x, x + crop_size)


def _check_crop(shape: tuple[int, ...], crop_size: int, what: str) -> None:
    if min(shape) < crop_size:
        raise InputError(f'crop_size {crop_size} is larger than the {what} of {shape[1]} x {shape[0]} px; '
                         f'use at most {min(shape) // 16 * 16}')
