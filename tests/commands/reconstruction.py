"""RELION's programs as judges of poses, and the mistakes they must see."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile

from cryogem.io.star import write_tables

Run = Callable[..., None]
ORIGINS = ['rlnOriginXAngst', 'rlnOriginYAngst']
ANGLES = ['rlnAngleRot', 'rlnAngleTilt', 'rlnAnglePsi']


def find_relion(*programs: str) -> Run:
    """Return what runs a program of RELION in a folder; skip the test where one of `programs` is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f'{program} is not installed')

    def run(folder: Path, *arguments: str) -> None:
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=1800, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def correlate_shells(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Fourier shell correlation of two (n, n, n) maps up to the Nyquist frequency, (n / 2,)."""
    n = len(first)
    spectra = [np.fft.fftn(one) for one in (first, second)]
    grid = np.fft.fftfreq(n, 1 / n)
    shells = np.rint(np.sqrt(grid[:, None, None] ** 2 + grid[:, None] ** 2 + grid ** 2)).astype(int).ravel()
    products = [(a * b.conj()).real.ravel() for a, b in ((spectra[0], spectra[1]), *((one, one) for one in spectra))]
    cross, *powers = (np.bincount(shells, one) for one in products)
    return (cross / np.sqrt(powers[0] * powers[1] + 1e-30))[:n // 2]


def correlate_maps(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation coefficient of two maps."""
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def turn_sign(*columns: str) -> Callable[[Any], None]:
    """Return the mistake of writing columns with the other sign."""
    def change(rows: Any) -> None:
        for column in columns:
            rows[column] = -rows[column]

    return change


def swap_axes(rows: Any) -> None:
    """Exchange x and y of the origins."""
    rows[ORIGINS] = rows[ORIGINS[::-1]].to_numpy()


def move_half_a_pixel(rows: Any) -> None:
    """Put the centre of the box half a pixel of 3 Å further, along both axes."""
    rows[ORIGINS] += 1.5


def invert_rotation(rows: Any) -> None:
    """Write the rotation from image to map in place of that from map to image."""
    rows[ANGLES] = -rows[ANGLES[::-1]].to_numpy()


MISTAKES = {
    'origin sign': turn_sign(*ORIGINS), 'swapped axes': swap_axes, 'half pixel': move_half_a_pixel,
    'inverse rotation': invert_rotation, 'psi sign': turn_sign('rlnAnglePsi'), 'tilt sign': turn_sign('rlnAngleTilt'),
    'rot sign': turn_sign('rlnAngleRot'),
}


def write_changed(folder: Path, source: str, name: str, change: Callable[[Any], None]) -> str:
    """Write the particle table `source` as `name` with `change` made to its rows; return `name`."""
    blocks = starfile.read(folder / source, always_dict=True)
    rows = blocks['particles'].copy()
    change(rows)
    write_tables(folder / name, {'optics': blocks['optics'].to_dict('list'), 'particles': rows.to_dict('list')})
    return name
