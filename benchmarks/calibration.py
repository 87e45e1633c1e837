"""Calibrating micrographs of 4096² against reading and Fourier-cropping them, which has to be done anyway.

The frames hold coloured noise and 300 dark discs; their CTFs are fitted, too, for calibrate does so by default.

With --frames 100 a set of that size is measured once, too; all but the first six of its frames are links to those.

Run: python benchmarks/calibration.py [--frames 100]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import time_pair

from cryogem.commands.calibrate import estimate_ctfs
from cryogem.commands.inputs import read_real_image, read_real_micrographs
from cryogem.config import CalibrateConfig
from cryogem.imaging.measurement import calibrate
from cryogem.imaging.noise import draw_field
from cryogem.imaging.resampling import resample_image
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.io.files import find_files
from cryogem.io.mrc import write_image
from cryogem.specimen.placement import place_particles

_SIDE, _FRAMES, _PAIRS = 4096, 6, 3
_PIXEL_SIZE, _WORKING, _DIAMETER = 1.0, 4.0, 200.0      # Å/px, Å/px, Å


def main() -> None:
    """Print seconds per micrograph of both, and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--frames', type=int, default=_FRAMES)
    n_frames = parser.parse_args().frames
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(_FRAMES):
            write_frame(folder, index)
        config = CalibrateConfig(output='x', micrographs=(str(folder / '*.mrc'),),
                                 coordinates=(str(folder / '*.csv'),), working_pixel_size=_WORKING)
        read, measured = time_pair(partial(read_alone, config), partial(measure, config), _PAIRS)
        print_ratio(_FRAMES, read, measured, 'seconds')
        if n_frames > _FRAMES:
            for index in range(_FRAMES, n_frames):
                link_frame(folder, index % _FRAMES, index)
            print_ratio(n_frames, time_processor(partial(read_alone, config)),
                        time_processor(partial(measure, config)), 'seconds of a processor')


def print_ratio(n_frames: int, read: float, measured: float, unit: str) -> None:
    """Print both times per micrograph, and their ratio."""
    print(f'{n_frames} micrographs of {_SIDE}², {unit}: reading and cropping {read / n_frames:.2f} each, calibrating '
          f'{measured / n_frames:.2f}, {measured / read:.2f} times   goal at most 2', flush=True)


def time_processor(run: Callable[[], object]) -> float:
    """Return the processor time of one run: what takes minutes is seldom alone on a machine."""
    started = time.process_time()
    run()
    return time.process_time() - started


def link_frame(folder: Path, index: int, new_index: int) -> None:
    """Give a frame and its picks a second name."""
    for suffix in ('mrc', 'csv'):
        (folder / f'frame_{new_index}.{suffix}').symlink_to(folder / f'frame_{index}.{suffix}')


def write_frame(folder: Path, index: int) -> None:
    """Write one frame and its picks."""
    rng = np.random.default_rng(index)
    image = draw_field(1 + 3 * np.exp(-np.arange(N_SHELLS) / 20), (_SIDE, _SIDE), rng)
    centers = place_particles((_SIDE, _SIDE), 300, (_DIAMETER,), 0, rng)
    y, x = np.mgrid[-100:101, -100:101]
    disc = np.where(np.hypot(y, x) < _DIAMETER / 2, np.float32(0.4), np.float32(0))
    for row, column in centers.astype(int):
        window = (slice(max(0, row - 100), row + 101), slice(max(0, column - 100), column + 101))
        part = image[window]
        part -= disc[-part.shape[0]:, -part.shape[1]:] if row < 100 or column < 100 else \
            disc[:part.shape[0], :part.shape[1]]
    write_image(folder / f'frame_{index}.mrc', image, _PIXEL_SIZE * 1.0001)
    rows = ''.join(f'{x:.1f},{y:.1f}\n' for y, x in centers)
    (folder / f'frame_{index}.csv').write_text(f'x,y\n{rows}')


def read_alone(config: CalibrateConfig) -> None:
    """Read the frames and Fourier-crop them."""
    for path in find_files(config.micrographs, 'micrographs'):
        image, pixel_size = read_real_image(path, None)
        resample_image(image, pixel_size, _WORKING)


def measure(config: CalibrateConfig) -> None:
    """Do all that `cryogem calibrate` does but for its report."""
    micrographs = estimate_ctfs(read_real_micrographs(config, _WORKING), _WORKING, config)
    calibrate(micrographs, _WORKING, _DIAMETER)


if __name__ == '__main__':
    main()
