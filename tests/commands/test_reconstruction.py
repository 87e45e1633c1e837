"""RELION rebuilds the map from our tables to 8 Å, from particles and from micrographs, and sees every mistake.

The truth is a sum of narrow Gaussians in closed form, at a pixel size at which 8 Å lie well inside the spectrum.
"""

import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from cryogem.__main__ import main
from cryogem.io.star import write_tables
from tests.commands.experiment import make_phantom, write_mrc
from tests.commands.reconstruction import (
    ANGLES,
    MISTAKES,
    ORIGINS,
    correlate_maps,
    correlate_shells,
    find_relion,
    write_changed,
)
from tests.phantom import GaussianPhantom

pytestmark = pytest.mark.slow

PIXEL_SIZE, BOX = 3.0, 80
SHELL = round(BOX * PIXEL_SIZE / 8)         # of 8 Å
N_MICROGRAPHS, PER_MICROGRAPH = 40, 14
KEY = ['rlnMicrographName', 'rlnCoordinateX', 'rlnCoordinateY']
LABELS = [*ANGLES, *ORIGINS, 'rlnDefocusU', 'rlnDefocusV', 'rlnDefocusAngle']
SLAB = ('--ice-thickness', '1500', '--ice-tilt', '20', '--defocus-error', '5')


@pytest.fixture(scope='module')
def relion():
    return find_relion('relion_reconstruct', 'relion_preprocess')


@pytest.fixture(scope='module')
def phantom() -> GaussianPhantom:
    coarse = make_phantom()
    return GaussianPhantom(coarse.positions, np.full_like(coarse.widths, 3.0), coarse.heights)


@pytest.fixture(scope='module')
def truth(phantom) -> np.ndarray:
    return phantom.render(BOX, PIXEL_SIZE)


@pytest.fixture(scope='module')
def clean_run(real_set, phantom, relion, tmp_path_factory) -> Path:
    """Clean particles of a thick tilted slab, each with a defocus of its own, from a map at another pixel size."""
    folder = tmp_path_factory.mktemp('reconstruction')
    write_mrc(folder / 'map.mrc', phantom.render(96, 2.0), 2.0)
    assert main(['simulate', '--volume', str(folder / 'map.mrc'), '--micrographs', real_set.micrographs, '--ctfs',
                 real_set.ctfs, '--pixel-size', str(PIXEL_SIZE), '--particles-per-micrograph', f'{PER_MICROGRAPH}:1',
                 '--signal-to-noise', '0.5', '--n-micrographs', str(N_MICROGRAPHS), '--particles', 'clean',
                 '--box-size', str(BOX), '--seed', '8', *SLAB, '--output', str(folder / 'out')]) == 0
    return folder / 'out'


@pytest.fixture(scope='module')
def noisy_run(clean_run) -> Path:
    """Micrographs of the same specimen under measured noise."""
    folder = clean_run.parent / 'generated'
    assert main(['generate', '--dataset', str(clean_run), '--n-micrographs', str(N_MICROGRAPHS), '--box-size',
                 str(BOX), '--seed', '9', '--output', str(folder)]) == 0
    return folder


@pytest.fixture(scope='module')
def fine_run(real_set, clean_run) -> Path:
    """Micrographs in the pixels of the real ones, made in working pixels that end at 7 Å, under measured noise."""
    folder = clean_run.parent / 'fine'
    assert main(['simulate', '--volume', str(clean_run.parent / 'map.mrc'), '--micrographs', real_set.micrographs,
                 '--ctfs', real_set.ctfs, '--pixel-size', str(PIXEL_SIZE), '--working-pixel-size', '3.5',
                 '--particles-per-micrograph', f'{PER_MICROGRAPH}:1', '--signal-to-noise', '0.5', '--n-micrographs',
                 '1', '--box-size', str(BOX), *SLAB, '--output', str(folder / 'simulated')]) == 0
    assert main(['generate', '--dataset', str(folder / 'simulated'), '--n-micrographs', str(N_MICROGRAPHS),
                 '--output-sampling', 'original', '--box-size', str(BOX), '--seed', '9', '--output',
                 str(folder / 'out')]) == 0
    return folder / 'out'


def reconstruct(folder: Path, relion, table: str, *more: str) -> np.ndarray:
    relion(folder, 'relion_reconstruct', '--i', table, '--o', 'rebuilt.mrc', '--angpix', str(PIXEL_SIZE),
           *(more or ('--ctf',)))
    return mrcfile.read(folder / 'rebuilt.mrc')


