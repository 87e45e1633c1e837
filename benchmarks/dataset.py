"""Whole datasets: what a run costs from the start of its process to the last table, and what one more micrograph costs.

The reference is the computation of the published code (see reference.py), one process, timed for a few micrographs and
multiplied up to the number of ours: it takes some seconds for each. Ours is the command line, all labels and checksums
included, timed whole. Beside the seconds of the clock stand those of the processors, which a busy machine changes less.

Run: python benchmarks/dataset.py [N_MICROGRAPHS [REPEATS]]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from micrograph import write_reference
from networks import PlainGenerator
from projection import Phantom
from reference import image_plainly, save_published
from timing import print_ratio, time_pair

from cryogem.io.mrc import write_image, write_volume
from cryogem.translation.model import save_model
from cryogem.translation.paper import PaperGenerator

_SIDE, _COUNT, _BOX, _FIELD = 1024, 97, 90, 480.0       # px, particles, px, Å
_PIXEL_SIZE = _FIELD / _BOX
_N_PAPER = 12                               # micrographs that the published network makes


@dataclass(frozen=True)
class Cost:
    """What something took."""

    seconds: float                          # of the clock
    cpu: float                              # seconds of all processors
    peak: float = 0.0                       # MiB, of the largest process


def main() -> None:
    """Print one line for each claim."""
    n, repeats = (int(one) for one in (*sys.argv[1:], *('100', '3')[len(sys.argv) - 1:]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        compare_saving(folder)
        compare_simulate(folder, n, repeats)
        run(simulate(folder, 'dataset', 1))
        compare_generate(folder, n, repeats)
        compare_workers(folder, n, repeats)
        compare_paper(folder, repeats)
        compare_memory(folder)


def write_inputs(folder: Path) -> None:
    """Write a map and two micrographs of white noise with a little of everything that is measured."""
    write_volume(folder / 'map.mrc', Phantom().sample_map(128, _FIELD / 128), _FIELD / 128)
    rng = np.random.default_rng(0)
    for number in range(2):
        write_image(folder / f'real_{number}.mrc',
                    (rng.standard_normal((_SIDE, _SIDE)) * 15 + 120).astype(np.float32), _PIXEL_SIZE)


def simulate(folder: Path, output: str, n: int, *more: str) -> list[str]:
    """Return the arguments of a run of `n` micrographs of 97 particles, in which nothing is left to be measured."""
    return ['simulate', '--volume', str(folder / 'map.mrc'), '--micrographs', str(folder / 'real_*.mrc'),
            '--particles-per-micrograph', f'{_COUNT}:0', '--signal-to-noise', '0.1', '--minimum-distance', '320',
            '--particle-diameter', '320', '--n-micrographs', str(n), '--output', str(folder / output), *more]


def run(arguments: list[str], n_cores: int | None = None) -> Cost:
    """Run the program in a process of its own, one thread in each worker, on `n_cores` cores or all."""
    cores = list(os.sched_getaffinity(0))[:n_cores]
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, '-m', 'cryogem', *arguments], stdout=subprocess.DEVNULL,
                               env={**os.environ, 'OMP_NUM_THREADS': '1'},
                               preexec_fn=lambda: os.sched_setaffinity(0, cores))
    _, status, used = os.wait4(process.pid, 0)          # with what its own workers used
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f'cryogem {" ".join(arguments)} failed')
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def measure(work: Callable[[], object]) -> Cost:
    """Do something here."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - started, time.process_time() - used)


def take_median(costs: Sequence[Cost]) -> Cost:
    """Return the medians of seconds and processor seconds."""
    return Cost(statistics.median(one.seconds for one in costs), statistics.median(one.cpu for one in costs))


def subtract(many: Cost, few: Cost) -> Cost:
    """Return what the difference of two runs took: without the start of the process."""
    return Cost(many.seconds - few.seconds, many.cpu - few.cpu)


def compare_saving(folder: Path) -> None:
    """Print what it costs to save one micrograph: theirs is an MRC and six PNG, ours the MRC."""
    image = np.random.default_rng(0).standard_normal((_SIDE, _SIDE)).astype(np.float32)
    mask = np.zeros((_SIDE, _SIDE), dtype=bool)

    def ours() -> None:
        write_image(folder / 'micrograph.mrc', image, _PIXEL_SIZE)
        (folder / 'micrograph.mrc').unlink()            # a run writes new files; to replace one costs more

    reference, mine = time_pair(partial(save_published, folder, image, mask), ours, 15)
    print_ratio('saving a micrograph', reference, mine, '10')


def compare_simulate(folder: Path, n: int, repeats: int) -> None:
    """Print whole simulate runs of `n` micrographs: one worker, and one for each core."""
    density, cores = Phantom().sample_map(128, _FIELD / 128), str(os.cpu_count() or 1)
    (folder / 'reference').mkdir()
    ways = {'one worker': (), f'{cores} workers': ('--workers', cores)}
    reference: list[Cost] = []
    ours: dict[str, list[Cost]] = {what: [] for what in ways}
    for repeat in range(repeats):                       # in turn, so that a machine that drifts is fair to both
        reference.append(measure(partial(write_reference, density, folder / 'reference')))
        for number, (what, more) in enumerate(ways.items()):
            ours[what].append(run(simulate(folder, f'simulated_{number}_{repeat}', n, *more)))
    theirs = take_median(reference)
    print(f'reference: {theirs.seconds:.2f} s ({theirs.cpu:.2f} s of processors) for each micrograph, times {n}')
    for what, costs in ours.items():
        mine = take_median(costs)
        print_ratio(f'simulate {n} micrographs, {what}', theirs.seconds * n, mine.seconds, '100')
        print(f'    of processors: {theirs.cpu * n:.0f} s and {mine.cpu:.1f} s, ratio {theirs.cpu * n / mine.cpu:.0f}')


