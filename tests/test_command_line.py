"""The command line: flags are settings, flags win over the config file, and a failed run ends in one line."""

import dataclasses
import json
import logging
import re
import subprocess
import sys
import types

import pytest

from cryogem import __version__
from cryogem.__main__ import main, parse_arguments
from cryogem.config import COMMANDS, key_of
from cryogem.errors import ConfigError, InputError

SIMULATE = ['simulate', '--volume', 'map.mrc', '--micrographs', 'real/*.mrc', '--output', 'out']
TRAIN = ['train', '--dataset', 'simulated', '--micrographs', 'real/*.mrc', '--output', 'model']


@pytest.fixture
def command(monkeypatch):
    """Put a command in the place of `simulate` that does what `command.does` says and keeps its arguments."""
    module = types.SimpleNamespace(does=lambda config: None, calls=[])

    def run(config, output_dir):
        module.calls.append((config, output_dir))
        module.does(config)

    module.run = run
    monkeypatch.setitem(sys.modules, 'cryogem.commands.simulate', module)
    return module


def run_and_fail(arguments, capsys):
    """Return the exit code and the lines on stderr of a run in this process."""
    code = main(arguments)
    return code, capsys.readouterr().err.splitlines()


def test_flags_arrive_as_settings_of_the_right_type():
    name, config, is_verbose = parse_arguments([
        *SIMULATE, '--pixel-size', '1.5', '--n-micrographs', '7', '--particles-per-micrograph', '40:5.5',
        '--defocus-range', '9000:18000', '--particles', 'both', '--device', 'cuda:1', '-v'])

    assert (name, is_verbose) == ('simulate', True)
    assert (config.pixel_size, config.n_micrographs, config.particles, config.device) == (1.5, 7, 'both', 'cuda:1')
    assert (config.particles_per_micrograph, config.defocus_range) == ((40.0, 5.5), (9000.0, 18000.0))


def test_several_values_may_follow_a_flag_or_repeat_it():
    together = parse_arguments([*SIMULATE, '--coordinates', 'a/*.star', 'b/*.star'])[1]
    repeated = parse_arguments([*SIMULATE, '--coordinates', 'a/*.star', '--coordinates', 'b/*.star'])[1]

    assert together == repeated
    assert together.coordinates == ('a/*.star', 'b/*.star')


def test_the_checkpoint_is_given_without_a_flag():
    assert parse_arguments(['import-checkpoint', 'net.pth', '--output', 'model'])[1].checkpoint == 'net.pth'


def test_what_is_not_given_has_the_default_of_the_config():
    config = parse_arguments(SIMULATE)[1]

    assert config == COMMANDS['simulate'](output='out', volume=('map.mrc',), micrographs=('real/*.mrc',))


def test_flags_win_over_the_config_file_and_the_rest_of_it_holds(tmp_path):
    path = tmp_path / 'run.json'
    path.write_text(json.dumps({'seed': 1, 'n_micrographs': 50, 'volume': ['old.mrc', 'older.mrc'], 'voltage': 200}))

    config = parse_arguments([*SIMULATE, '--config', str(path), '--n-micrographs', '3'])[1]

    assert (config.seed, config.voltage) == (1, 200.0)
    assert (config.n_micrographs, config.volume) == (3, ('map.mrc',))


@pytest.mark.parametrize(('flags', 'is_continued'), [([], True), (['--continue'], True), (['--no-continue'], False)])
def test_a_switch_of_the_config_file_can_be_turned_off(flags, is_continued, tmp_path):
    path = tmp_path / 'run.json'
    path.write_text('{"continue": true}')

    assert parse_arguments([*TRAIN, '--config', str(path), *flags])[1].continue_ is is_continued


def test_a_config_file_alone_is_enough(tmp_path):
    path = tmp_path / 'run.json'
    path.write_text(json.dumps({'checkpoint': 'net.pth', 'output': 'model'}))

    assert parse_arguments(['import-checkpoint', '--config', str(path)])[1].checkpoint == 'net.pth'


def test_the_command_gets_its_config_and_the_output_folder(command):
    assert main(SIMULATE) == 0
    (config, output_dir), = command.calls
    assert (config.volume, str(output_dir)) == (('map.mrc',), 'out')


@pytest.mark.parametrize(('arguments', 'line'), [
    ([], 'ERROR: the following arguments are required: COMMAND; see cryogem --help'),
    ([*SIMULATE, '--pixelsize', '2'], 'ERROR: --pixelsize is unknown to cryogem simulate; see cryogem simulate --help'),
    ([*SIMULATE, '--n-mic', '2'], 'ERROR: --n-mic is unknown to cryogem simulate; see cryogem simulate --help'),
    ([*SIMULATE, '--seed', 'x'], "ERROR: argument --seed: 'x' is not a whole number; see cryogem simulate --help"),
    ([*SIMULATE, '--voltage', 'x'], "ERROR: argument --voltage: 'x' is not a number; see cryogem simulate --help"),
    ([*SIMULATE, '--defocus-range', '9000'], "ERROR: argument --defocus-range: '9000' is not two numbers with a colon "
                                             'between them; see cryogem simulate --help'),
    ([*SIMULATE, '--box-size', '33'], 'ERROR: box_size cannot be 33; use the even number 34'),
    (TRAIN[:-2], 'ERROR: output is missing; name the folder that receives the results'),
])
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(arguments, line, capsys):
    assert run_and_fail(arguments, capsys) == (2, [line])


