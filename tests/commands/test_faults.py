"""What may happen to a long run: it is killed, its disk fills up, its inputs vanish, a worker dies."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import cryogem.commands.generate as command
from cryogem.__main__ import main

_PATIENCE = 900                             # s to wait for what must happen: test machines may be busy
_ENDLESS = '5000'                           # micrographs, more than are made before somebody ends the run

# Kills forked copies of a process that has imported everything, so that kills meet the work and not the imports.
_KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from cryogem.__main__ import main
import cryogem.commands.generate, cryogem.commands.simulate

def start(arguments):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main(arguments))
    return child

arguments, n_kills, longest = sys.argv[3:], int(sys.argv[1]), float(sys.argv[2])
draw, n_met, n_at_work = random.Random(0), 0, 0
while n_met < n_kills:
    child = start(arguments)
    time.sleep(draw.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        n_met += 1
        n_at_work += not Path(arguments[arguments.index('--output') + 1], 'manifest.json').exists()
    else:
        longest /= 2                        # it had ended: the next ones are killed earlier
print('kills', n_met, n_at_work)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(start(arguments), 0)[1]))
"""


def time_run(arguments):
    """Return how many seconds a run takes that nobody disturbs."""
    start = time.monotonic()
    assert main(arguments) == 0
    return time.monotonic() - start