def compare_generate(folder: Path, n: int, repeats: int) -> None:
    """Print generate with measured noise against its bytes, random numbers and transforms alone."""
    image, mask = np.random.default_rng(0).standard_normal((_SIDE, _SIDE), dtype=np.float32), np.ones((_SIDE, _SIDE))
    contents = {'micrograph': image.tobytes(), 'clean': image.tobytes(), 'mask': mask.astype(np.int16).tobytes()}
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)

    def make_bound() -> None:
        for number in range(n):
            noise = torch.from_numpy(rng.standard_normal((_SIDE, _SIDE), dtype=np.float32))
            for _ in range(2):                          # one pair of transforms for the specimen, one for the noise
                noise = torch.fft.irfft2(torch.fft.rfft2(noise))
            for kind, content in contents.items():
                (folder / f'bound_{kind}_{number}.mrc').write_bytes(content)

    bounds: list[Cost] = []
    ours: list[Cost] = []
    for repeat in range(repeats):
        bounds.append(measure(make_bound))
        for path in folder.glob('bound_*'):
            path.unlink()
        few, many = (run(generate(folder, f'generated_{repeat}_{count}', count)) for count in (2, n + 2))
        ours.append(subtract(many, few))
    bound, mine = take_median(bounds), take_median(ours)
    print(f'generate --model measured: {mine.seconds / n * 1e3:.0f} ms for each micrograph, its bytes, random numbers '
          f'and transforms alone {bound.seconds / n * 1e3:.0f} ms, {mine.seconds / bound.seconds:.2f} times   '
          'goal at most 2', flush=True)
    print(f'    of processors: {mine.cpu / n * 1e3:.0f} and {bound.cpu / n * 1e3:.0f} ms, '
          f'{mine.cpu / bound.cpu:.2f} times', flush=True)


def generate(folder: Path, output: str, n: int, *more: str) -> list[str]:
    """Return the arguments of a generate run of `n` micrographs."""
    return ['generate', '--dataset', str(folder / 'dataset'), '--n-micrographs', str(n), '--output',
            str(folder / output), *more]


def compare_workers(folder: Path, n: int, repeats: int) -> None:
    """Print the throughput of two workers on two cores against that of one on one, process start left out.

    One worker that may use more cores does: it writes while it computes.
    """
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for repeat in range(repeats):
        for workers, taken in seconds.items():
            few, many = (run(generate(folder, f'workers_{workers}_{repeat}_{count}', count, '--workers',
                                      str(workers)), workers) for count in (2, n + 2))
            taken.append(subtract(many, few).seconds)
    rates = {workers: n / statistics.median(taken) for workers, taken in seconds.items()}
    print(f'two workers make {rates[2]:.1f}/s, one makes {rates[1]:.1f}/s: {rates[2] / rates[1]:.2f} times   goal 1.7 '
          'where cores allow')


def compare_paper(folder: Path, repeats: int) -> None:
    """Print what a frame of the published network costs: CTF, white noise, network, an MRC and two PNG the published
    way, and what `generate` makes, whose specimen is new."""
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    torch.manual_seed(0)
    plain, ours = PlainGenerator().eval(), PaperGenerator()
    ours.load_state_dict(plain.state_dict())
    save_model(folder / 'paper', ours, {})
    rng = np.random.default_rng(0)
    clean, mask = rng.random((_SIDE, _SIDE), dtype=np.float32) * 2 - 1, np.ones((_SIDE, _SIDE), dtype=bool)

    def test() -> None:
        noisy = image_plainly(clean, _PIXEL_SIZE, 18000.0, rng).astype(np.float32)
        with torch.inference_mode():
            save_published(folder, plain(torch.from_numpy(noisy)[None, None])[0, 0].numpy(), mask, 2)

    test()
    theirs: list[Cost] = []
    mine: list[Cost] = []
    for repeat in range(repeats):
        few, many = (run(generate(folder, f'paper_{repeat}_{count}', count, '--model', str(folder / 'paper'),
                                  '--workers', str(cores))) for count in (cores, cores + _N_PAPER))
        mine.append(subtract(many, few))
        theirs += [measure(test) for _ in range(4)]
    print_ratio('generate, published network', take_median(theirs).seconds, take_median(mine).seconds / _N_PAPER, '3.8')


def compare_memory(folder: Path) -> None:
    """Print the peak memory of short and long runs."""
    peaks = [run(generate(folder, f'memory_{number}', number)).peak for number in (10, 100)]
    print(f'peak memory: {peaks[0]:.0f} MiB for 10 micrographs, {peaks[1]:.0f} MiB for 100   goal: no growth')


if __name__ == '__main__':
    main()
