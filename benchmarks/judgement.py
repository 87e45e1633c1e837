"""Time and memory of `cryogem evaluate` on 20 + 20 micrographs of 1024², without the picking proof.

The goal is 15 minutes on two cores and 3 GB. Made here: a phantom, 20 real micrographs with solvent and Thon rings, and
a generate run of 20 on a simulate run that was calibrated on them. Prints wall and processor time (other programs
stretch the former alone), peak memory, and the goal.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mrcfile
import numpy as np

PIXEL_SIZE, DEFOCUS = 5.36, 18000.0         # Å/px, Å
WAVELENGTH, CS = 0.0196875, 2.7e7           # Å, Å
GOAL_MINUTES, GOAL_GIGABYTES = 15, 3


def main() -> None:
    """Make the micrographs, run the commands, and print what evaluate took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--count', type=int, default=20, help='micrographs of each kind')
    parser.add_argument('--side', type=int, default=1024, help='px')
    parser.add_argument('--topaz-weights', default='', help='as that setting of evaluate')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='cryogem_benchmark_') as folder:
        work = Path(folder)
        make_real(work, arguments.count, arguments.side)
        real = [str(path) for path in sorted((work / 'real').glob('*.mrc'))]
        picks = [str(path) for path in sorted((work / 'picks').glob('*.csv'))]
        run('simulate', '--volume', work / 'map.mrc', '--micrographs', *real, '--coordinates', *picks,
            '--n-micrographs', 1, '--output', work / 'simulated')
        run('generate', '--dataset', work / 'simulated', '--n-micrographs', arguments.count, '--output', work / 'made')
        weights = ('--topaz-weights', arguments.topaz_weights) if arguments.topaz_weights else ()
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        run('evaluate', '--generated', work / 'made', '--real', *real, '--coordinates', *picks, *weights,
            '--output', work / 'report')
        wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f'{arguments.count} + {arguments.count} micrographs of {arguments.side}²: {wall / 60:.1f} min wall, '
          f'{processor / 60:.1f} min of processor on {os.cpu_count()} cores at load {os.getloadavg()[0]:.0f}; goal '
          f'{GOAL_MINUTES} min')
    print(f'peak memory {after.ru_maxrss / 2 ** 20:.2f} GB (the largest of the three commands); '
          f'goal {GOAL_GIGABYTES} GB')


def run(command: str, *words: object) -> None:
    """Run one command of cryogem."""
    subprocess.run([sys.executable, '-m', 'cryogem', command, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def make_real(work: Path, count: int, side: int) -> None:
    """Write a map of a few lumps, micrographs of it in solvent, and picks."""
    rng = np.random.default_rng(0)
    axis = (np.arange(60) - 30) * PIXEL_SIZE
    z, y, x = np.meshgrid(axis, axis, axis, indexing='ij')
    lumps = rng.uniform(-70, 70, (12, 3))
    density = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * 18.0 ** 2)) for a, b, c in lumps)
    for name in ('real', 'picks'):
        (work / name).mkdir()
    write(work / 'map.mrc', np.asarray(density))
    projections = [np.asarray(density).sum(axis=one) for one in range(3)]
    transfer = make_transfer(side)
    for index in range(count):
        image, centers = np.zeros((side, side)), rng.integers(30, side - 30, (60, 2))
        for y0, x0 in centers:
            image[y0 - 30:y0 + 30, x0 - 30:x0 + 30] -= projections[int(rng.integers(3))] * 0.1
        image += rng.standard_normal(image.shape)
        image = np.fft.irfft2(np.fft.rfft2(image) * transfer, s=image.shape) + 0.8 * rng.standard_normal(image.shape)
        write(work / 'real' / f'm{index:03d}.mrc', 100 + 10 * image)
        rows = ''.join(f'{x0},{y0}\n' for y0, x0 in centers)
        (work / 'picks' / f'm{index:03d}.csv').write_text(f'x,y\n{rows}')


def make_transfer(side: int) -> np.ndarray:
    """Return the CTF on the half plane."""
    squared = np.fft.fftfreq(side, PIXEL_SIZE)[:, None] ** 2 + np.fft.rfftfreq(side, PIXEL_SIZE) ** 2
    return np.sin(np.pi * WAVELENGTH * DEFOCUS * squared - np.pi / 2 * CS * WAVELENGTH ** 3 * squared ** 2 + 0.1)


def write(path: Path, data: np.ndarray) -> None:
    """Write an MRC file with its pixel size."""
    with mrcfile.new(path) as file:
        file.set_data(data.astype(np.float32))
        file.voxel_size = PIXEL_SIZE


if __name__ == '__main__':
    main()
