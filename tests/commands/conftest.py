"""Fixtures of this room: a tiny experiment, finished runs on it, and the command line."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cryogem.__main__ import main
from tests.commands.experiment import (
    CTF_TABLE,
    DEFOCUS,
    MAP_BOX,
    MAP_PIXEL_SIZE,
    PIXEL_SIZE,
    Case,
    RealSet,
    convolve,
    make_micrograph,
    make_phantom,
    place_centers,
    transfer,
    turn_matrix,
    write_mrc,
)


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


@pytest.fixture
def case(real_set, tmp_path):
    return Case(real_set, tmp_path)


@pytest.fixture
def refuse(case, fail):
    """Run the case, which must fail before anything is written; return its message."""
    def run():
        message = fail(case.arguments)
        assert not case.output.exists()
        return message

    return run
