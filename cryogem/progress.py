"""Progress lines that land in Scipion's run.stdout, and rows of metrics: plain, flushed, one per event."""

import csv
import logging
import time
from pathlib import Path

logger = logging.getLogger(__name__)


class Progress:
    """Logs count, rate and time left of a loop, at most once every `interval` seconds and at its end."""

    def __init__(self, label: str, total: int, done: int = 0, interval: float = 5.0):
        self._label, self._total, self._done, self._interval = label, total, done, interval
        self._first = done
        self._started = time.monotonic()
        self._last = -float('inf')

    def update(self, done: int, note: str = '') -> None:
        """Say that `done` of the total are finished; `note` is appended to the line."""
        self._done = done
        now = time.monotonic()
        if done < self._total and now - self._last < self._interval:
            return
        self._last = now
        logger.info('%s', self._format(now) + (f', {note}' if note else ''))

    def _format(self, now: float) -> str:
        made, elapsed = self._done - self._first, now - self._started
        line = f'{self._label}: {self._done}/{self._total}'
        if made and elapsed:
            rate = made / elapsed
            line += f', {rate:.3g}/s, {format_duration((self._total - self._done) / rate)} left'
        return line


def format_duration(seconds: float) -> str:
    """Return a duration as ``h:mm:ss``."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{seconds:02d}'


class MetricsLog:
    """Appends rows of fixed columns to a CSV file, so that training can be watched while it runs."""

    def __init__(self, path: Path, columns: tuple[str, ...]):
        self._path, self._columns = path, columns

    def keep_until(self, column: str, last: int) -> None:
        """Drop the rows whose `column` exceeds `last`: what an interrupted run wrote after its checkpoint."""
        rows = [row for row in self.read() if int(row[column]) <= last]
        self._write(rows, mode='w')

    def append(self, row: dict[str, float]) -> None:
        """Write one row; its keys must be the columns."""
        self._write([row], mode='a' if self._path.exists() else 'w')

    def read(self) -> list[dict[str, str]]:
        """Return the rows written so far, values as text; not one that a killed program wrote in part."""
        if not self._path.exists():
            return []
        with self._path.open(newline='') as file:
            return [row for row in csv.DictReader(file) if None not in row.values()]

    def _write(self, rows: list, mode: str) -> None:
        with self._path.open(mode, newline='') as file:
            writer = csv.DictWriter(file, self._columns)
            if mode == 'w':
                writer.writeheader()
            writer.writerows(rows)
