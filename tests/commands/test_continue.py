"""An interrupted run goes on where it stopped; what is finished stays as it is, and nothing else is overwritten."""

import json
import shutil

import pytest

import cryogem.commands.generate as generate_command
from cryogem.__main__ import main

SECOND = 'generated_00002'


@pytest.fixture
def interrupted(generated, tmp_path):
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(generated, tmp_path / 'run')


@pytest.fixture
def arguments(simulated, interrupted):
    """What made the shared run, into its copy."""
    return ['generate', '--dataset', str(simulated), '--n-micrographs', '3', '--seed', '11', '--output',
            str(interrupted)]


def list_times(folder):
    """Return the times of the last change of the files that belong to one micrograph."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns
            for path in folder.rglob('*') if path.is_file() and path.stem.startswith('generated_')}


def damage_picture(folder):
    path = folder / 'micrographs' / f'{SECOND}.mrc'
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)


def truncate_clean(folder):
    path = folder / 'clean' / f'{SECOND}.mrc'
    path.write_bytes(path.read_bytes()[:1500])


DAMAGE = {
    'the record is missing': lambda folder: (folder / 'records' / f'{SECOND}.json').unlink(),
    'the record is cut off': lambda folder: (folder / 'records' / f'{SECOND}.json').write_text('{"record": {"in'),
    'the record is empty': lambda folder: (folder / 'records' / f'{SECOND}.json').write_text('{}'),
    'the micrograph is missing': lambda folder: (folder / 'micrographs' / f'{SECOND}.mrc').unlink(),
    'one bit of the micrograph is wrong': damage_picture,
    'the clean picture is cut off': truncate_clean,
    'the mask is missing': lambda folder: (folder / 'masks' / f'{SECOND}.png').unlink(),
    'the coordinates are missing': lambda folder: (folder / 'coordinates' / f'{SECOND}.star').unlink(),
}


@pytest.mark.parametrize('what', DAMAGE)
def test_only_the_damaged_micrograph_is_made_again(what, generated, interrupted, arguments, fingerprint):
    before = list_times(interrupted)
    DAMAGE[what](interrupted)
    assert main([*arguments, '--continue']) == 0

    after = list_times(interrupted)
    assert {file for file in before if after[file] != before[file]} == {file for file in before if SECOND in file}
    assert fingerprint(interrupted) == fingerprint(generated)


def test_a_finished_run_that_is_continued_stays_as_it_is(generated, interrupted, arguments, fingerprint):
    before = list_times(interrupted)
    assert main([*arguments, '--continue']) == 0

    assert list_times(interrupted) == before
    assert fingerprint(interrupted) == fingerprint(generated)


def test_more_micrographs_are_added_to_those_there_are(simulated, interrupted, arguments, tmp_path, fingerprint):
    before = list_times(interrupted)
    arguments[arguments.index('3')] = '5'
    assert main([*arguments, '--continue']) == 0

    after = list_times(interrupted)
    assert {file: after[file] for file in before} == before
    straight = tmp_path / 'straight'
    assert main([*arguments[:-1], str(straight)]) == 0
    assert fingerprint(interrupted) == fingerprint(straight)


def test_a_run_is_continued_with_another_number_of_workers(generated, interrupted, arguments, fingerprint):
    shutil.rmtree(interrupted / 'records')
    assert main([*arguments, '--continue', '--workers', '2']) == 0

    assert fingerprint(interrupted) == fingerprint(generated)


class PowerCutError(Exception):
    """Ends a run as a power cut would: no part of the engine expects it."""


@pytest.mark.parametrize('n_written', [0, 2])
def test_a_run_that_dies_after_some_micrographs_is_continued_to_the_same_folder(
    n_written, generated, simulated, tmp_path, fingerprint, monkeypatch, capsys,
):
    out, write, made = tmp_path / 'run', generate_command.write_micrograph, []

    def write_some(folder, exposure, image, plan):
        if len(made) == n_written:
            raise PowerCutError
        made.append(exposure.record.name)
        write(folder, exposure, image, plan)

    arguments = ['generate', '--dataset', str(simulated), '--n-micrographs', '3', '--seed', '11', '--output', str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(generate_command, 'write_micrograph', write_some)
        assert main(arguments) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith('ERROR: PowerCutError')
    assert not (out / 'manifest.json').exists()
    assert len(list((out / 'records').iterdir())) == n_written
    assert list(out.rglob('*.part')) == []
    before = list_times(out)

    assert main([*arguments, '--continue']) == 0
    after = list_times(out)
    assert {file: after[file] for file in before} == before
    assert fingerprint(out) == fingerprint(generated)


def test_a_run_that_dies_in_the_middle_of_a_micrograph_is_continued_to_the_same_folder(
    generated, simulated, tmp_path, fingerprint, monkeypatch,
):
    import cryogem.dataset.writer as writer
    out, write, made = tmp_path / 'run', writer.write_tables, []

    def write_some(path, tables):                       # the coordinates are the last file before the record
        if len(made) == 1:
            raise PowerCutError
        made.append(path)
        return write(path, tables)

    arguments = ['generate', '--dataset', str(simulated), '--n-micrographs', '3', '--seed', '11', '--output', str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(writer, 'write_tables', write_some)
        assert main(arguments) == 1
    assert (out / 'micrographs' / f'{SECOND}.mrc').exists()
    assert not (out / 'records' / f'{SECOND}.json').exists()

    assert main([*arguments, '--continue']) == 0
    assert fingerprint(out) == fingerprint(generated)


def test_an_interrupted_simulate_run_is_continued_to_the_same_folder(real_set, simulated, tmp_path, fingerprint):
    out = shutil.copytree(simulated, tmp_path / 'run')
    for name in ('manifest.json', 'particles.mrcs', 'records/simulated_00003.json', 'specimen/volume_01.mrc'):
        (out / name).unlink()
    arguments = real_set.simulate(out, '--n-micrographs', '3', '--particles', 'both', '--seed', '7', '--continue')
    assert main(arguments) == 0

    assert fingerprint(out) == fingerprint(simulated)


def test_a_run_that_was_never_begun_can_be_continued(simulated, generated, tmp_path, fingerprint):
    out = tmp_path / 'run'
    assert main(['generate', '--dataset', str(simulated), '--n-micrographs', '3', '--seed', '11', '--output', str(out),
                 '--continue']) == 0

    assert fingerprint(out) == fingerprint(generated)


@pytest.mark.parametrize(('flag', 'value', 'key'), [
    ('--seed', '12', 'seed'), ('--model', 'gaussian', 'model'), ('--dose', '30', 'dose'), ('--prefix', 'x', 'prefix'),
    ('--box-size', '64', 'box_size')])
def test_a_run_is_not_continued_with_another_setting(flag, value, key, interrupted, arguments, fail, fingerprint):
    before = fingerprint(interrupted)
    message = fail([*arguments, '--continue', flag, value])

    assert message.startswith(f'{key} is ')
    assert 'was started with' in message
    assert fingerprint(interrupted) == before


def test_a_finished_run_is_not_overwritten(interrupted, arguments, fail, fingerprint):
    before = fingerprint(interrupted)

    assert fail(arguments) == f"output '{interrupted}' is not empty; choose another folder, or say --continue"
    assert fingerprint(interrupted) == before


@pytest.mark.parametrize('flags', [[], ['--continue']])
def test_a_folder_of_something_else_is_refused(flags, simulated, tmp_path, fail):
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis' / 'chapter.txt').write_text('years of work')
    message = fail(['generate', '--dataset', str(simulated), '--output', str(tmp_path / 'thesis'), *flags])

    assert message.startswith(f"output '{tmp_path / 'thesis'}' ")
    assert [one.name for one in (tmp_path / 'thesis').iterdir()] == ['chapter.txt']


def test_a_run_of_another_command_is_not_continued(simulated, tmp_path, fail):
    out = shutil.copytree(simulated, tmp_path / 'run')

    assert 'was started with' in fail(['generate', '--dataset', str(simulated), '--output', str(out), '--continue'])


def test_the_config_of_a_continued_run_is_that_of_its_last_part(interrupted, arguments):
    arguments[arguments.index('3')] = '4'
    assert main([*arguments, '--continue']) == 0

    assert json.loads((interrupted / 'config.json').read_text())['n_micrographs'] == 4
    assert len(json.loads((interrupted / 'manifest.json').read_text())['micrographs']) == 4
