"""Trainings as processes of their own: killed at any moment, and several that train together."""

import csv
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from cryogem.__main__ import main
from cryogem.io.checkpoint import load_checkpoint
from cryogem.translation import load_generator

pytestmark = pytest.mark.slow

# A training that is killed some seconds of work after a step: of its own work, so that no other program on the machine
# can make it come too late. Nobody handles the signal: it ends a process as SIGKILL does.
_MORTAL = """
import signal, sys
from cryogem.__main__ import main
from cryogem.progress import MetricsLog
step, delay, append = int(sys.argv.pop(1)), float(sys.argv.pop(1)), MetricsLog.append

def append_and_die_soon(log, row):
    append(log, row)
    if row['step'] >= step:
        MetricsLog.append = append
        signal.setitimer(signal.ITIMER_PROF, delay)

MetricsLog.append = append_and_die_soon
sys.exit(main())
"""


@pytest.fixture
def arguments(real_set, simulated):
    """A training of eight steps on tiny crops, judged every two."""
    return ['train', '--dataset', str(simulated), '--micrographs', real_set.micrographs, '--max-steps', '8',
            '--crop-size', '48', '--batch-size', '4', '--checkpoint-every', '2', '--held-out', '0.5', '--device', 'cpu']


def start(arguments, **more):
    """Start the command line as a process; one thread, so that sums have one order."""
    return subprocess.Popen([sys.executable, '-m', 'cryogem', *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'}, **more)


def finish(arguments):
    """Run the command line to its end and return what it said."""
    process = start(arguments)
    text, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, text
    return text


def read_rows(folder):
    """Return the rows of the metrics without their seconds."""
    with (folder / 'metrics.csv').open() as file:
        return [{key: value for key, value in row.items() if key != 'seconds'} for row in csv.DictReader(file)]


def assert_same(first, second):
    """Every number that a training keeps is the same to the last bit."""
    assert read_rows(first) == read_rows(second)
    assert [row['step'] for row in read_rows(first) if row['realism_model']] != []
    one, other = (load_checkpoint(folder / 'checkpoint.pt') for folder in (first, second))
    assert one['best'] == other['best']
    for key in ('generator', 'averaged', 'discriminator', 'heads'):
        assert all(torch.equal(value, other['learner'][key][name]) for name, value in one['learner'][key].items())
    models = [load_generator(folder).state_dict() for folder in (first, second)]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_a_training_that_is_killed_again_and_again_ends_with_the_numbers_of_an_uninterrupted_one(arguments, tmp_path):
    straight, killed = tmp_path / 'straight', tmp_path / 'killed'
    finish([*arguments, '--output', str(straight)])
    rng = np.random.default_rng(0)
    for step in (1, 3, 6):                              # after which, and a little work later, it is killed
        died = subprocess.run([sys.executable, '-c', _MORTAL, str(step), str(rng.uniform(1e-4, 0.1)), *arguments,
                               '--output', str(killed), '--continue'], check=False, capture_output=True, text=True,
                              env={**os.environ, 'OMP_NUM_THREADS': '1'})
        assert died.returncode == -signal.SIGPROF, died.stderr
    finish([*arguments, '--output', str(killed), '--continue'])

    assert_same(straight, killed)
    assert list(killed.rglob('.*.part')) == []


def test_a_training_killed_in_the_middle_of_writing_continues_from_the_last_whole_checkpoint(arguments, tmp_path):
    """The process is killed as soon as it begins to write its second checkpoint."""
    straight, killed = tmp_path / 'straight', tmp_path / 'killed'
    finish([*arguments, '--output', str(straight)])
    program = (
        'import os, signal, sys\n'
        'import cryogem.translation.trainer as trainer\n'
        'from cryogem.__main__ import main\n'
        'save, calls = trainer.save_checkpoint, []\n'
        'def save_or_die(path, content):\n'
        '    calls.append(path)\n'
        '    if len(calls) == 2:\n'
        '        path.with_name(f".{path.name}.1.part").write_bytes(b"half a checkpoint")\n'
        '        os.kill(os.getpid(), signal.SIGKILL)\n'
        '    save(path, content)\n'
        'trainer.save_checkpoint = save_or_die\n'
        'sys.exit(main())\n')
    died = subprocess.run([sys.executable, '-c', program, *arguments, '--output', str(killed)], check=False,
                          capture_output=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert died.returncode == -signal.SIGKILL
    assert load_checkpoint(killed / 'checkpoint.pt')['step'] == 2
    load_generator(killed)                                      # the model that lies there is whole
    finish([*arguments, '--output', str(killed), '--continue'])

    assert_same(straight, killed)
    assert list(killed.rglob('.*.part')) == []


def test_two_processes_have_the_loss_curve_of_one_with_the_same_crops(arguments, tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    finish([*arguments, '--output', str(one)])
    text = finish([*arguments, '--output', str(two), '--devices', '2'])

    assert text.count('model of step') == 1                     # the first process speaks for all
    alone, together = read_rows(one), read_rows(two)
    assert len(together) == len(alone) == 8
    for row, other in zip(alone, together, strict=True):
        for key, value in row.items():
            assert float(other[key] or 0) == pytest.approx(float(value or 0), rel=2e-3, abs=1e-5), (row['step'], key)
    first, second = (load_generator(folder).state_dict() for folder in (one, two))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5)


def test_worker_processes_draw_the_same_crops(arguments, tmp_path):
    for workers in ('1', '2'):
        assert main([*arguments, '--max-steps', '4', '--output', str(tmp_path / workers), '--workers', workers]) == 0

    assert_same(tmp_path / '1', tmp_path / '2')
