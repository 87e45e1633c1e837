"""Settings: what is refused and in which words, what is filled in, and that JSON keeps everything."""

import dataclasses
import json
import typing

import pytest

from cryogem import __version__
from cryogem.config import (
    COMMANDS,
    CalibrateConfig,
    GenerateConfig,
    SimulateConfig,
    TrainConfig,
    build_config,
    config_to_json,
    default_of,
    describe_run,
    help_of,
    key_of,
    read_config_file,
)
from cryogem.errors import ConfigError, InputError

SIMULATE = {'volume': ['map.mrc:2', 'other.mrc'], 'micrographs': 'real/*.mrc', 'output': 'out'}
TRAIN = {'dataset': 'simulated', 'micrographs': ['real/*.mrc'], 'output': 'model'}
REQUIRED = {
    'calibrate': {'micrographs': 'real/*.mrc'},
    'simulate': {'volume': 'map.mrc', 'micrographs': 'real/*.mrc'},
    'train': {'dataset': 'simulated', 'micrographs': 'real/*.mrc'},
    'generate': {'dataset': 'simulated'},
    'merge': {},
    'evaluate': {'generated': 'generated', 'real': 'real/*.mrc'},
    'inspect': {'volume': 'map.mrc'},
    'import-checkpoint': {'checkpoint': 'latest_net_G.pth'},
}


def test_lists_of_json_become_tuples_and_a_single_text_a_tuple_of_one():
    config = build_config(SimulateConfig, {**SIMULATE, 'particles_per_micrograph': [40, 5]})

    assert config.volume == ('map.mrc:2', 'other.mrc')
    assert config.micrographs == ('real/*.mrc',)
    assert config.particles_per_micrograph == (40.0, 5.0)


def test_a_whole_number_is_accepted_where_a_number_is_asked():
    config = build_config(SimulateConfig, {**SIMULATE, 'voltage': 200})

    assert isinstance(config.voltage, float)
    assert config.voltage == 200


@pytest.mark.parametrize('command', COMMANDS)
def test_a_run_can_be_repeated_from_its_config_file(command, tmp_path):
    config = build_config(COMMANDS[command], {**REQUIRED[command], 'output': 'out', 'seed': 7})
    path = tmp_path / 'config.json'
    path.write_text(json.dumps(describe_run(command, config)), encoding='utf-8')

    assert build_config(COMMANDS[command], read_config_file(path)) == config


def test_the_config_beside_an_output_names_command_and_version():
    described = describe_run('simulate', build_config(SimulateConfig, SIMULATE))

    assert (described['command'], described['version'], described['seed']) == ('simulate', __version__, 0)


def test_the_reserved_word_continue_is_a_key():
    config = build_config(TrainConfig, {**TRAIN, 'continue': True})

    assert config.continue_ is True
    assert config_to_json(config)['continue'] is True


@pytest.mark.parametrize(('command', 'key'), [(command, key) for command, keys in REQUIRED.items() for key in keys])
def test_a_required_setting_that_is_missing_is_named(command, key):
    values = {**REQUIRED[command], 'output': 'out'}
    del values[key]

    with pytest.raises(ConfigError, match=f'^{key} is missing; '):
        build_config(COMMANDS[command], values)


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_needs_an_output_folder(command):
    with pytest.raises(ConfigError, match='^output is missing; name the folder'):
        build_config(COMMANDS[command], REQUIRED[command])


@pytest.mark.parametrize(('key', 'value', 'message'), [
    ('box_size', 255, 'box_size cannot be 255; use the even number 256'),
    ('n_micrographs', 0, 'n_micrographs cannot be 0; give a positive number'),
    ('n_micrographs', 2.5, 'n_micrographs cannot be 2.5; give a whole number'),
    ('n_micrographs', True, 'n_micrographs cannot be True; give a whole number'),
    ('seed', -1, 'seed cannot be -1; give zero or a positive integer'),
    ('seed', None, 'seed is missing; give a value'),
    ('workers', 0, 'workers cannot be 0; give at least 1'),
    ('device', 'gpu', "device cannot be 'gpu'; say auto, cpu, cuda or cuda:N"),
    ('device', 'cuda:x', "device cannot be 'cuda:x'; say auto, cpu, cuda or cuda:N"),
    ('particles', 'all', "particles cannot be 'all'; say one of none, clean, generated, both"),
    ('pixel_size', -1.5, 'pixel_size cannot be -1.5; give a positive number'),
    ('pixel_size', '1.5', "pixel_size cannot be '1.5'; give a number"),
    ('pixel_size', float('nan'), 'pixel_size cannot be nan; give a number'),
    ('pixel_size', float('inf'), 'pixel_size cannot be inf; give a number'),
    ('amplitude_contrast', 1.0, 'amplitude_contrast cannot be 1.0; give a fraction from 0 to below 1, as 0.1'),
    ('spherical_aberration', -1.0, 'spherical_aberration cannot be -1.0; give it in mm'),
    ('defocus_range', [20000, 10000],
     "defocus_range cannot be '20000:10000'; give two positive values in Å, MIN first"),
    ('phase_shift', [120, 60], "phase_shift cannot be '120:60'; give two angles in degrees, MIN first"),
    ('clustering', 1.5, 'clustering cannot be 1.5; give a share from 0 to 1'),
    ('allowed_overlap', -0.1, 'allowed_overlap cannot be -0.1; give a share from 0 to 1'),
    ('ice_tilt', 80.0, 'ice_tilt cannot be 80.0; give an angle from 0 to below 70 degrees'),
    ('view_spread', -1.0, 'view_spread cannot be -1.0; give zero or more degrees'),
    ('prefix', 'my run', "prefix cannot be 'my run'; use letters, digits, -, _ and . alone"),
    ('defocus_range', [20000], 'defocus_range cannot be [20000]; give two numbers'),
    ('particles_per_micrograph', [0, 5],
     "particles_per_micrograph cannot be '0:5'; give a positive MEAN and an SD of zero or more"),
    ('volume', 5, 'volume cannot be 5; give text, or a list of texts'),
    ('volume', [1, 2], 'volume cannot be [1, 2]; give text, or a list of texts'),
    ('calibration', 3, 'calibration cannot be 3; give text'),
])
def test_a_wrong_value_is_refused_with_the_field_the_value_and_the_remedy(key, value, message):
    with pytest.raises(ConfigError) as caught:
        build_config(SimulateConfig, {**SIMULATE, key: value})

    assert str(caught.value) == message


