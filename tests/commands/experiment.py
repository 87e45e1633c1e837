"""A tiny experiment made without the engine, and what reads a run.

The particle is a sum of Gaussians, so its map and its projections are exact and say what the engine should have made.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import starfile

from tests.phantom import GaussianPhantom

MAP_BOX, MAP_PIXEL_SIZE = 40, 4.0           # px, Å/px; not the pixel size of the micrographs
SHAPE, PIXEL_SIZE = (256, 288), 5.0         # px, Å/px
DEFOCUS = ((15000.0, 14600.0, 30.0), (17000.0, 16500.0, 80.0), (19500.0, 18800.0, 140.0))    # U, V (Å), angle (degrees)
GREY_MEAN, GREY_SD = 120.0, 15.0
SPREAD = 6.0                                # Å, of each Gaussian


def make_phantom() -> GaussianPhantom:
    """Return an asymmetric, chiral particle of 100 Å: a helix, an arm and three knobs."""
    turn = np.linspace(0, 4.5, 14)
    helix = np.stack([34 * np.cos(turn), 26 * np.sin(turn), 14 * turn - 32], axis=1)
    arm = np.array([1.0, 0.4, 0.2]) * np.linspace(8, 44, 6)[:, None]
    knobs = np.array([[-30.0, -18.0, -30.0], [-24.0, 20.0, -36.0], [6.0, -34.0, 22.0]])
    heights = np.concatenate([np.ones(14), np.full(6, 1.4), np.full(3, 1.8)])
    return GaussianPhantom(np.concatenate([helix, arm, knobs]), np.full(23, SPREAD), heights)


def turn_matrix(rot: float, tilt: float, psi: float) -> np.ndarray:
    """Return the matrix Rz(psi) Ry(tilt) Rz(rot) that brings the particle into the frame of its image."""
    def about(axis: str, degrees: float) -> np.ndarray:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]] if axis == 'z' else [[c, 0, -s], [0, 1, 0], [s, 0, c]])

    return about('z', psi) @ about('y', tilt) @ about('z', rot)


def transfer(shape: tuple[int, int], pixel_size: float, u: float, v: float, angle: float) -> np.ndarray:
    """Return the (h, w) CTF at 300 kV, Cs 2.7 mm and 10 % amplitude contrast, positive at low frequencies."""
    wavelength = 0.0196875                                          # Å, at 300 kV
    y, x = np.meshgrid(*(np.fft.fftfreq(n, pixel_size) for n in shape), indexing='ij')
    squared, direction = x ** 2 + y ** 2, np.arctan2(y, x)
    defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (direction - np.deg2rad(angle)))
    phase = np.pi * wavelength * defocus * squared - np.pi / 2 * 2.7e7 * wavelength ** 3 * squared ** 2
    return np.sin(phase + np.arcsin(0.1))


def convolve(image: np.ndarray, function: np.ndarray) -> np.ndarray:
    """Return `image` with its transform multiplied by `function`."""
    return np.fft.ifft2(np.fft.fft2(image) * function).real


@dataclass(frozen=True)
class RealSet:
    """Three micrographs with known particles in noise whose Thon rings fit their CTFs, and the particle's map."""

    folder: Path
    phantom: GaussianPhantom
    centers_yx: dict[str, np.ndarray]

    @property
    def names(self) -> list[str]:
        return list(self.centers_yx)

    @property
    def map(self) -> str:
        return str(self.folder / 'map.mrc')

    @property
    def micrographs(self) -> str:
        return str(self.folder / 'micrographs' / '*.mrc')

    @property
    def coordinates(self) -> str:
        return str(self.folder / 'coordinates' / '*.star')

    @property
    def ctfs(self) -> str:
        return str(self.folder / 'ctfs.star')

    def simulate(self, output: Path, *more: str) -> list[str]:
        """Return the arguments of a simulate run on this set."""
        return ['simulate', '--volume', self.map, '--micrographs', self.micrographs, '--coordinates', self.coordinates,
                '--ctfs', self.ctfs, '--output', str(output), *more]


def write_mrc(path: Path, data: np.ndarray, pixel_size: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
        file.voxel_size = pixel_size


def place_centers(rng: np.random.Generator, n: int, distance: float) -> np.ndarray:
    """Return (n, 2) centres, at least `distance` px apart and a particle away from the border."""
    centers: list[np.ndarray] = []
    while len(centers) < n:
        dart = rng.uniform(20, np.array(SHAPE) - 20)
        if all(np.hypot(*(dart - other)) >= distance for other in centers):
            centers.append(dart)
    return np.array(centers)


def make_micrograph(phantom: GaussianPhantom, centers: np.ndarray, defocus: tuple[float, float, float],
                    rng: np.random.Generator) -> np.ndarray:
    """Return an (h, w) micrograph: dark particles, noise of solvent through the CTF and of the camera after it."""
    side, corner = 384, (np.array([384, 384]) - SHAPE) // 2
    specimen = np.zeros((side, side))
    for center in centers:
        angles = (rng.uniform(0, 360), np.rad2deg(np.arccos(rng.uniform(-1, 1))), rng.uniform(0, 360))
        shift = center + corner - side // 2
        specimen += phantom.project(side, PIXEL_SIZE, turn_matrix(*angles), (shift[0], shift[1]))
    ctf = transfer(specimen.shape, PIXEL_SIZE, *defocus)
    signal = -convolve(specimen, ctf)
    signal *= 0.8 / signal[specimen > 0.1 * specimen.max()].std()
    white = rng.standard_normal((2, side, side))
    contrast = signal + 1.1 * convolve(white[0], ctf) + 0.6 * white[1]
    contrast += np.linspace(-0.3, 0.3, side)                                    # ice that grows thicker
    window = tuple(slice(low, low + length) for low, length in zip(corner, SHAPE, strict=True))
    return contrast[window].astype(np.float32) * GREY_SD + GREY_MEAN


CTF_TABLE = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
group1 1 300.0 2.7 0.1

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
"""


class Case:
    """A simulate run on the shared experiment whose inputs can be replaced; files of its own are in `folder`."""

    def __init__(self, real_set, folder):
        self.folder, self.real_set, self.output = folder, real_set, folder / 'out'
        self.arguments = real_set.simulate(self.output, '--n-micrographs', '1')

    def put(self, flag, *values):
        """Give a flag other values, or none at all to leave it out."""
        at = self.arguments.index(flag) if flag in self.arguments else len(self.arguments)
        self.arguments[at:at + 2] = [flag, *map(str, values)] if values else []
        return self

    def write_micrograph(self, name, shape=(256, 288), pixel_size=5.0, value=None):
        image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        return self.write(name, image if value is None else np.full(shape, value, np.float32), pixel_size)

    def write_map(self, name, density, pixel_size=4.0):
        return self.write(name, density.astype(np.float32), pixel_size)

    def write(self, name, data, pixel_size):
        path = self.folder / name
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(data)
            if pixel_size:
                file.voxel_size = pixel_size
        return path

    def write_text(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path


def list_files(folder: Path) -> list[str]:
    """Return the files below a folder, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def read_particles(path: Path) -> Any:
    """Return the particles block of a STAR file as a table."""
    return starfile.read(path, always_dict=True)['particles']


def correlate(first: Any, second: Any) -> np.ndarray:
    """Return the correlation coefficients of (n, ...) with (m, ...) images as an (n, m) matrix."""
    rows = [np.asarray(one).reshape(len(one), -1).astype(float) for one in (first, second)]
    rows = [one - one.mean(axis=1, keepdims=True) for one in rows]
    rows = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in rows]
    return rows[0] @ rows[1].T
