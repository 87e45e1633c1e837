"""A run cut into shards, ranks and workers, in any order, is the run that one process makes."""

import json
import os
import subprocess
import sys

import pytest

from cryogem.__main__ import main
from cryogem.commands import making


@pytest.fixture
def arguments(simulated):
    """What made the shared run of three micrographs, without its output."""
    return ['generate', '--dataset', str(simulated), '--n-micrographs', '3', '--seed', '11', '--output']


def test_four_workers_give_the_same_bytes_as_one(arguments, generated, tmp_path, fingerprint):
    assert main([*arguments, str(tmp_path / 'out'), '--workers', '4']) == 0

    assert fingerprint(tmp_path / 'out') == fingerprint(generated)


@pytest.mark.parametrize('order', [(1, 2), (2, 1)])
def test_shards_in_any_order_are_merged_to_the_same_bytes(order, arguments, generated, tmp_path, fingerprint):
    out = tmp_path / 'out'
    for part in order:
        assert main([*arguments, str(out), '--shard', f'{part}/2']) == 0
        assert not (out / 'manifest.json').exists()
    (out / 'clean' / '.generated_00001.mrc.7.part').write_text('left by a shard that was killed')
    assert main(['merge', '--output', str(out)]) == 0

    assert fingerprint(out) == fingerprint(generated)


def test_shards_of_simulate_agree_on_the_calibration_and_are_merged(real_set, simulated, tmp_path, fingerprint):
    out = tmp_path / 'out'
    for part in ('2/3', '3/3', '1/3'):
        assert main(real_set.simulate(out, '--n-micrographs', '3', '--particles', 'both', '--seed', '7', '--shard',
                                      part)) == 0
    assert main(['merge', '--output', str(out)]) == 0

    assert fingerprint(out) == fingerprint(simulated)


def test_each_shard_makes_its_own_part(arguments, tmp_path):
    assert main([*arguments, str(tmp_path / 'out'), '--shard', '2/2']) == 0

    assert [path.name for path in (tmp_path / 'out' / 'records').iterdir()] == ['generated_00002.json']


def test_a_merge_says_which_micrographs_are_missing_or_damaged(arguments, tmp_path, fail):
    out = tmp_path / 'out'
    assert main([*arguments, str(out), '--shard', '1/2']) == 0
    message = fail(['merge', '--output', str(out)])
    assert message == (f"output '{out}' lacks 1 of 3 micrographs (generated_00002); "
                       'run the shards that make them again with --continue')
    (out / 'clean' / 'generated_00003.mrc').write_bytes(b'')
    assert 'lacks 2 of 3 micrographs (generated_00002, generated_00003)' in fail(['merge', '--output', str(out)])
    assert not (out / 'manifest.json').exists()


def test_a_shard_does_not_join_another_run(arguments, simulated, tmp_path, fail):
    out = tmp_path / 'out'
    assert main([*arguments, str(out), '--shard', '1/2']) == 0

    assert fail([*arguments, str(out), '--shard', '2/2', '--seed', '12']).startswith('seed is 12 but the run in')
    assert 'is not empty' in fail([*arguments, str(out)])


@pytest.mark.parametrize('shard', ['0/2', '3/2', '1', 'a/b', '-1/2', '1/0'])
def test_a_shard_that_does_not_exist_is_refused(shard, arguments, tmp_path, fail):
    assert fail([*arguments, str(tmp_path / 'out'), f'--shard={shard}']) == (
        f'shard cannot be {shard!r}; give part and number of parts, as 3/8')


def test_a_folder_without_shards_is_not_merged(simulated, tmp_path, fail):
    assert 'holds no shards of a simulate or generate run' in fail(['merge', '--output', str(tmp_path)])


def run_ranks(arguments, n_ranks=2, **more):
    """Run the command as torchrun does."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', **more}
    return subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={n_ranks}', '-m', 'cryogem',
         *arguments], capture_output=True, text=True, timeout=1800, check=False, env=environment)


def test_two_ranks_give_the_same_bytes_as_one_process(arguments, generated, tmp_path, fingerprint):
    done = run_ranks([*arguments, str(tmp_path / 'out')])

    assert done.returncode == 0, done.stderr
    assert fingerprint(tmp_path / 'out') == fingerprint(generated)
    assert 'rank 2 of 2' in done.stdout


@pytest.mark.slow
def test_two_ranks_of_simulate_share_one_calibration(real_set, simulated, tmp_path, fingerprint):
    done = run_ranks(real_set.simulate(tmp_path / 'out', '--n-micrographs', '3', '--particles', 'both', '--seed', '7'))

    assert done.returncode == 0, done.stderr
    assert fingerprint(tmp_path / 'out') == fingerprint(simulated)


@pytest.mark.slow
def test_a_mistake_ends_all_ranks_with_one_message(arguments, generated, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine.txt').write_text('mine')
    done = run_ranks([*arguments, str(tmp_path / 'out')])

    assert done.returncode != 0
    assert 'ERROR: output' in done.stderr
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['mine.txt']


def test_fewer_micrographs_leave_no_others_behind(arguments, tmp_path, generated, fingerprint):
    out = tmp_path / 'out'
    more = [*arguments, str(out)]
    more[more.index('3')] = '5'
    assert main(more) == 0
    (out / 'micrographs' / 'generated_0000x.mrc').write_text('mine')
    (out / 'records' / 'other_00009.json').write_text('mine')
    assert main([*arguments, str(out), '--continue']) == 0

    assert (out / 'micrographs' / 'generated_0000x.mrc').read_text() == 'mine'
    for path in ('micrographs/generated_0000x.mrc', 'records/other_00009.json'):
        (out / path).unlink()
    assert fingerprint(out) == fingerprint(generated)
    assert len(json.loads((out / 'manifest.json').read_text())['micrographs']) == 3


def test_what_a_killed_run_left_half_written_is_removed(arguments, generated, tmp_path, fingerprint):
    out = tmp_path / 'out'
    assert main([*arguments, str(out)]) == 0
    (out / 'micrographs' / '.generated_00002.mrc.123.part').write_text('half')
    (out / '.particles.star.123.rows.part').write_text('half')
    assert main([*arguments, str(out), '--continue']) == 0

    assert fingerprint(out) == fingerprint(generated)


def test_a_shuffled_order_gives_the_same_bytes(arguments, generated, tmp_path, fingerprint, monkeypatch):
    monkeypatch.setattr(making, 'find_missing', lambda *_: [2, 0, 1])
    assert main([*arguments, str(tmp_path / 'out')]) == 0

    assert fingerprint(tmp_path / 'out') == fingerprint(generated)