def kill_and_continue(arguments, n_kills, duration):
    """Kill a run that would take `duration` seconds `n_kills` times, at moments all over it, then let it finish."""
    done = subprocess.run([sys.executable, '-c', _KILLER, str(n_kills), str(2 * duration / n_kills), *arguments,
                           '--continue'], capture_output=True, text=True, timeout=_PATIENCE, check=False,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr
    word, n_met, n_at_work = done.stdout.splitlines()[-1].split()
    assert (word, int(n_met)) == ('kills', n_kills), done.stdout + done.stderr
    assert int(n_at_work) > 0               # met a run that was not finished yet


@pytest.mark.slow
def test_twenty_kills_of_generate_end_in_the_same_bytes_as_an_uninterrupted_run(simulated, tmp_path, fingerprint):
    arguments = ['generate', '--dataset', str(simulated), '--n-micrographs', '150', '--seed', '11', '--particles',
                 'both', '--formats', 'clean', 'masks', 'png', 'topaz', 'eman', 'cryolo', 'coco', 'cryodrgn',
                 '--output']
    duration = time_run([*arguments, str(tmp_path / 'straight')])
    kill_and_continue([*arguments, str(tmp_path / 'killed')], 20, duration)

    assert fingerprint(tmp_path / 'killed') == fingerprint(tmp_path / 'straight')


@pytest.mark.slow
def test_kills_of_simulate_while_it_measures_and_makes_end_in_the_same_bytes(real_set, tmp_path, fingerprint):
    more = ('--n-micrographs', '60', '--seed', '7', '--particles', 'both')
    duration = time_run(real_set.simulate(tmp_path / 'straight', *more))
    kill_and_continue(real_set.simulate(tmp_path / 'killed', *more), 6, duration)

    assert fingerprint(tmp_path / 'killed') == fingerprint(tmp_path / 'straight')


def start_program(arguments):
    return subprocess.Popen([sys.executable, '-m', 'cryogem', *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})


def wait_for_workers(process, n, output, n_made=1):
    """Return the worker processes of a run once there are `n`, and `n_made` micrographs."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        workers = [one for one in psutil.Process(process.pid).children() if is_worker(one)]
        if len(workers) >= n and len(list((output / 'records').glob('*.json'))) >= n_made:
            return workers
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f'no workers were started: {process.communicate()}')


def is_worker(process):
    """Say whether a child of a run is a worker; others come and go."""
    try:
        return 'spawn_main' in ' '.join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.slow
def test_a_worker_that_dies_is_told_and_the_run_continued(simulated, tmp_path, fingerprint):
    out = tmp_path / 'out'
    arguments = ['generate', '--dataset', str(simulated), '--seed', '11']
    process = start_program([*arguments, '--n-micrographs', _ENDLESS, '--workers', '2', '--output', str(out)])
    wait_for_workers(process, 2, out)[0].send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=_PATIENCE)

    assert process.returncode == 2
    assert errors.splitlines()[-1] == ('ERROR: workers ended before their work was done, perhaps for lack of memory; '
                                       'use fewer and continue the run')
    assert not (out / 'manifest.json').exists()
    arguments += ['--n-micrographs', '60']
    assert main([*arguments, '--output', str(out), '--continue']) == 0
    assert main([*arguments, '--output', str(tmp_path / 'straight')]) == 0
    assert fingerprint(out) == fingerprint(tmp_path / 'straight')


@pytest.mark.slow
def test_a_worker_that_dies_before_it_has_begun_is_told(simulated, tmp_path):
    process = start_program(['generate', '--dataset', str(simulated), '--n-micrographs', _ENDLESS, '--workers',
                             '2', '--output', str(tmp_path / 'out')])
    wait_for_workers(process, 1, tmp_path / 'out', n_made=0)[-1].send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=_PATIENCE)

    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith('ERROR: workers ended before their work was done')


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(simulated, tmp_path):
    out = tmp_path / 'out'
    process = start_program(['generate', '--dataset', str(simulated), '--n-micrographs', _ENDLESS, '--workers',
                             '2', '--output', str(out)])
    workers = wait_for_workers(process, 2, out)
    process.kill()
    process.communicate(timeout=_PATIENCE)
    _, alive = psutil.wait_procs(workers, timeout=_PATIENCE)

    assert alive == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB, where this process may mount one."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=6m', 'tmpfs', str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip('only root may mount a small file system')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


@pytest.mark.parametrize('workers', ['1', '2'])
def test_a_full_disk_is_one_line_and_the_run_is_continued_when_there_is_room(
    workers, simulated, small_disk, fail, fingerprint, tmp_path,
):
    out = small_disk / 'out'
    arguments = ['generate', '--dataset', str(simulated), '--n-micrographs', '12', '--seed', '11', '--output']
    message = fail([*arguments, str(out), '--workers', workers])

    assert message.startswith(f"output '{out}/")
    assert message.endswith('cannot be written: No space left on device; check permissions and free space')
    assert list(out.rglob('*.part')) == []
    assert not (out / 'manifest.json').exists()
    for record in (out / 'records').iterdir():                  # what has a record is whole
        assert (out / 'micrographs' / f'{record.stem}.mrc').stat().st_size == 1024 + 256 * 288 * 4
    subprocess.run(['mount', '-o', 'remount,size=60m', str(small_disk)], check=True)
    assert main([*arguments, str(out), '--continue']) == 0
    assert main([*arguments, str(tmp_path / 'straight')]) == 0
    assert fingerprint(out) == fingerprint(tmp_path / 'straight')


def test_a_disk_that_is_full_at_the_tables_leaves_a_run_that_is_not_finished(simulated, small_disk, fail):
    out = small_disk / 'out'
    arguments = ['generate', '--dataset', str(simulated), '--n-micrographs', '3', '--particles', 'clean', '--box-size',
                 '96', '--output', str(out), '--continue']
    assert main(arguments) == 0
    (out / 'clean_particles.mrcs').unlink()
    needed_before = max(path.stat().st_size for path in (out / 'specimen').iterdir()) + 100_000
    (small_disk / 'ballast').write_bytes(bytes(shutil.disk_usage(small_disk).free - needed_before))
    message = fail(arguments)

    assert message.startswith(f"output '{out}/clean_particles.mrcs' cannot be written: No space left on device")
    assert list(out.rglob('*.part')) == []
    assert not (out / 'manifest.json').exists()
    (small_disk / 'ballast').unlink()
    assert main(arguments) == 0


def test_a_read_only_disk_is_one_line(simulated, small_disk, fail):
    subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
    message = fail(['generate', '--dataset', str(simulated), '--n-micrographs', '1', '--output',
                    str(small_disk / 'out')])

    assert message == (f"output '{small_disk / 'out'}' cannot be made: Read-only file system; choose another folder")


def test_a_dataset_that_vanished_is_named_and_what_was_made_stays(simulated, tmp_path, fail, fingerprint):
    dataset, out = shutil.copytree(simulated, tmp_path / 'dataset'), tmp_path / 'out'
    arguments = ['generate', '--dataset', str(dataset), '--output', str(out), '--n-micrographs']
    assert main([*arguments, '1']) == 0
    before = fingerprint(out)
    shutil.rmtree(dataset)

    assert fail([*arguments, '2', '--continue']).startswith(f"dataset '{dataset}' holds no finished simulate run")
    assert fingerprint(out) == before


def test_a_model_that_vanishes_before_the_workers_load_it_is_named(simulated, model, tmp_path, fail, monkeypatch):
    other, check = shutil.copytree(model, tmp_path / 'model'), command.check_model

    def check_then_lose(*arguments):
        check(*arguments)
        shutil.rmtree(other)

    monkeypatch.setattr(command, 'check_model', check_then_lose)
    message = fail(['generate', '--dataset', str(simulated), '--model', str(other), '--n-micrographs', '2', '--workers',
                    '2', '--output', str(tmp_path / 'out')])

    assert message.startswith(f"model '{other}' is no folder")


def test_maps_that_vanished_are_named_when_a_simulate_run_is_continued(real_set, tmp_path, fail, fingerprint):
    volume, out = tmp_path / 'map.mrc', tmp_path / 'out'
    shutil.copy(real_set.map, volume)
    arguments = real_set.simulate(out, '--n-micrographs', '1')
    arguments[arguments.index(real_set.map)] = str(volume)
    assert main(arguments) == 0
    before = fingerprint(out)
    volume.unlink()

    assert str(volume) in fail([*arguments, '--continue'])
    assert fingerprint(out) == before
    assert Path(real_set.map).exists()
