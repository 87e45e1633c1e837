"""Medians of interleaved pairs: both sides in one run, so that a machine that drifts is fair to both."""

import resource
import statistics
import subprocess
import sys
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


def time_alone(script: str, *arguments: str) -> tuple[float, float]:
    """Run a script in a process of its own, because the allocator is set for a whole process.

    Returns
    -------
    The seconds and the peak memory (GiB) that `report_alone` prints there.
    """
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), float(memory)


def report_alone(run: Callable[[], object], n_runs: int) -> None:
    """Print, for `time_alone`, the median seconds of `run` after one warm-up, and the peak memory of this process."""
    run()
    seconds = []
    for _ in range(n_runs):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    print(statistics.median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20)


def time_alone_pairs(script: str, reference: str, ours: str, side: int, n_pairs: int) -> list[tuple[float, float]]:
    """Return median seconds and peak memory of two kinds of a script's runs, in processes of their own and in turn."""
    found: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for _ in range(n_pairs):
        for results, kind in zip(found, (reference, ours), strict=True):
            results.append(time_alone(script, kind, str(side)))
    return [(statistics.median(one[0] for one in results), max(one[1] for one in results)) for results in found]


def print_ratio(what: str, reference: float, ours: float, goal: str) -> None:
    """Print one line: milliseconds of both sides, their ratio and the goal."""
    print(f'{what:<44s} reference {reference * 1e3:10.3f} ms   ours {ours * 1e3:9.3f} ms   '
          f'ratio {reference / ours:8.1f}   goal {goal}', flush=True)