@pytest.mark.parametrize(('key', 'value', 'message'), [
    ('crop_size', 100, 'crop_size cannot be 100; use the multiple of 16 96'),
    ('contrastive_weight', -1, 'contrastive_weight cannot be -1.0; give zero or more'),
    ('continue', 'yes', "continue cannot be 'yes'; say true or false"),
    ('held_out', 0.8, 'held_out cannot be 0.8; give a share from 0 to 0.5'),
    ('devices', 3, 'batch_size cannot be 8; give a multiple of the 3 processes that share it'),
    ('sampling', 'random', "sampling cannot be 'random'; say one of guided, uniform"),
    ('input_noise', 'poisson', "input_noise cannot be 'poisson'; say one of measured, gaussian"),
    ('preset', 'slow', "preset cannot be 'slow'; say one of fast, paper"),
])
def test_wrong_training_settings_are_refused(key, value, message):
    with pytest.raises(ConfigError) as caught:
        build_config(TrainConfig, {**TRAIN, key: value})

    assert str(caught.value) == message


def test_an_unknown_key_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"^setting 'apix' is unknown; use one of .*\bpixel_size\b"):
        build_config(CalibrateConfig, {'micrographs': 'a', 'output': 'out', 'apix': 1.2})


@pytest.mark.parametrize(('text', 'message'), [
    ('{"seed": 1', 'is not valid JSON'),
    ('[1, 2]', 'must hold a JSON object'),
])
def test_a_file_that_is_no_config_is_refused(text, message, tmp_path):
    path = tmp_path / 'run.json'
    path.write_text(text)

    with pytest.raises(InputError, match=message):
        read_config_file(path)


def test_a_config_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match=r"run\.json' cannot be read: .*; check the path"):
        read_config_file(tmp_path / 'run.json')


@pytest.mark.parametrize('config_class', COMMANDS.values())
def test_every_setting_has_a_help_text_and_a_default_of_its_own_type(config_class):
    kinds = typing.get_type_hints(config_class)
    for setting in dataclasses.fields(config_class):
        kind = kinds[setting.name]
        allowed = typing.get_args(kind) if type(None) in typing.get_args(kind) else (kind,)
        plain = tuple(typing.get_origin(one) or one for one in allowed)

        assert help_of(config_class, key_of(setting))
        assert isinstance(default_of(config_class, key_of(setting)), plain)


@pytest.mark.parametrize('config_class', COMMANDS.values())
def test_settings_with_a_unit_say_it(config_class):
    units = {'pixel_size': 'Å/px', 'working_pixel_size': 'Å/px', 'particle_diameter': 'Å', 'voltage': 'kV',
             'spherical_aberration': 'mm', 'defocus_range': 'Å', 'box_size': 'px', 'low_pass': 'Å',
             'ice_thickness': 'Å', 'minimum_distance': 'Å', 'crop_size': 'px', 'dose': 'e/Å²'}
    keys = {key_of(setting) for setting in dataclasses.fields(config_class)}

    assert [key for key in sorted(keys & set(units)) if units[key] not in help_of(config_class, key)] == []


def test_configs_cannot_be_changed():
    config = build_config(GenerateConfig, {'dataset': 'simulated', 'output': 'out'})

    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1


@pytest.mark.parametrize(('crop_size', 'remedy'), [(768, 512), (48, 32), (16, 32)])
def test_the_published_network_takes_crops_of_a_power_of_two(crop_size, remedy):
    with pytest.raises(ConfigError, match=f'crop_size cannot be {crop_size}; .* powers of two: use {remedy}'):
        build_config(TrainConfig, {**TRAIN, 'preset': 'paper', 'crop_size': crop_size})


def test_what_is_not_set_of_a_training_comes_from_its_preset():
    fast, paper = (build_config(TrainConfig, {**TRAIN, 'preset': preset}) for preset in ('fast', 'paper'))

    assert [paper.choose(key) for key in ('learning_rate', 'contrastive_weight', 'batch_size', 'input_noise')] == [
        1e-4, 10.0, 1, 'gaussian']
    assert fast.choose('input_noise') == 'measured'
    assert build_config(TrainConfig, {**TRAIN, 'preset': 'paper', 'batch_size': 2}).choose('batch_size') == 2
