"""RELION as the judge of poses, origins, CTFs and hand: it must see our particles as we wrote them."""

import mrcfile
import numpy as np
import pytest
import starfile

from cryogem.__main__ import main
from tests.commands.reconstruction import MISTAKES, correlate_shells, find_relion, write_changed

pytestmark = pytest.mark.slow

PIXEL_SIZE, BOX = 5.0, 64
NYQUIST = BOX // 2                          # shells
RADIUS = 14                                 # px, of the particle with a little around it
TABLE = 'clean_particles.star'


@pytest.fixture(scope='module')
def relion():
    return find_relion('relion_project', 'relion_reconstruct')


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


def compare_projections(folder, relion, table=TABLE):
    """Return the correlation of each particle with RELION's projection of the map, inside the particle's radius."""
    relion(folder, 'relion_project', '--i', 'map.mrc', '--o', 'projected', '--ang', table, '--ctf', '--angpix',
           str(PIXEL_SIZE))
    ours, theirs = mrcfile.read(folder / 'clean_particles.mrcs'), mrcfile.read(folder / 'projected.mrcs')
    assert ours.shape == theirs.shape
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    is_near = np.hypot(y, x) <= RADIUS
    return np.array([np.corrcoef(a[is_near], b[is_near])[0, 1] for a, b in zip(ours, theirs, strict=True)])


def reconstruct(folder, relion, table=TABLE):
    relion(folder, 'relion_reconstruct', '--i', table, '--o', 'reconstructed.mrc', '--ctf', '--angpix', str(PIXEL_SIZE))
    return mrcfile.read(folder / 'reconstructed.mrc')


def scale_defocus(rows):
    rows[['rlnDefocusU', 'rlnDefocusV']] *= 1.05


def test_there_are_particles_enough_and_they_are_off_their_pixels(particles):
    rows = starfile.read(particles / TABLE, always_dict=True)['particles']

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


@pytest.mark.parametrize('mistake', ['origin sign', 'psi sign', 'tilt sign', 'rot sign', 'inverse rotation'])
def test_a_mistake_is_seen_in_the_projections(mistake, particles, relion):
    agreement = compare_projections(particles, relion, write_changed(
        particles, TABLE, 'mistaken.star', MISTAKES[mistake]))

    assert np.median(agreement) < 0.96
    assert np.mean(agreement < 0.99) > 0.5


def test_a_wrong_defocus_is_seen_in_the_projections(particles, relion):
    right = compare_projections(particles, relion)
    wrong = compare_projections(particles, relion, write_changed(particles, TABLE, 'mistaken.star', scale_defocus))

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
