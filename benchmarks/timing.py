"""Medians of interleaved pairs: both sides in one run, so that a machine that drifts is fair to both."""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path


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
    print(time_runs(run, n_runs), measure_peak_memory())


def time_runs(run: Callable[[], object], n_runs: int) -> float:
    """Return the median seconds of `run`, called `n_runs` times after one warm-up."""
    run()
    seconds = []
    for _ in range(n_runs):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure_peak_memory() -> float:
    """Return the peak memory of this process, GiB; where the kernel says it, without what the parent had before."""
    status = Path('/proc/self/status')
    if status.exists():
        found = next(line for line in status.read_text(encoding='utf-8').splitlines() if line.startswith('VmHWM'))
        return int(found.split()[1]) / 2 ** 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20


def parse_kinds(description: str | None, kinds: Sequence[str], unit: str, n_rounds: int, n_runs: int
                ) -> argparse.Namespace:
    """Read the command line of a script that times kinds of networks in processes of their own.

    Parameters
    ----------
    unit : what is done once in a run, in the plural.
    n_rounds, n_runs : defaults.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sides', type=int, nargs='+', default=[1024], help='of the frames, px, powers of two')
    parser.add_argument('--kinds', nargs='+', choices=list(kinds), default=list(kinds))
    parser.add_argument('--rounds', type=int, default=n_rounds, help='processes of each kind')
    parser.add_argument('--runs', type=int, default=n_runs, help=f'{unit} in each process, after one to warm up')
    parser.add_argument('--threads', type=int, default=1, help='of both sides')
    parser.add_argument('--alone', help='for the benchmark itself: time this kind in this process')
    return parser.parse_args()


def time_alone_in_turn(
    script: str, kinds: Sequence[str], side: int, n_rounds: int, n_runs: int, n_threads: int = 1
) -> list[tuple[float, float]]:
    """Return median seconds and peak memory of each kind of a script's runs, in processes of their own and in turn.

    A process is started as ``script --alone KIND --sides SIDE --runs N --threads M`` and ends with `report_alone`.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in kinds]
    for _ in range(n_rounds):
        for results, kind in zip(found, kinds, strict=True):
            results.append(time_alone(script, '--alone', kind, '--sides', str(side), '--runs', str(n_runs),
                                      '--threads', str(n_threads)))
    return [(statistics.median(one[0] for one in results), max(one[1] for one in results)) for results in found]


def print_ratio(what: str, reference: float, ours: float, goal: str) -> None:
    """Print one line: milliseconds of both sides, their ratio and the goal."""
    print(f'{what:<44s} reference {reference * 1e3:10.3f} ms   ours {ours * 1e3:9.3f} ms   '
          f'ratio {reference / ours:8.1f}   goal {goal}', flush=True)


def print_bound(seconds: float, reference: float, operations: float, known_rate: float, rate: float) -> None:
    """Print what the CPU allows: of the machine the goals were set on, and of this one.

    Parameters
    ----------
    seconds, reference : of ours and of the other side.
    operations : FLOP.
    known_rate, rate : FLOP/s of the best convolution there and here.
    """
    bound = operations / rate
    print(f'  bound {operations / known_rate:.2f} s where the goal was set ({known_rate / 1e9:.0f} GFLOP/s), here '
          f'{bound:.2f} s ({rate / 1e9:.0f} GFLOP/s): ours is {seconds / bound:.2f} bounds, at the bound the ratio '
          f'would be {reference / bound:.1f}', flush=True)
