"""Settings of every command as frozen dataclasses: JSON keys, command line flags and Scipion help come from here.

A field named ``n_micrographs`` is the flag ``--n-micrographs`` and the JSON key ``n_micrographs``.
No torch here: the plugin and ``--help`` import it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cryogem import __version__
from cryogem.errors import ConfigError, InputError

NOISE_MODELS = ('gaussian', 'poisson', 'poisson_gaussian', 'measured')
ICE_MODELS = ('smooth', 'paper')
PRESETS = ('fast', 'paper')
PARTICLE_STACKS = ('none', 'clean', 'generated', 'both')
DATASET_FORMATS = ('clean', 'masks', 'png', 'topaz', 'eman', 'cryolo', 'coco', 'cryodrgn')
PIXEL_TYPES = ('float32', 'float16', 'int8')
OUTPUT_SAMPLINGS = ('working', 'original')
BOX_DIAMETERS = 1.5                         # box of particles where none is said

SAMPLINGS = ('guided', 'uniform')
INPUT_NOISES = ('measured', 'gaussian')
SIMULATIONS = ('fresh', 'dataset')

# What a preset takes where a setting is not given. A crop size of None is the largest power of two that fits.
TRAINING_PRESETS: dict[str, dict[str, Any]] = {
    'fast': {'max_steps': 200, 'crop_size': 128, 'batch_size': 8, 'learning_rate': 5e-5, 'adversarial_weight': 0.0,
             'contrastive_weight': 0.0, 'statistics_weight': 1.0, 'input_noise': 'measured', 'checkpoint_every': 20,
             'patience': 4},
    'paper': {'max_steps': 10000, 'crop_size': None, 'batch_size': 1, 'learning_rate': 1e-4, 'adversarial_weight': 1.0,
              'contrastive_weight': 10.0, 'statistics_weight': 0.0, 'input_noise': 'gaussian', 'checkpoint_every': 100,
              'patience': None},
}

ConfigType = TypeVar('ConfigType', bound='Config')


def choose_box_size(length: float, pixel_size: float) -> int:
    """Return the least even number of px that covers a length (Å) at a pixel size (Å/px)."""
    return 2 * math.ceil(length / pixel_size / 2 - 1e-6)


def _setting(default: Any, text: str, **more: Any) -> Any:
    """Describe one setting: its default and help text; then, of its values, the choices, the form on the command line,
    whether they must be positive, and (`required`) what to do when there is none."""
    return field(default=default, metadata={'help': text, **more})


def _of_presets(key: str) -> str:
    """Return the defaults of a setting in both presets, for its help."""
    def show(value: Any) -> str:
        if value is None:
            return 'the largest that fits' if key == 'crop_size' else 'none'
        return f'{value:g}' if isinstance(value, float) else str(value)

    return ', '.join(f'{show(values[key])} for {preset}' for preset, values in TRAINING_PRESETS.items())


@dataclass(frozen=True)
class Config:
    """What all commands share."""

    output: str = _setting('', 'folder that receives the results; made if missing', form='DIR',
                           required='name the folder that receives the results')
    seed: int = _setting(0, 'seed of all random numbers; the same seed gives the same pixels and tables')
    device: str = _setting('auto', 'auto, cpu, cuda or cuda:N; auto takes a GPU when torch sees one', form='DEVICE')
    workers: int = _setting(1, 'processes that work side by side; the result does not depend on it')

    def __post_init__(self) -> None:
        _require(self.seed >= 0, 'seed', self.seed, 'give zero or a positive integer')
        _require(self.workers >= 1, 'workers', self.workers, 'give at least 1')
        for setting in dataclasses.fields(self):
            if setting.metadata.get('required'):
                _require(bool(getattr(self, setting.name)), key_of(setting), '', setting.metadata['required'])
        is_device = self.device in ('auto', 'cpu', 'cuda') or self.device.removeprefix('cuda:').isdigit()
        _require(is_device, 'device', self.device, 'say auto, cpu, cuda or cuda:N')
        for setting in dataclasses.fields(self):
            choices, value = setting.metadata.get('choices'), getattr(self, setting.name)
            if choices and value is not None:
                _require(value in choices, key_of(setting), value, f'say one of {", ".join(choices)}')
            if setting.metadata.get('positive') and value is not None:
                _require(value > 0, key_of(setting), value, 'give a positive number')


@dataclass(frozen=True)
class MicroscopeConfig(Config):
    """Real micrographs and the microscope behind them, for all commands that measure them."""

    micrographs: tuple[str, ...] = _setting(
        (), 'quoted patterns of the real micrographs (MRC, TIFF, PNG)', form='GLOB',
        required='give the pattern of the real micrographs')
    coordinates: tuple[str, ...] = _setting(
        (), 'quoted patterns of their picks: STAR or CSV files named like the micrographs, centres in px', form='GLOB')
    ctfs: str = _setting(
        '', 'STAR file with the CTF of each real micrograph (RELION micrographs.star); default: estimated', form='STAR')
    pixel_size: float | None = _setting(
        None, 'pixel size of the real micrographs, Å/px; default: from their headers', positive=True)
    working_pixel_size: float | None = _setting(
        None, 'pixel size of all that is made, Å/px; default: the real one, binned until a particle is at most 100 px',
        positive=True)
    particle_diameter: float | None = _setting(
        None, 'diameter of the particle, Å; default: from the map, without a map from the picks', positive=True)
    voltage: float = _setting(300.0, 'acceleration voltage, kV, where the CTF table does not say it', positive=True)
    spherical_aberration: float = _setting(
        2.7, 'spherical aberration Cs, mm, where the CTF table does not say it')
    amplitude_contrast: float = _setting(
        0.1, 'amplitude contrast, a fraction, where the CTF table does not say it')
    ice_model: str = _setting(
        'smooth', 'smooth: a smooth background that is added, and a map of how strong the noise is; paper: the ice of '
        'the published code, by which particles are multiplied before the CTF', choices=ICE_MODELS)
    defocus_range: tuple[float, float] = _setting(
        (12000.0, 25000.0), 'defocus of micrographs when no CTFs are given and none can be estimated, Å',
        form='MIN:MAX')

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.amplitude_contrast < 1, 'amplitude_contrast', self.amplitude_contrast,
                 'give a fraction from 0 to below 1, as 0.1')
        _require(self.spherical_aberration >= 0, 'spherical_aberration', self.spherical_aberration, 'give it in mm')
        low, high = self.defocus_range
        _require(0 < low <= high, 'defocus_range', f'{low:g}:{high:g}', 'give two positive values in Å, MIN first')


@dataclass(frozen=True)
class DatasetConfig(Config):
    """How a dataset is written."""

    formats: tuple[str, ...] = _setting(
        ('clean', 'masks', 'png', 'topaz'),
        'what is written besides micrographs, records and RELION tables: clean (noise-free pictures), masks (one '
        'number per particle), png (mask of all particles), topaz, eman (.box), cryolo (.cbox), coco (JSON of masks), '
        'cryodrgn (poses.pkl, ctf.pkl), or none; default: clean masks png topaz', form='FORMAT')
    pixel_type: str = _setting(
        'float32', 'type of the pixels of micrographs: float32, float16 (MRC mode 12, RELION 4 and later), or int8, '
        'whose scale is in the header and the records', choices=PIXEL_TYPES)
    output_sampling: str = _setting(
        'working', 'pixels of what is written: working, or original, as large and as many as in the real micrographs, '
        'with their noise where working pixels hold none', choices=OUTPUT_SAMPLINGS)
    shard: str = _setting(
        '', 'make only part I of N (from 1) in a folder that all parts share; then run cryogem merge', form='I/N')

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [one for one in self.formats if one not in DATASET_FORMATS and self.formats != ('none',)]
        _require(not unknown, 'formats', unknown[0] if unknown else '', f'say none, or some of '
                 f'{", ".join(DATASET_FORMATS)}')
        if self.shard:
            part, _, total = self.shard.partition('/')
            is_part = part.isdecimal() and total.isdecimal() and 1 <= int(part) <= int(total)
            _require(is_part, 'shard', self.shard, 'give part and number of parts, as 3/8')


@dataclass(frozen=True)
class CalibrateConfig(MicroscopeConfig):
    """Measure density, grey scale, ice and noise of real micrographs."""


@dataclass(frozen=True)
class SimulateConfig(MicroscopeConfig, DatasetConfig):
    """Make noise-free micrographs of a virtual specimen, with CTF and ice, and all labels."""

    volume: tuple[str, ...] = _setting(
        (), 'map of the particle (MRC), several with weights if the sample is a mixture', form='MAP[:WEIGHT]',
        required='give at least one map')
    volume_pixel_size: float | None = _setting(
        None, 'pixel size of the maps, Å/px; default: from their headers', positive=True)
    calibration: str = _setting('', 'folder of an earlier calibrate run; default: calibrate now', form='DIR')
    ablation: bool = _setting(
        False, 'add to the page of the calibration what each part of the noise model is worth, judged by half of the '
        'real micrographs after calibrating on the others: takes minutes, and reads them again')
    n_micrographs: int = _setting(20, 'number of micrographs to make', positive=True)
    prefix: str = _setting('simulated', 'beginning of the names of the micrographs: PREFIX_00001, PREFIX_00002, ...')
    particles_per_micrograph: tuple[float, float] | None = _setting(
        None, 'particles on one micrograph; default: as many per area as were picked on the real ones', form='MEAN:SD')
    particles: str = _setting(
        'none', 'particle stacks to write beside the micrographs', choices=PARTICLE_STACKS)
    box_size: int | None = _setting(
        None, 'box of coordinates and particle stacks, px of what is written, even; default: 1.5 particle diameters',
        positive=True)
    mask_threshold: float | None = _setting(
        None, 'density above which the low-passed map is particle; default: found from its histogram')
    mask: str = _setting(
        '', 'mask of the particle for all maps (MRC, 0 to 1, sampled as the first map); default: made from the map',
        form='MRC')
    low_pass: float | None = _setting(
        None, 'resolution to which the maps are filtered, Å; default: as they are', positive=True)
    symmetry: str = _setting(
        'C1', 'point group of the particle: Cn, Dn, T, O or I; views stay uniform, tables also say the equivalent pose '
        'in the asymmetric unit')
    angular_distribution: str = _setting(
        '', 'STAR file with poses (rlnAngleRot, Tilt, Psi) that the views are drawn from; default: uniform',
        form='STAR')
    preferred_view: tuple[float, float] | None = _setting(
        None, 'direction of a preferred view, degrees; default: none', form='ROT:TILT')
    view_spread: float = _setting(
        5.0, 'sd of the random turn added to the views of a distribution or a preferred view, degrees')
    ice_thickness: float = _setting(
        400.0, 'thickness of the ice, Å; particles lie at random heights in it and each has its own defocus',
        positive=True)
    ice_tilt: float = _setting(0.0, 'tilt of the ice against the focal plane, degrees, about a random axis')
    defocus_error: float = _setting(
        50.0, 'largest difference between the defocus a particle is imaged with and the one recorded, Å', positive=True)
    astigmatism: float = _setting(100.0, 'sd of the difference of the defoci U and V where no CTFs are known, Å')
    phase_shift: tuple[float, float] = _setting(
        (0.0, 0.0), 'phase shift of a phase plate where no CTFs are known, degrees', form='MIN:MAX')
    b_factor: float = _setting(0.0, 'B-factor of the envelope of the CTF where no CTFs are known, Å²')
    minimum_distance: float | None = _setting(
        None, 'least distance of particle centres, Å; default: that of the picks, without picks the diameter',
        positive=True)
    allowed_overlap: float | None = _setting(
        None, 'share of its diameter by which a particle may overlap another, 0 to 1; default: as the picks do')
    clustering: float | None = _setting(
        None, 'share of the particles put beside another, 0 (anywhere) to 1 (in clusters); default: as the picks lie')
    exclusion_masks: tuple[str, ...] = _setting(
        (), 'quoted patterns of masks, not 0 where no particle may lie (carbon, dirt): one for all, or named like '
        'the micrographs', form='GLOB')
    signal_to_noise: float | None = _setting(
        None, 'variance of the signal over that of the noise where particles are; default: measured at the picks',
        positive=True)
    continue_: bool = _setting(False, 'continue an interrupted run: finished micrographs are kept')

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.box_size is None or self.box_size % 2 == 0, 'box_size', self.box_size,
                 f'use the even number {(self.box_size or 0) + 1}')
        if self.particles_per_micrograph is not None:
            mean, sd = self.particles_per_micrograph
            _require(mean > 0 and sd >= 0, 'particles_per_micrograph', f'{mean:g}:{sd:g}',
                     'give a positive MEAN and an SD of zero or more')
        _check_prefix(self.prefix)
        _require(self.clustering is None or 0 <= self.clustering <= 1, 'clustering', self.clustering,
                 'give a share from 0 to 1')
        _require(self.allowed_overlap is None or 0 <= self.allowed_overlap <= 1, 'allowed_overlap',
                 self.allowed_overlap, 'give a share from 0 to 1')
        _require(self.allowed_overlap is None or self.minimum_distance is None, 'allowed_overlap',
                 self.allowed_overlap, 'give either it or minimum_distance')
        _require(0 <= self.ice_tilt < 70, 'ice_tilt', self.ice_tilt, 'give an angle from 0 to below 70 degrees')
        _require(self.view_spread >= 0, 'view_spread', self.view_spread, 'give zero or more degrees')
        low, high = self.phase_shift
        _require(low <= high, 'phase_shift', f'{low:g}:{high:g}', 'give two angles in degrees, MIN first')
        _require(self.astigmatism >= 0, 'astigmatism', self.astigmatism, 'give zero or more Å')
        _require(not self.angular_distribution or self.preferred_view is None, 'preferred_view',
                 self.preferred_view, 'give either it or angular_distribution')


@dataclass(frozen=True)
class TrainConfig(Config):
    """Learn what the measured noise cannot say about the real micrographs."""

    dataset: str = _setting('', 'folder of a simulate run', form='DIR', required='give the folder of a simulate run')
    micrographs: tuple[str, ...] = _setting(
        (), 'quoted patterns of the real micrographs (MRC, TIFF, PNG)', form='GLOB',
        required='give the pattern of the real micrographs')
    pixel_size: float | None = _setting(
        None, 'pixel size of the real micrographs, Å/px; default: from their headers', positive=True)
    preset: str = _setting(
        'fast', 'fast: a residual on the measured noise, minutes on a CPU; paper: the published network and training',
        choices=PRESETS)
    max_steps: int | None = _setting(None, 'training steps; default: ' + _of_presets('max_steps'), positive=True)
    max_minutes: float | None = _setting(None, 'stop after this many minutes, default: no limit', positive=True)
    crop_size: int | None = _setting(
        None, 'side of the square crops, px, a multiple of 16, a power of two for paper; default: '
        + _of_presets('crop_size'), positive=True)
    batch_size: int | None = _setting(
        None, 'crops per step, over all processes; default: ' + _of_presets('batch_size'), positive=True)
    learning_rate: float | None = _setting(
        None, 'learning rate of Adam; default: ' + _of_presets('learning_rate'), positive=True)
    adversarial_weight: float | None = _setting(
        None, 'weight of deceiving the discriminator, 0 leaves it out; default: ' + _of_presets('adversarial_weight'))
    contrastive_weight: float | None = _setting(
        None, 'weight of the contrastive loss, 0 leaves it out; default: ' + _of_presets('contrastive_weight'))
    statistics_weight: float | None = _setting(
        None, 'weight of bringing spectrum, histograms and local power to those of the real crops, 0 leaves it out; '
        'default: ' + _of_presets('statistics_weight'))
    sampling: str = _setting(
        'guided', 'positions of the contrastive loss: guided by the particle mask, or uniform (plain CUT)',
        choices=SAMPLINGS)
    temperature: float = _setting(0.07, 'temperature of the contrastive loss', positive=True)
    n_positions: int = _setting(256, 'positions drawn per region, particle and background', positive=True)
    input_noise: str | None = _setting(
        None, 'noise that the network starts from: measured, or white gaussian; default: '
        + _of_presets('input_noise'), choices=INPUT_NOISES)
    snr: float = _setting(0.1, 'signal-to-noise ratio (variances) of gaussian input noise', positive=True)
    ice: bool = _setting(True, 'give the simulated micrographs the ice of the real ones')
    simulation: str = _setting(
        'fresh', 'simulated crops: fresh, so that no particle is seen twice, or from the micrographs of the dataset',
        choices=SIMULATIONS)
    discriminator_crop: int | None = _setting(
        None, 'side of the random part of each crop that the discriminator sees, px; default: all of it', positive=True)
    mixed_precision: bool = _setting(True, 'let the paper preset compute in bf16 where the hardware does')
    checkpoint_every: int | None = _setting(
        None, 'steps between checkpoints, each with a sample picture and a look at the held-out crops; default: '
        + _of_presets('checkpoint_every'), positive=True)
    held_out: float = _setting(
        0.25, 'share of the real micrographs that is not learned from and judges the model: whole ones, or with fewer '
        'than five a strip of each; 0 keeps all and judges nothing')
    patience: int | None = _setting(
        None, 'checkpoints in a row without a better model after which training ends; default: '
        + _of_presets('patience'), positive=True)
    topaz_weights: str = _setting(
        '', 'resnet8_u32.sav of Topaz, or the folder Topaz is installed in, to judge realism with; default: of the '
        'Topaz beside this program, without one classical statistics', form='PATH')
    bias_guard: bool = _setting(
        False, 'also train a model on each half of the real micrographs and one on a specimen without particles, and '
        'report how they differ: takes four times as long')
    devices: int = _setting(
        1, 'processes that train together on each computer, each on a GPU of its own, or all on the CPU', positive=True)
    num_nodes: int = _setting(1, 'computers that train together', positive=True)
    tensorboard: bool = _setting(False, 'also write event files for TensorBoard, whose package must be installed')
    continue_: bool = _setting(False, 'continue the run in the output folder from its last checkpoint')

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_size is not None:
            _require(self.crop_size % 16 == 0, 'crop_size', self.crop_size,
                     f'use the multiple of 16 {max(16, round(self.crop_size / 16) * 16)}')
            is_power = self.preset != 'paper' or (self.crop_size & (self.crop_size - 1) == 0 and self.crop_size >= 32)
            lower = max(32, 1 << (self.crop_size.bit_length() - 1))
            _require(is_power, 'crop_size', self.crop_size, f'the published network takes powers of two: use {lower}')
        for key in ('adversarial_weight', 'contrastive_weight', 'statistics_weight'):
            _require((getattr(self, key) or 0) >= 0, key, getattr(self, key), 'give zero or more')
        _require(any(self.choose(f'{key}_weight') for key in ('adversarial', 'statistics')), 'adversarial_weight', 0.0,
                 'nothing would be learned: give it or statistics_weight a positive number')
        _require(0 <= self.held_out <= 0.5, 'held_out', self.held_out, 'give a share from 0 to 0.5')
        n_processes = self.devices * self.num_nodes
        batch_size = self.choose('batch_size')
        _require(batch_size % n_processes == 0, 'batch_size', batch_size,
                 f'give a multiple of the {n_processes} processes that share it')

    def choose(self, key: str) -> Any:
        """Return the value of a setting, that of the preset where none is given."""
        value = getattr(self, key)
        return TRAINING_PRESETS[self.preset].get(key) if value is None else value


@dataclass(frozen=True)
class GenerateConfig(DatasetConfig):
    """Make any number of micrographs that look like the real ones, with all labels."""

    model: str = _setting('measured', 'folder of a trained model, or a noise model: ' + ', '.join(NOISE_MODELS),
                          form='DIR|NOISE')
    dataset: str = _setting('', 'folder of a simulate run, whose specimen and calibration are used', form='DIR',
                            required='give the folder of a simulate run')
    volume: tuple[str, ...] = _setting(
        (), 'maps to use instead of those of the simulate run', form='MAP[:WEIGHT]')
    volume_pixel_size: float | None = _setting(
        None, 'pixel size of the maps, Å/px; default: from their headers', positive=True)
    n_micrographs: int = _setting(20, 'number of micrographs to make', positive=True)
    prefix: str = _setting('generated', 'beginning of the names of the micrographs: PREFIX_00001, PREFIX_00002, ...')
    particles: str = _setting('none', 'particle stacks to write beside the micrographs', choices=PARTICLE_STACKS)
    box_size: int | None = _setting(
        None, 'box of coordinates and particle stacks, px of what is written, even; default: that of the simulate run',
        positive=True)
    snr: float = _setting(0.1, 'signal-to-noise ratio (variances) of the noise models gaussian and poisson_gaussian',
                          positive=True)
    network_memory: float = _setting(
        1.0, 'GiB that the network of a trained model of the fast preset may take at once: larger frames go through it '
        'in tiles that give the same, smaller ones together on a GPU', positive=True)
    force: bool = _setting(False, 'use a trained model even if it was found no better than the noise it starts from')
    dose: float = _setting(20.0, 'dose of the noise models poisson and poisson_gaussian, e/Å²', positive=True)
    continue_: bool = _setting(False, 'continue an interrupted run: finished micrographs are kept')

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_prefix(self.prefix)
        _require(self.box_size is None or self.box_size % 2 == 0, 'box_size', self.box_size,
                 f'use the even number {(self.box_size or 0) + 1}')


@dataclass(frozen=True)
class MergeConfig(Config):
    """Bring the shards of a simulate or generate run together: check them and write the tables."""


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """Judge generated micrographs against real ones, beside controls and the floor, and what can be done with them."""

    generated: tuple[str, ...] = _setting((), 'folders of generate runs, one or more', form='DIR',
                                          required='give the folder of a generate run')
    real: tuple[str, ...] = _setting(
        (), 'quoted patterns of real micrographs (MRC, TIFF, PNG), best ones that the calibration has not seen',
        form='GLOB', required='give the pattern of the real micrographs')
    coordinates: tuple[str, ...] = _setting((), 'quoted patterns of their picks, STAR or CSV', form='GLOB')
    pixel_size: float | None = _setting(
        None, 'pixel size of the real micrographs, Å/px; default: from their headers', positive=True)
    ctfs: str = _setting(
        '', 'STAR file with the CTF of each real micrograph (RELION micrographs.star), to be compared with its rings; '
        'default: what the calibration knows', form='STAR')
    n_seeds: int = _setting(3, 'repetitions of everything that is random: crops, control noise, classifiers',
                            positive=True)
    crop_size: int | None = _setting(
        None, 'side of the crops that networks see, px; default: 256, or half of a smaller frame', positive=True)
    crops_per_micrograph: int = _setting(6, 'crops of each micrograph and seed', positive=True)
    controls: bool = _setting(True, 'make control micrographs with other noise from the same calibration')
    topaz_weights: str = _setting(
        '', "weights of Topaz's detector: resnet8_u32.sav, or the folder topaz-em is installed in; default: found",
        form='PATH')
    inception_weights: str = _setting(
        '', 'weights of the Inception network of the FID, as torch-fidelity reads them; default: no FID', form='FILE')
    topaz: str = _setting('topaz', 'program that trains and picks in the picking proof', form='PROGRAM')
    picking: bool = _setting(False, 'train Topaz on each set and pick the real micrographs (long)')
    picking_real: tuple[str, ...] = _setting(
        (), "quoted patterns of other real micrographs, for training Topaz on people's picks: the upper control",
        form='GLOB')
    picking_coordinates: tuple[str, ...] = _setting((), 'quoted patterns of their picks, STAR or CSV', form='GLOB')
    picking_seeds: int = _setting(5, 'repetitions of each training of Topaz', positive=True)
    picking_iterations: tuple[str, ...] = _setting(
        ('100',), 'lengths of the trainings of Topaz, iterations; default: 100', form='N')
    picking_arms: tuple[str, ...] = _setting((), 'sets that Topaz is trained on, by column; default: all', form='ARM')
    picking_scratch: bool = _setting(True, 'train Topaz from random weights too, not from the shipped ones alone')
    poses: bool = _setting(False, 'find the poses of generated particles with RELION, and learn them')
    pose_particles: int = _setting(100, 'particles that RELION aligns', positive=True)
    pose_steps: int = _setting(300, 'training steps of the small pose regressor; 0 leaves it out')
    reconstruction: bool = _setting(False, 'rebuild the map from the labels of generated particles with RELION')
    export: bool = _setting(False, 'write the particles of each set as a folder for RELION, CryoPARES or cryoDRGN')
    box_size: int | None = _setting(
        None, 'box of these particles, px, even; default: that of the generated set', positive=True)
    symmetry: str = _setting('', 'point group of the particle; default: that of the simulate run')
    models: tuple[str, ...] = _setting(
        (), 'folders of trained models whose encoders draw the similarity maps; default: that of the generated sets',
        form='DIR')
    query: str = _setting(
        '', 'place on a real micrograph that similarity is drawn for; default: a particle, and a place without',
        form='NAME:X:Y')

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.crops_per_micrograph >= 2, 'crops_per_micrograph', self.crops_per_micrograph, 'give at least 2')
        _require(self.crop_size is None or self.crop_size >= 84, 'crop_size', self.crop_size, 'give at least 84 px')
        _require(self.box_size is None or self.box_size % 2 == 0, 'box_size', self.box_size,
                 f'use the even number {(self.box_size or 0) + 1}')
        _require(self.pose_steps >= 0, 'pose_steps', self.pose_steps, 'give zero or a positive integer')
        for length in self.picking_iterations:
            _require(length.isdigit() and int(length) > 0, 'picking_iterations', length, 'give positive integers')
        _require(not self.picking or bool(self.coordinates), 'coordinates', '', 'picking needs the picks of people')
        if self.query:
            parts = self.query.rsplit(':', 2)
            is_place = len(parts) == 3 and all(one.replace('.', '', 1).isdigit() for one in parts[1:])
            _require(is_place, 'query', self.query, 'give the name of a real micrograph, x and y in px')


@dataclass(frozen=True)
class InspectConfig(Config):
    """Look at a map or at picked micrographs and say what settings they suggest."""

    volume: str = _setting('', 'map of the particle (MRC)', form='MAP')
    volume_pixel_size: float | None = _setting(
        None, 'pixel size of the map, Å/px; default: from its header', positive=True)
    mask_threshold: float | None = _setting(
        None, 'density above which the low-passed map is particle; default: found from its histogram')
    particle_diameter: float | None = _setting(
        None, 'diameter of the particle, Å; default: from the map, without a map from the picks', positive=True)
    micrographs: tuple[str, ...] = _setting(
        (), 'quoted patterns of the real micrographs (MRC, TIFF, PNG)', form='GLOB')
    coordinates: tuple[str, ...] = _setting(
        (), 'quoted patterns of their picks: STAR or CSV files named like the micrographs, centres in px', form='GLOB')
    pixel_size: float | None = _setting(
        None, 'pixel size of the real micrographs, Å/px; default: from their headers', positive=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(bool(self.volume or self.micrographs), 'volume', self.volume, 'give a map, micrographs, or both')


@dataclass(frozen=True)
class ImportCheckpointConfig(Config):
    """Turn a published CryoGEM checkpoint into a model folder."""

    checkpoint: str = _setting('', 'published generator checkpoint, latest_net_G.pth', form='FILE', positional=True,
                               required='give the published .pth file')


COMMANDS: dict[str, type[Config]] = {
    'calibrate': CalibrateConfig,
    'simulate': SimulateConfig,
    'train': TrainConfig,
    'generate': GenerateConfig,
    'merge': MergeConfig,
    'evaluate': EvaluateConfig,
    'inspect': InspectConfig,
    'import-checkpoint': ImportCheckpointConfig,
}


def key_of(setting: dataclasses.Field) -> str:
    """Return the JSON key of a field; Python's reserved words carry a trailing underscore as fields."""
    return setting.name.rstrip('_')


