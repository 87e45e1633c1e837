"""Production of micrographs by index, in this process and in others; what a worker suffers the parent is told."""

import os
import sys
import threading
import time

import pytest
import torch

from cryogem.dataset.production import Stages, produce
from cryogem.errors import CryogemError, InputError


def build_toucher(folder):
    """Return what leaves a file for each index, with the process and its threads."""
    def make(index):
        (folder / f'{index}.txt').write_text(f'{os.getpid()} {torch.get_num_threads()}')

    return make


def build_refuser(folder, wrong):
    def make(index):
        if index == wrong:
            raise InputError(f'micrograph {index} cannot be made; leave it out')
        time.sleep(0.1)
        build_toucher(folder)(index)

    return make


def build_victim(folder, wrong):
    def make(index):
        if index == wrong:
            os._exit(1)                     # as the kernel ends a process that takes too much memory
        build_toucher(folder)(index)

    return make


def build_nothing(folder):
    raise InputError('model cannot be loaded; train it again')


@pytest.fixture(autouse=True)
def _restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def for_workers(monkeypatch):
    """Make this module importable under its own name in the processes that are spawned."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


def list_indices(folder):
    return sorted(int(path.stem) for path in folder.iterdir())


def test_only_the_missing_indices_are_made_in_this_process(tmp_path):
    produce(build_toucher, (tmp_path,), [1, 4], 5, n_workers=1)

    assert list_indices(tmp_path) == [1, 4]
    assert (tmp_path / '1.txt').read_text() == f'{os.getpid()} 1'


def test_one_thread_is_used_here_as_in_workers_and_the_number_is_given_back(tmp_path):
    torch.set_num_threads(2)
    produce(build_toucher, (tmp_path,), [0], 1, n_workers=1)

    assert torch.get_num_threads() == 2
    assert (tmp_path / '0.txt').read_text().split()[1] == '1'


def test_the_threads_are_given_back_after_a_failure(tmp_path):
    torch.set_num_threads(2)
    with pytest.raises(InputError):
        produce(build_refuser, (tmp_path, 0), [0], 1, n_workers=1)

    assert torch.get_num_threads() == 2


def test_nothing_is_built_nor_made_when_nothing_is_missing(tmp_path):
    produce(build_nothing, (tmp_path,), [], 3, n_workers=4)

    assert list_indices(tmp_path) == []


def test_an_exception_here_ends_the_run_and_keeps_what_was_made(tmp_path):
    with pytest.raises(InputError, match='micrograph 2 cannot be made'):
        produce(build_refuser, (tmp_path, 2), range(5), 5, n_workers=1)

    assert list_indices(tmp_path) == [0, 1]


def test_an_exception_of_a_worker_reaches_the_parent_as_it_is(tmp_path, for_workers):
    with pytest.raises(InputError, match='micrograph 1 cannot be made; leave it out'):
        produce(build_refuser, (tmp_path, 1), range(40), 40, n_workers=2)

    assert 1 not in list_indices(tmp_path)
    assert len(list_indices(tmp_path)) < 39                             # the rest was called off
    notes = [path.read_text().split() for path in tmp_path.iterdir()]
    assert {threads for _, threads in notes} == {'1'}
    assert str(os.getpid()) not in {process for process, _ in notes}


def test_a_worker_that_is_killed_is_reported_with_a_remedy(tmp_path, for_workers):
    with pytest.raises(CryogemError, match='workers ended before their work was done.*use fewer and continue the run'):
        produce(build_victim, (tmp_path, 1), range(6), 6, n_workers=2)


@pytest.mark.slow
def test_an_exception_of_a_worker_that_begins_reaches_the_parent_as_it_is(tmp_path, for_workers):
    with pytest.raises(InputError, match='model cannot be loaded; train it again'):
        produce(build_nothing, (tmp_path,), range(4), 4, n_workers=2)


class Line:
    """Stages that note what they do; `slow` is the one that takes its time."""

    def __init__(self, slow='', wrong=('', -1), batch_size=1):
        self.slow, self.wrong, self.batch_size = slow, wrong, batch_size
        self.events, self.most_waiting, self.batches = [], 0, []

    def stages(self):
        return Stages(self.prepare, self.develop, self.write, self.batch_size)

    def note(self, stage, index):
        if self.wrong == (stage, index):
            raise InputError(f'micrograph {index} cannot be {stage}; leave it out')
        if self.slow == stage:
            time.sleep(0.02)
        self.events.append((stage, index))
        done = [sum(one == stage for one, _ in self.events) for stage in ('prepared', 'written')]
        self.most_waiting = max(self.most_waiting, done[0] - done[1])

    def prepare(self, index):
        self.note('prepared', index)
        return index

    def develop(self, indices):
        self.batches.append(list(indices))
        for index in indices:
            self.note('developed', index)
        return indices

    def write(self, index):
        self.note('written', index)


def build_line(line):
    return line.stages()


@pytest.mark.parametrize('slow', ['prepared', 'developed', 'written', ''])
def test_few_micrographs_wait_behind_the_slowest_stage(slow):
    line = Line(slow)
    produce(build_line, (line,), range(30), 30, n_workers=1)

    assert [index for stage, index in line.events if stage == 'written'] == list(range(30))
    assert line.most_waiting <= 5


class PatientLine(Line):
    """Writes its first micrograph only when the next one is developed and the one after that prepared."""

    def __init__(self):
        super().__init__()
        self.ahead = {('developed', 1): threading.Event(), ('prepared', 2): threading.Event()}

    def note(self, stage, index):
        if (stage, index) == ('written', 0):
            assert all(one.wait(900) for one in self.ahead.values())
        super().note(stage, index)
        if (stage, index) in self.ahead:
            self.ahead[stage, index].set()


def test_a_micrograph_is_written_while_the_next_one_is_developed_and_another_prepared():
    line = PatientLine()
    produce(build_line, (line,), range(4), 4, n_workers=1)

    assert [index for stage, index in line.events if stage == 'written'] == list(range(4))


def test_batches_are_developed_together_in_the_order_they_were_asked_for():
    line = Line(batch_size=4)
    produce(build_line, (line,), range(10), 10, n_workers=1)

    assert line.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [index for stage, index in line.events if stage == 'written'] == list(range(10))


@pytest.mark.parametrize('stage', ['prepared', 'developed', 'written'])
def test_a_fault_in_any_stage_reaches_the_caller_and_what_was_before_it_is_written(stage):
    line = Line(wrong=(stage, 6))
    with pytest.raises(InputError, match=f'micrograph 6 cannot be {stage}'):
        produce(build_line, (line,), range(30), 30, n_workers=1)

    written = [index for stage, index in line.events if stage == 'written']
    assert written[:6] == list(range(6))
    assert 6 not in written
    assert len(line.events) < 40


def test_every_stage_computes_in_one_thread_as_workers_do():
    counts = []

    def note(value):
        counts.append(torch.get_num_threads())
        return value

    torch.set_num_threads(2)
    produce(lambda: Stages(note, note, note), (), range(2), 2, n_workers=1)

    assert set(counts) == {1}
