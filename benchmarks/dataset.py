"""Whole datasets: what a run costs from the start of its process to the last table, and what one more micrograph costs.

The reference is the computation of the published code (see reference.py), one process, timed for a few micrographs and
multiplied up to the number of ours: it takes ten seconds for each. Ours is the command line, all labels and checksums
included, timed whole.

Run: python benchmarks/dataset.py [N_MICROGRAPHS]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from micrograph import make_reference, write_reference
from projection import Phantom
from reference import save_published
from timing import print_ratio, time_pair

from cryogem.io.mrc import write_image

_SIDE, _COUNT, _BOX, _FIELD = 1024, 97, 90, 480.0       # px, particles, px, Å
_PIXEL_SIZE = _FIELD / _BOX
_N = 100                                                # micrographs of a run
_MEASURE = """
import resource, sys
from cryogem.__main__ import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def main() -> None:
    """Print one line for each claim."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else _N
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        compare_saving(folder)
        compare_simulate(folder, n)
        compare_generate(folder, n)
        compare_workers(folder, n)
        compare_memory(folder)


def write_inputs(folder: Path) -> None:
    """Write a map and two micrographs of white noise with a little of everything that is measured."""
    write_map(folder / 'map.mrc', Phantom().sample_map(128, _FIELD / 128), _FIELD / 128)
    rng = np.random.default_rng(0)
    for number in range(2):
        write_image(folder / f'real_{number}.mrc',
                    (rng.standard_normal((_SIDE, _SIDE)) * 15 + 120).astype(np.float32), _PIXEL_SIZE)


def write_map(path: Path, density: np.ndarray, pixel_size: float) -> None:
    """Write an (n, n, n) map."""
    from cryogem.io.mrc import write_volume
    write_volume(path, density, pixel_size)


def simulate(folder: Path, output: str, n: int, *more: str) -> list[str]:
    """Return the arguments of a run of `n` micrographs of 97 particles, in which nothing is left to be measured."""
    return ['simulate', '--volume', str(folder / 'map.mrc'), '--micrographs', str(folder / 'real_*.mrc'),
            '--particles-per-micrograph', f'{_COUNT}:0', '--signal-to-noise', '0.1', '--minimum-distance', '320',
            '--particle-diameter', '320', '--n-micrographs', str(n), '--output', str(folder / output), *more]


def run(arguments: list[str]) -> tuple[float, float]:
    """Run the program; return seconds and MiB at its peak."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, '-c', _MEASURE, *arguments], capture_output=True, text=True, check=True,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'})
    return time.perf_counter() - started, int(done.stdout.split()[-1]) / 1024


def compare_saving(folder: Path) -> None:
    """Print what it costs to save one micrograph: theirs is an MRC and six PNG, ours the MRC."""
    image = np.random.default_rng(0).standard_normal((_SIDE, _SIDE)).astype(np.float32)
    mask = np.zeros((_SIDE, _SIDE), dtype=bool)

    def ours() -> None:
        write_image(folder / 'micrograph.mrc', image, _PIXEL_SIZE)
        (folder / 'micrograph.mrc').unlink()            # a run writes new files; to replace one costs more

    reference, mine = time_pair(partial(save_published, folder, image, mask), ours, 15)
    print_ratio('saving a micrograph', reference, mine, '10')


def compare_simulate(folder: Path, n: int) -> None:
    """Print a whole simulate run of `n` micrographs, by one worker and by one for each core."""
    density = Phantom().sample_map(128, _FIELD / 128)
    (folder / 'reference').mkdir()
    torch.set_num_threads(os.cpu_count() or 1)
    make_reference(density)
    seconds: list[float] = []
    wholes: dict[str, list[float]] = {}
    cores = str(os.cpu_count() or 1)
    for repeat in range(3):                             # in turn, so that a machine that drifts is fair to both
        started = time.perf_counter()
        write_reference(density, folder / 'reference')
        seconds.append(time.perf_counter() - started)
        for what, more in (('one worker', ()), (f'{cores} workers', ('--workers', cores))):
            wholes.setdefault(what, []).append(run(simulate(folder, f'simulated_{what}_{repeat}', n, *more))[0])
    reference = statistics.median(seconds)
    print(f'reference: {reference:.2f} s for each micrograph, extrapolated from 3')
    for what, own in wholes.items():
        print_ratio(f'simulate {n} micrographs, {what}', reference * n, statistics.median(own), '100')


def compare_generate(folder: Path, n: int) -> None:
    """Print generate with measured noise against its bytes, random numbers and transforms alone."""
    run(simulate(folder, 'dataset', 1))
    image = np.zeros((_SIDE, _SIDE), dtype=np.float32)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)

    def bound(number: int) -> None:
        noise = torch.from_numpy(rng.standard_normal((_SIDE, _SIDE), dtype=np.float32))
        for _ in range(2):                              # one pair of transforms for the specimen, one for the noise
            noise = torch.fft.irfft2(torch.fft.rfft2(noise))
        for kind, content in (('micrograph', image), ('clean', image), ('mask', image.astype(np.int16))):
            (folder / f'bound_{kind}_{number}.mrc').write_bytes(content.tobytes())

    alone, whole = [], []
    for repeat in range(3):
        started = time.perf_counter()
        for number in range(n):
            bound(number)
        alone.append(time.perf_counter() - started)
        for path in folder.glob('bound_*'):
            path.unlink()
        few = run(generate(folder, f'few_{repeat}', 2))[0]
        whole.append(run(generate(folder, f'many_{repeat}', n + 2))[0] - few)
    floor, own = statistics.median(alone), statistics.median(whole)
    print(f'generate --model measured: {own / n * 1e3:.1f} ms for each micrograph, its bytes, random numbers and '
          f'transforms alone {floor / n * 1e3:.1f} ms, {own / floor:.2f} times   goal at most 2')


def generate(folder: Path, output: str, n: int, *more: str) -> list[str]:
    """Return the arguments of a generate run of `n` micrographs."""
    return ['generate', '--dataset', str(folder / 'dataset'), '--n-micrographs', str(n), '--output',
            str(folder / output), *more]


def compare_workers(folder: Path, n: int) -> None:
    """Print the throughput of two workers against that of one, process start left out."""
    rates = {}
    for workers in ('1', '2'):
        few, many = (run(generate(folder, f'workers_{workers}_{number}', number, '--workers', workers))[0]
                     for number in (2, n + 2))
        rates[workers] = n / (many - few)
    print(f'two workers make {rates["2"]:.1f}/s, one makes {rates["1"]:.1f}/s: {rates["2"] / rates["1"]:.2f} times   '
          f'goal 1.7 where {os.cpu_count()} cores allow')


def compare_memory(folder: Path) -> None:
    """Print the peak memory of short and long runs."""
    peaks = [run(generate(folder, f'memory_{number}', number))[1] for number in (10, 100)]
    print(f'peak memory: {peaks[0]:.0f} MiB for 10 micrographs, {peaks[1]:.0f} MiB for 100   goal: no growth')


if __name__ == '__main__':
    main()