def extract(folder: Path, relion) -> str:
    """Cut particles out of the micrographs of a run with RELION, which reads our coordinate files as they are.

    Return the table of RELION with the poses and CTFs of our rows, found by micrograph and coordinate.
    """
    for path in (folder / 'coordinates').glob('*.star'):
        shutil.copy(path, folder / 'micrographs' / f'{path.stem}_pick.star')
    relion(folder, 'relion_preprocess', '--i', 'micrographs.star', '--coord_dir', './', '--coord_suffix', '_pick.star',
           '--part_star', 'extracted.star', '--part_dir', 'Extracted/', '--extract', '--extract_size', str(BOX),
           '--norm', '--bg_radius', '36', '--white_dust', '-1', '--black_dust', '-1', '--invert_contrast')
    ours = starfile.read(folder / 'particles.star', always_dict=True)['particles'].set_index(KEY)[LABELS]
    blocks = starfile.read(folder / 'extracted.star', always_dict=True)
    cut = blocks['particles']
    labelled = cut.drop(columns=[one for one in LABELS if one in cut]).join(ours, on=KEY, validate='one_to_one')
    assert len(labelled) == len(ours)
    assert not labelled[LABELS].isna().any().any()
    write_tables(folder / 'labelled.star', {'optics': blocks['optics'].to_dict('list'),
                                            'particles': labelled.to_dict('list')})
    return 'labelled.star'


def measure_in_mask(truth: np.ndarray, found: np.ndarray) -> float:
    """Return the mean shell correlation from 30 to 8 Å inside a sphere around the particle."""
    grid = np.arange(BOX) - BOX // 2
    radius = np.sqrt(grid[:, None, None] ** 2 + grid[:, None] ** 2 + grid ** 2) * PIXEL_SIZE
    sphere = 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - 65) / 15, 0, 1))
    return float(correlate_shells(truth * sphere, found * sphere)[SHELL * 8 // 30:SHELL + 1].mean())


def test_particles_have_a_defocus_of_their_own_and_lie_off_their_pixels(clean_run):
    rows = starfile.read(clean_run / 'clean_particles.star', always_dict=True)['particles']

    assert len(rows) > 400
    within = rows.groupby('rlnMicrographName')['rlnDefocusU'].std()
    assert within.mean() > 150
    assert rows[['rlnOriginXAngst', 'rlnOriginYAngst']].to_numpy().std() > 0.25 * PIXEL_SIZE


def test_relion_rebuilds_the_map_from_clean_particles(clean_run, relion, truth):
    found = reconstruct(clean_run, relion, 'clean_particles.star')

    assert correlate_shells(truth, found)[1:SHELL + 1].min() >= 0.95
    assert correlate_maps(truth, found) >= 0.99
    assert correlate_maps(truth[:, :, ::-1], found) < 0.8


@pytest.mark.parametrize('mistake', MISTAKES)
def test_every_mistake_spoils_the_map_at_8_angstrom(mistake, clean_run, relion, truth):
    table = write_changed(clean_run, 'clean_particles.star', 'mistaken.star', MISTAKES[mistake])

    assert correlate_shells(truth, reconstruct(clean_run, relion, table))[SHELL] < 0.92


def test_one_defocus_for_a_whole_micrograph_is_seen_at_8_angstrom(clean_run, relion, truth):
    def average(rows):
        for column in ('rlnDefocusU', 'rlnDefocusV'):
            rows[column] = rows.groupby('rlnMicrographName')[column].transform('mean')

    right = correlate_shells(truth, reconstruct(clean_run, relion, 'clean_particles.star'))[SHELL]
    table = write_changed(clean_run, 'clean_particles.star', 'averaged.star', average)
    wrong = correlate_shells(truth, reconstruct(clean_run, relion, table))[SHELL]
    assert 1 - wrong > 3 * (1 - right)


@pytest.mark.parametrize('run', ['clean_run', 'noisy_run', 'fine_run'])
def test_particles_that_relion_cuts_from_micrographs_at_our_coordinates_beat_every_mistake(
        run, relion, truth, request):
    folder = request.getfixturevalue(run)
    table = extract(folder, relion)
    right = measure_in_mask(truth, reconstruct(folder, relion, table))
    wrong = {mistake: measure_in_mask(truth, reconstruct(
        folder, relion, write_changed(folder, table, 'mistaken.star', change))) for mistake, change in MISTAKES.items()}
    wrong['no ctf'] = measure_in_mask(truth, reconstruct(folder, relion, table, '--angpix', str(PIXEL_SIZE)))

    assert right > 0.5
    assert {key: value for key, value in wrong.items() if value > right - 0.03} == {}
