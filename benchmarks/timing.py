"""Medians of interleaved pairs: both sides in one run, so that a machine that drifts is fair to both."""

import statistics
import time
from collections.abc import Callable


def time_pair(reference: Callable[[], object], ours: Callable[[], object], n_pairs: int) -> tuple[float, float]:
    """Return the median seconds of `reference` and of `ours`, called in turn `n_pairs` times after one warm-up each."""
    reference()
    ours()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(n_pairs):
        for side, run in enumerate((reference, ours)):
            started = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def print_ratio(what: str, reference: float, ours: float, goal: str) -> None:
    """Print one line: milliseconds of both sides, their ratio and the goal."""
    print(f'{what:<44s} reference {reference * 1e3:10.3f} ms   ours {ours * 1e3:9.3f} ms   '
          f'ratio {reference / ours:8.1f}   goal {goal}', flush=True)
