"""Progress lines and the table of metrics, with a clock that the test moves."""

import logging

import pytest

from cryogem import progress
from cryogem.progress import MetricsLog, Progress, format_duration


class Clock:
    """Stands in for `time`: its seconds pass when the test says so."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, 'time', clock)
    return clock


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger='cryogem')
    return lambda: caplog.messages


@pytest.mark.parametrize(('seconds', 'text'), [(0, '0:00:00'), (59.6, '0:01:00'), (61, '0:01:01'), (7325, '2:02:05')])
def test_a_duration_reads_as_hours_minutes_seconds(seconds, text):
    assert format_duration(seconds) == text


def test_a_line_says_count_rate_and_time_left(clock, lines):
    loop = Progress('simulating', total=20)
    clock.now += 10
    loop.update(5)

    assert lines() == ['simulating: 5/20, 0.5/s, 0:00:30 left']


def test_a_note_is_appended(clock, lines):
    loop = Progress('training', total=4)
    clock.now += 2
    loop.update(4, note='loss 0.25')

    assert lines() == ['training: 4/4, 2/s, 0:00:00 left, loss 0.25']


def test_lines_within_the_interval_are_left_out_but_not_the_last(clock, lines):
    loop = Progress('simulating', total=4, interval=5)
    for done in (1, 2, 3, 4):
        clock.now += 1
        loop.update(done)

    assert [line.split(',')[0] for line in lines()] == ['simulating: 1/4', 'simulating: 4/4']


def test_the_rate_of_a_continued_run_counts_only_what_it_made_itself(clock, lines):
    loop = Progress('simulating', total=20, done=10)
    clock.now += 10
    loop.update(15)

    assert lines() == ['simulating: 15/20, 0.5/s, 0:00:10 left']


def test_rows_of_metrics_are_read_back_in_order(tmp_path):
    log = MetricsLog(tmp_path / 'metrics.csv', ('step', 'loss'))
    log.append({'step': 1, 'loss': 0.5})
    log.append({'step': 2, 'loss': 0.25})

    assert (tmp_path / 'metrics.csv').read_text().splitlines() == ['step,loss', '1,0.5', '2,0.25']
    assert log.read() == [{'step': '1', 'loss': '0.5'}, {'step': '2', 'loss': '0.25'}]


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path):
    log = MetricsLog(tmp_path / 'metrics.csv', ('step', 'loss'))
    for step in range(1, 13):
        log.append({'step': step, 'loss': 1 / step})

    log.keep_until('step', 9)
    log.append({'step': 10, 'loss': 0.1})

    assert [row['step'] for row in log.read()] == [str(step) for step in range(1, 11)]


def test_no_metrics_yet_is_an_empty_table(tmp_path):
    assert MetricsLog(tmp_path / 'metrics.csv', ('step',)).read() == []


def test_an_unknown_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match='speed'):
        MetricsLog(tmp_path / 'metrics.csv', ('step',)).append({'step': 1, 'speed': 2})