def test_an_unknown_command_is_answered_with_the_known_ones(capsys):
    code, (line,) = run_and_fail(['simulat'], capsys)

    assert code == 2
    assert line.startswith("ERROR: argument COMMAND: invalid choice: 'simulat'")
    assert all(name in line for name in COMMANDS)


def test_an_unknown_key_in_the_config_file_is_one_line_and_exit_code_2(tmp_path, capsys):
    path = tmp_path / 'run.json'
    path.write_text('{"apix": 1.2}')

    code, (line,) = run_and_fail([*SIMULATE, '--config', str(path)], capsys)

    assert code == 2
    assert line.startswith("ERROR: setting 'apix' is unknown; use one of ")


def test_a_missing_config_file_is_one_line_and_exit_code_2(tmp_path, capsys):
    code, (line,) = run_and_fail([*SIMULATE, '--config', str(tmp_path / 'none.json')], capsys)

    assert code == 2
    assert line.endswith("none.json' cannot be read: No such file or directory; check the path")


@pytest.mark.parametrize(('error', 'code', 'last'), [
    (InputError('map.mrc is no cube; give a cubic map'), 2, 'ERROR: map.mrc is no cube; give a cubic map'),
    (ConfigError('one\n  two'), 2, 'ERROR: one two'),
    (KeyboardInterrupt(), 130, 'ERROR: stopped from the keyboard; what is finished is kept'),
])
def test_an_expected_error_of_a_command_is_one_line(error, code, last, command, capsys):
    def fail(config):
        raise error

    command.does = fail

    assert run_and_fail(SIMULATE, capsys) == (code, [last])


def test_a_fault_of_ours_ends_with_a_traceback_and_one_line(command, capsys):
    command.does = lambda config: [][1]

    code, lines = run_and_fail(SIMULATE, capsys)

    assert code == 1
    assert lines[0] == 'Traceback (most recent call last):'
    assert lines[-1].startswith('ERROR: IndexError: list index out of range')
    assert sum(line.startswith('ERROR: ') for line in lines) == 1


@pytest.mark.parametrize(('flags', 'expected'), [
    ([], ['made one', 'WARNING: few picks']),
    (['--verbose'], ['a detail', 'made one', 'WARNING: few picks']),
])
def test_the_log_goes_to_stdout_as_plain_lines(flags, expected, command, capsys):
    log = logging.getLogger('cryogem.specimen')

    def speak(config):
        log.debug('a detail')
        log.info('made %s', 'one')
        log.warning('few picks')

    command.does = speak

    assert main([*SIMULATE, *flags]) == 0
    captured = capsys.readouterr()
    assert (captured.out.splitlines(), captured.err) == (expected, '')


@pytest.mark.parametrize('name', COMMANDS)
def test_the_help_of_a_command_names_every_setting_once(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, '--help'])
    text = capsys.readouterr().out

    assert caught.value.code == 0
    settings = {'--' + key_of(setting).replace('_', '-') for setting in dataclasses.fields(COMMANDS[name])}
    positional = {'--checkpoint': 'FILE'}
    expected = sorted(positional.get(flag, flag) for flag in settings | {'--config'})
    assert sorted(re.findall(r'^  (--[a-z-]+|FILE)\b', text, re.MULTILINE)) == expected


def test_the_help_shows_units_and_defaults(capsys):
    with pytest.raises(SystemExit):
        main(['simulate', '--help'])
    text = ' '.join(capsys.readouterr().out.split())

    assert '--voltage X acceleration voltage, kV, where the CTF table does not say it (default: 300)' in text
    assert '--defocus-range MIN:MAX defocus of micrographs when no CTFs are given and none can be estimated, Å ' \
        '(default: 12000:25000)' in text
    assert '--seed N seed of all random numbers; the same seed gives the same pixels and tables (default: 0)' in text
    assert '(required)' in text


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        main(['--version'])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f'cryogem {__version__}\n'


def test_the_program_ends_with_the_exit_code_and_the_error_as_last_line():
    done = subprocess.run([sys.executable, '-m', 'cryogem', 'generate', '--output', 'out'],
                          capture_output=True, text=True, timeout=600, check=False)

    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == 'ERROR: dataset is missing; give the folder of a simulate run\n'
