"""Settings out of range, devices that are not there and outputs that cannot be written: one line, nothing half done."""

import os
import shutil

import pytest

from cryogem.__main__ import main


@pytest.mark.parametrize(('command', 'flags'), [
    ('simulate', []), ('generate', ['--dataset', 'x']), ('train', ['--dataset', 'x', '--micrographs', 'x'])])
def test_a_gpu_that_is_not_there_is_refused(command, flags, case, fail, tmp_path):
    arguments = case.arguments if command == 'simulate' else [command, *flags, '--output', str(case.output)]
    message = fail([*arguments, '--device', 'cuda:99'])

    assert message.startswith("device 'cuda:99' is not there: torch sees ")
    assert not case.output.exists()


def test_a_device_that_does_not_exist_is_refused(case, refuse):
    case.put('--device', 'tpu')

    assert refuse() == "device cannot be 'tpu'; say auto, cpu, cuda or cuda:N"


@pytest.mark.parametrize(('flag', 'value', 'message'), [
    ('--box-size', '33', 'box_size cannot be 33; use the even number 34'),
    ('--box-size', '0', 'box_size cannot be 0; give a positive number'),
    ('--n-micrographs', '0', 'n_micrographs cannot be 0; give a positive number'),
    ('--workers', '0', 'workers cannot be 0; give at least 1'),
    ('--seed', '-1', 'seed cannot be -1; give zero or a positive integer'),
    ('--pixel-size', '-1', 'pixel_size cannot be -1.0; give a positive number'),
    ('--particles', 'some', "particles cannot be 'some'; say one of none, clean, generated, both"),
])
def test_a_setting_out_of_range_is_named_with_its_value(flag, value, message, case, refuse):
    case.put(flag, value)

    assert refuse() == message


@pytest.mark.parametrize('command', ['calibrate', 'simulate', 'generate', 'evaluate', 'train'])
def test_an_output_that_is_a_file_is_refused(command, real_set, simulated, generated, tmp_path, fail):
    out = tmp_path / 'out'
    out.write_text('mine')
    message = fail([*list_arguments(command, real_set, simulated, generated), '--output', str(out)])

    assert message.startswith(f"output '{out}' ")
    assert out.read_text() == 'mine'


@pytest.mark.parametrize('command', ['calibrate', 'simulate', 'generate', 'evaluate', 'train'])
def test_an_output_that_cannot_be_made_is_refused(command, real_set, simulated, generated, tmp_path, fail):
    (tmp_path / 'file').write_text('mine')
    out = tmp_path / 'file' / 'out'
    message = fail([*list_arguments(command, real_set, simulated, generated), '--output', str(out)])

    assert message.startswith(f"output '{out}")
    assert (tmp_path / 'file').read_text() == 'mine'


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_an_output_without_permission_is_refused(real_set, simulated, generated, tmp_path, fail):
    (tmp_path / 'locked').mkdir(mode=0o500)
    out = tmp_path / 'locked' / 'out'
    message = fail([*list_arguments('generate', real_set, simulated, generated), '--output', str(out)])

    assert message.startswith(f"output '{out}")


def test_a_full_disk_is_one_line_and_leaves_no_half_file(simulated, tmp_path, fail, monkeypatch):
    replace, count = os.replace, []

    def fill_up(source, target):
        count.append(target)
        if len(count) == 20:
            raise OSError(28, 'No space left on device')
        replace(source, target)

    out = tmp_path / 'out'
    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', fill_up)
        message = fail(['generate', '--dataset', str(simulated), '--n-micrographs', '3', '--output', str(out)])
    assert message.startswith(f"output '{out}/")
    assert message.endswith('cannot be written: No space left on device; check permissions and free space')
    assert not (out / 'manifest.json').exists()
    assert main(['generate', '--dataset', str(simulated), '--n-micrographs', '3', '--continue', '--output',
                 str(out)]) == 0


@pytest.mark.parametrize('command', ['calibrate', 'evaluate', 'train'])
def test_the_results_of_another_run_are_not_overwritten(command, real_set, simulated, generated, tmp_path, fail,
                                                       fingerprint):
    out = shutil.copytree(simulated, tmp_path / 'out')
    before = fingerprint(out)
    message = fail([*list_arguments(command, real_set, simulated, generated), '--output', str(out)])

    assert message.startswith(f"output '{out}' ")
    assert fingerprint(out) == before


def list_arguments(command, real_set, simulated, generated):
    """Return a run of each command that would succeed, without its output."""
    return {
        'calibrate': ['calibrate', '--micrographs', real_set.micrographs, '--coordinates', real_set.coordinates,
                      '--ctfs', real_set.ctfs, '--particle-diameter', '120'],
        'simulate': real_set.simulate('', '--n-micrographs', '1')[:-4] + ['--n-micrographs', '1'],
        'generate': ['generate', '--dataset', str(simulated), '--n-micrographs', '1'],
        'evaluate': ['evaluate', '--generated', str(generated), '--real', real_set.micrographs],
        'train': ['train', '--dataset', str(simulated), '--micrographs', real_set.micrographs, '--max-steps', '1',
                  '--crop-size', '32', '--batch-size', '1'],
    }[command]
