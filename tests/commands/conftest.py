"""Fixtures of this room: a tiny experiment made without the engine, a finished run on it, and the command line.

The particle is a sum of Gaussians, so its map and its projections are exact and say what the engine should have made.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryogem.__main__ import main
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


@pytest.fixture(scope='session')
def real_set(tmp_path_factory: pytest.TempPathFactory) -> RealSet:
    """The experiment: map, micrographs, picks and CTFs on disk."""
    folder, phantom, rng = tmp_path_factory.mktemp('real'), make_phantom(), np.random.default_rng(2)
    write_mrc(folder / 'map.mrc', phantom.render(MAP_BOX, MAP_PIXEL_SIZE), MAP_PIXEL_SIZE)
    (folder / 'coordinates').mkdir()
    known, table = {}, CTF_TABLE
    for i, defocus in enumerate(DEFOCUS):
        name, centers = f'mic_{i + 1}', place_centers(rng, 13 + i, distance=30)
        image = make_micrograph(phantom, centers, defocus, rng)
        write_mrc(folder / 'micrographs' / f'{name}.mrc', image, PIXEL_SIZE)
        rows = ''.join(f'{x:.2f} {y:.2f}\n' for y, x in centers)
        (folder / 'coordinates' / f'{name}.star').write_text(
            f'data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n{rows}')
        table += f'somewhere/{name}.mrc 1 {defocus[0]} {defocus[1]} {defocus[2]}\n'
        known[name] = centers
    (folder / 'ctfs.star').write_text(table)
    return RealSet(folder, phantom, known)


@pytest.fixture(scope='session')
def calibrated(real_set: RealSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished calibrate run on the experiment."""
    folder = tmp_path_factory.mktemp('runs') / 'calibrated'
    assert main(['calibrate', '--micrographs', real_set.micrographs, '--coordinates', real_set.coordinates,
                 '--ctfs', real_set.ctfs, '--particle-diameter', '120', '--output', str(folder)]) == 0
    return folder


@pytest.fixture(scope='session')
def simulated(real_set: RealSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished simulate run of three micrographs with both particle stacks; tests read it and leave it as it is."""
    folder = tmp_path_factory.mktemp('runs') / 'simulated'
    assert main(real_set.simulate(folder, '--n-micrographs', '3', '--particles', 'both', '--seed', '7')) == 0
    return folder


@pytest.fixture(scope='session')
def generated(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished generate run of three micrographs with measured noise, from `simulated`."""
    folder = tmp_path_factory.mktemp('runs') / 'generated'
    assert main(['generate', '--dataset', str(simulated), '--n-micrographs', '3', '--seed', '11',
                 '--output', str(folder)]) == 0
    return folder


@pytest.fixture(scope='session')
def model(real_set: RealSet, simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of two steps on `simulated`."""
    folder = tmp_path_factory.mktemp('runs') / 'model'
    assert main(['train', '--dataset', str(simulated), '--micrographs', real_set.micrographs, '--max-steps', '2',
                 '--crop-size', '48', '--batch-size', '2', '--checkpoint-every', '1', '--output', str(folder)]) == 0
    return folder


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[[Sequence[str]], str]:
    """Run a command that must fail as the user's mistake; return its one line after ``ERROR: ``."""
    def run(arguments: Sequence[str]) -> str:
        capsys.readouterr()
        code = main(arguments)
        lines = capsys.readouterr().err.splitlines()
        assert code == 2, lines
        assert [line for line in lines if line.startswith('ERROR: ')] == lines[-1:], lines
        assert list(tmp_path.rglob('*.part')) == []
        return lines[-1].removeprefix('ERROR: ')

    return run


@pytest.fixture(scope='session')
def fingerprint() -> Callable[[Path], dict[str, str]]:
    """Return the checksums of all files of a run by path; of config.json, only what makes the result."""
    def digest(path: Path) -> str:
        content = path.read_bytes()
        if path.name == 'config.json':
            kept = {key: value for key, value in json.loads(content).items()
                    if key not in ('output', 'workers', 'continue')}
            content = json.dumps(kept).encode()
        return hashlib.sha256(content).hexdigest()

    def take(folder: Path) -> dict[str, str]:
        return {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob('*')) if path.is_file()}

    return take


@pytest.fixture(scope='session')
def predict_particle(real_set: RealSet) -> Callable[..., np.ndarray]:
    """Return the exact (box, box) image, bright and with CTF, of a row of a particle table."""
    def predict(row: dict, box: int, pixel_size: float) -> np.ndarray:
        origin = np.array([row['rlnOriginYAngst'], row['rlnOriginXAngst']]) / pixel_size
        side = 3 * box                                              # room for what the CTF spreads
        rotation = turn_matrix(row['rlnAngleRot'], row['rlnAngleTilt'], row['rlnAnglePsi'])
        density = real_set.phantom.project(side, pixel_size, rotation, (-origin[0], -origin[1]))
        ctf = transfer((side, side), pixel_size, row['rlnDefocusU'], row['rlnDefocusV'], row['rlnDefocusAngle'])
        low = side // 2 - box // 2
        return convolve(density, ctf)[low:low + box, low:low + box]

    return predict
