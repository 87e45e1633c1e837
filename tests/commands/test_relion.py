"""RELION as the judge of poses, origins, CTFs and hand: it must see our particles as we wrote them."""

import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from cryogem.__main__ import main
from cryogem.io.star import write_tables

pytestmark = pytest.mark.slow

PIXEL_SIZE, BOX = 5.0, 64
NYQUIST = BOX // 2                          # shells
RADIUS = 14                                 # px, of the particle with a little around it


@pytest.fixture(scope='module')
def relion():
    """Return what runs a program of RELION in a folder; skip where there is none."""
    for program in ('relion_project', 'relion_reconstruct'):
        if shutil.which(program) is None:
            pytest.skip(f'{program} is not installed')

    def run(folder: Path, *arguments: str) -> None:
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def make_particles(real_set, out, *more):
    """Make clean particles into `out`, and their map in their box."""
    assert main(real_set.simulate(out, '--particles', 'clean', '--box-size', str(BOX), '--seed', '5', *more)) == 0
    with mrcfile.open(out / 'specimen' / 'volume_01.mrc') as file:
        density = file.data.copy()
    padding = (BOX - len(density)) // 2
    with mrcfile.new(out / 'map.mrc') as file:
        file.set_data(np.pad(density, padding))
        file.voxel_size = PIXEL_SIZE
    return out


@pytest.fixture(scope='module')
def particles(real_set, relion, tmp_path_factory):
    """Some hundred particles of the map as it is: with the ratio said, it is not filtered to match the picks."""
    return make_particles(real_set, tmp_path_factory.mktemp('relion') / 'out', '--n-micrographs', '40',
                          '--signal-to-noise', '0.2')


def read_blocks(folder):
    return starfile.read(folder / 'clean_particles.star', always_dict=True)


def write_changed(folder, name, change):
    """Write the particle table with `change` made to its rows."""
    blocks = read_blocks(folder)
    rows = blocks['particles'].copy()
    change(rows)
    write_tables(folder / name, {'optics': blocks['optics'].to_dict('list'), 'particles': rows.to_dict('list')})


def compare_projections(folder, relion, table='clean_particles.star'):
    """Return the correlation of each particle with RELION's projection of the map, inside the particle's radius."""
    relion(folder, 'relion_project', '--i', 'map.mrc', '--o', 'projected', '--ang', table, '--ctf', '--angpix',
           str(PIXEL_SIZE))
    ours, theirs = mrcfile.read(folder / 'clean_particles.mrcs'), mrcfile.read(folder / 'projected.mrcs')
    assert ours.shape == theirs.shape
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    is_near = np.hypot(y, x) <= RADIUS
    return np.array([np.corrcoef(a[is_near], b[is_near])[0, 1] for a, b in zip(ours, theirs, strict=True)])


def reconstruct(folder, relion, table='clean_particles.star'):
    relion(folder, 'relion_reconstruct', '--i', table, '--o', 'reconstructed.mrc', '--ctf', '--angpix', str(PIXEL_SIZE))
    return mrcfile.read(folder / 'reconstructed.mrc')


def correlate_shells(first, second):
    """Return the Fourier shell correlation of two maps up to the Nyquist frequency."""
    spectra = [np.fft.fftn(one) for one in (first, second)]
    grid = np.fft.fftfreq(BOX, 1 / BOX)
    shells = np.rint(np.sqrt(grid[:, None, None] ** 2 + grid[:, None] ** 2 + grid ** 2)).astype(int).ravel()
    products = [(a * b.conj()).real.ravel() for a, b in ((spectra[0], spectra[1]), *((one, one) for one in spectra))]
    cross, *powers = (np.bincount(shells, one) for one in products)
    return (cross / np.sqrt(powers[0] * powers[1] + 1e-30))[:NYQUIST]


def turn_sign(*columns):
    def change(rows):
        for column in columns:
            rows[column] = -rows[column]

    return change


def scale_defocus(rows):
    rows[['rlnDefocusU', 'rlnDefocusV']] *= 1.05


CONTROLS = {
    'origin': turn_sign('rlnOriginXAngst', 'rlnOriginYAngst'), 'psi': turn_sign('rlnAnglePsi'),
    'tilt': turn_sign('rlnAngleTilt'), 'rot': turn_sign('rlnAngleRot'),
}


def test_there_are_particles_enough_and_they_are_off_their_pixels(particles):
    rows = read_blocks(particles)['particles']

    assert len(rows) > 400
    origins = rows[['rlnOriginXAngst', 'rlnOriginYAngst']].to_numpy() / PIXEL_SIZE
    assert np.abs(origins).max() <= 0.5
    assert origins.std() == pytest.approx(0.289, abs=0.03)


def test_every_particle_is_the_projection_that_relion_makes_of_its_row(particles, relion):
    agreement = compare_projections(particles, relion)

    assert agreement.min() >= 0.999


def test_particles_of_a_map_that_was_filtered_to_match_the_picks_are_its_projections_too(real_set, relion, tmp_path):
    folder = make_particles(real_set, tmp_path / 'out', '--n-micrographs', '10')

    assert compare_projections(folder, relion).min() >= 0.999


@pytest.mark.parametrize('what', CONTROLS)
def test_a_wrong_sign_is_seen_in_the_projections(what, particles, relion):
    write_changed(particles, f'wrong_{what}.star', CONTROLS[what])
    agreement = compare_projections(particles, relion, f'wrong_{what}.star')

    assert np.median(agreement) < 0.96
    assert np.mean(agreement < 0.99) > 0.5


def test_a_wrong_defocus_is_seen_in_the_projections(particles, relion):
    right = compare_projections(particles, relion)
    write_changed(particles, 'wrong_defocus.star', scale_defocus)
    wrong = compare_projections(particles, relion, 'wrong_defocus.star')

    assert np.mean(wrong < right) > 0.95


def test_relion_rebuilds_the_map_with_its_hand(particles, relion):
    truth, found = mrcfile.read(particles / 'map.mrc'), reconstruct(particles, relion)
    # 8 Å lie beyond the Nyquist frequency of 10 Å: four fifths of it are asked for
    shells = correlate_shells(truth, found)[1:round(0.8 * NYQUIST) + 1]
    mirrored = correlate_shells(truth[:, :, ::-1], found)[1:round(0.8 * NYQUIST) + 1]

    assert shells.min() > 0.95
    assert mirrored[8:].mean() < 0.5
    assert np.corrcoef(truth.ravel(), found.ravel())[0, 1] > np.corrcoef(
        truth[:, :, ::-1].ravel(), found.ravel())[0, 1] + 0.2


@pytest.mark.parametrize('what', ['origin', 'psi'])
def test_a_wrong_sign_spoils_the_map_that_relion_rebuilds(what, particles, relion):
    truth = mrcfile.read(particles / 'map.mrc')
    right = correlate_shells(truth, reconstruct(particles, relion))
    write_changed(particles, f'wrong_{what}.star', CONTROLS[what])
    wrong = correlate_shells(truth, reconstruct(particles, relion, f'wrong_{what}.star'))

    high = slice(round(0.5 * NYQUIST), round(0.8 * NYQUIST) + 1)
    assert wrong[high].mean() < right[high].mean() - 0.15
