"""The amplitude of the signal in noisier copies of real micrographs, which must not depend on the noise.

To each micrograph noise of its own spectrum is added, so many times as strong as all that is there. Amplitudes are in
contrast units, so that of a copy comes out smaller by the root of 1 + factor².

Run: python benchmarks/amplitude.py [FOLDER ...]
"""

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import torch
from realism import RealSet, find_folders, load_set

from cryogem.imaging.noise import randomise_phases

_FACTORS = (0, 1, 2, 3)


def main() -> None:
    """Print a line for each set and factor."""
    torch.set_num_threads(1)
    for folder in find_folders([Path(one) for one in sys.argv[1:]]):
        real_set = load_set(folder)
        print(folder.name)
        for factor in _FACTORS:
            print_amplitude(real_set, factor)


def print_amplitude(real_set: RealSet, factor: float) -> None:
    """Print the amplitude of one copy of a set and what it is in units of the original."""
    rng = np.random.default_rng(0)
    noisy = [dataclasses.replace(one, image=one.image + factor * randomise_phases(one.image, rng))
             for one in real_set.micrographs]
    found = real_set.learn(noisy, None).calibration
    growth = math.sqrt(1 + factor ** 2)
    amplitude, quality = found.signal_scale or 0.0, found.signal
    error, correlation = (quality.scale_error, quality.correlation) if quality else (math.nan, math.nan)
    print(f'  noise added {factor:g} times, 1/{1 + factor ** 2:g} of the signal: amplitude {amplitude:.4f}, times '
          f'{growth:.2f} {amplitude * growth:.4f} ± {error * growth:.4f}, mean particle against the map '
          f'{correlation:.2f}', flush=True)


if __name__ == '__main__':
    main()