def help_of(config_class: type[Config], key: str) -> str:
    """Return the help text of one setting, for forms."""
    return str(next(one.metadata['help'] for one in dataclasses.fields(config_class) if key_of(one) == key))


def default_of(config_class: type[Config], key: str) -> Any:
    """Return the default of one setting, for forms."""
    return next(one.default for one in dataclasses.fields(config_class) if key_of(one) == key)


def build_config(config_class: type[ConfigType], values: dict[str, Any]) -> ConfigType:
    """Make a config from JSON values; lists become tuples.

    Raises
    ------
    ConfigError : an unknown key, a value of the wrong type or out of range.
    """
    known = {key_of(setting): setting for setting in dataclasses.fields(config_class)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f'setting {unknown[0]!r} is unknown; use one of {", ".join(sorted(known))}')
    arguments = {known[key].name: _check_type(known[key], value) for key, value in values.items()}
    return config_class(**arguments)


def config_to_json(config: Config) -> dict[str, Any]:
    """Return the settings as JSON values, by key."""
    return {key_of(setting): getattr(config, setting.name) for setting in dataclasses.fields(config)}


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Read the settings of a JSON file; the keys `command` and `version` that we write beside them are left out.

    Raises
    ------
    InputError : no such file, or not a JSON object.
    """
    try:
        values = json.loads(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise InputError(f'config {str(path)!r} cannot be read: {error.strerror}; check the path') from error
    except ValueError as error:
        raise InputError(f'config {str(path)!r} is not valid JSON: {error}; correct it') from error
    if not isinstance(values, dict):
        raise InputError(f'config {str(path)!r} must hold a JSON object with settings by name')
    return {key: value for key, value in values.items() if key not in ('command', 'version')}


def describe_run(command: str, config: Config) -> dict[str, Any]:
    """Return what config.json beside an output holds: command, version and all settings."""
    return {'command': command, 'version': __version__, **config_to_json(config)}


def _check_type(setting: dataclasses.Field, value: Any) -> Any:
    """Return `value` as the field's type, or raise a ConfigError that says what was expected."""
    kind = str(setting.type)
    if value is None:
        _require('None' in kind, key_of(setting), value, 'give a value')
        return None
    if kind.startswith('tuple[str'):
        values = (value,) if isinstance(value, str) else value
        is_text = isinstance(values, (list, tuple)) and all(isinstance(one, str) for one in values)
        _require(is_text, key_of(setting), value, 'give text, or a list of texts')
        return tuple(values)
    if kind.startswith('tuple[float'):
        is_pair = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value))
        _require(is_pair, key_of(setting), value, 'give two numbers')
        return tuple(float(one) for one in value)
    if kind.startswith('float'):
        _require(_is_number(value), key_of(setting), value, 'give a number')
        return float(value)
    expected: tuple[type, str] = {'int': (int, 'give a whole number'), 'bool': (bool, 'say true or false')}.get(
        kind.split()[0], (str, 'give text'))
    is_right = isinstance(value, expected[0]) and (expected[0] is bool or not isinstance(value, bool))
    _require(is_right, key_of(setting), value, expected[1])
    return value


def _check_prefix(prefix: str) -> None:
    is_plain = bool(prefix) and all(letter.isascii() and (letter.isalnum() or letter in '-_.') for letter in prefix)
    _require(is_plain, 'prefix', prefix, 'use letters, digits, -, _ and . alone')


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float('inf')


def _require(is_good: bool, key: str, value: Any, remedy: str) -> None:
    if not is_good:
        shown = 'is missing' if value in ('', None) else f'cannot be {value!r}'
        raise ConfigError(f'{key} {shown}; {remedy}')
