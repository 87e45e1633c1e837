"""Proofs of evaluate: RELION finds labelled poses and rebuilds the map, Topaz trains and picks, faults are named."""

import json
import pickle
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from PIL import Image

from cryogem.__main__ import main
from cryogem.commands import evaluate
from cryogem.commands.evaluation_inputs import read_sets
from cryogem.evaluation.pose import (
    ALIGNER,
    RECONSTRUCTOR,
    align_with_relion,
    export_particles,
    has_program,
    reconstruct_from_labels,
)
from cryogem.evaluation.regressor import learn_poses
from cryogem.io.star import write_tables
from tests.topaz import find_topaz

pytestmark = pytest.mark.slow

BOX = 48
C1 = np.eye(3)[None]
FAST = ('--no-controls', '--n-seeds', '1', '--crops-per-micrograph', '2', '--crop-size', '96')


@pytest.fixture(scope='module')
def made(simulated, tmp_path_factory):
    """A generated set of eight micrographs."""
    folder = tmp_path_factory.mktemp('proofs') / 'made'
    assert main(['generate', '--dataset', str(simulated), '--n-micrographs', '8', '--seed', '21', '--output',
                 str(folder)]) == 0
    return folder


@pytest.fixture(scope='module')
def exported(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp('export') / 'particles'
    one, = read_sets([str(made)])
    n = export_particles(folder, one.frames, one.folder, BOX)
    return folder, n, one


def test_an_export_holds_all_that_relion_cryopares_and_cryodrgn_read(exported):
    folder, n, one = exported

    assert sorted(path.name for path in folder.iterdir()) == [
        'ctf.pkl', 'particles.mrcs', 'particles.star', 'poses.pkl', 'reference.mrc']
    assert n == sum(len(frame.centers_yx) for frame in one.frames)
    tables = starfile.read(folder / 'particles.star', always_dict=True)
    assert len(tables['particles']) == n
    assert tables['optics']['rlnImageSize'][0] == BOX
    assert tables['particles']['rlnImageName'].iloc[-1] == f'{n:06d}@particles.mrcs'
    stack = mrcfile.read(folder / 'particles.mrcs')
    assert stack.shape == (n, BOX, BOX)
    middle = stack[:, BOX // 2 - 6:BOX // 2 + 6, BOX // 2 - 6:BOX // 2 + 6].mean()
    assert middle > 0.1                                                     # bright in the middle
    rotations, translations = pickle.loads((folder / 'poses.pkl').read_bytes())
    assert (rotations.shape, translations.shape) == ((n, 3, 3), (n, 2))
    assert pickle.loads((folder / 'ctf.pkl').read_bytes()).shape == (n, 9)
    assert mrcfile.read(folder / 'reference.mrc').shape == (BOX,) * 3


def test_relion_finds_the_labelled_poses_and_not_shuffled_ones(exported):
    if not has_program(ALIGNER):
        pytest.skip(f'{ALIGNER} is not installed')
    folder, n, one = exported
    rng = np.random.default_rng(0)
    errors = align_with_relion(folder, 'C1', C1, one.calibration.particle_diameter, rng)

    assert errors.n_particles == n
    assert errors.chance == pytest.approx(132, abs=8)
    assert errors.median < 20
    assert errors.origin_median < one.calibration.pixel_size * 2
    tables = starfile.read(folder / 'particles.star', always_dict=True)
    rows = tables['particles']
    angles = ['rlnAngleRot', 'rlnAngleTilt', 'rlnAnglePsi']
    rows[angles] = rows[angles].to_numpy()[rng.permutation(n)]
    wrong = shutil.copytree(folder, folder.parent / 'wrong')
    write_tables(wrong / 'particles.star', {'optics': tables['optics'].to_dict('list'),
                                            'particles': rows.to_dict('list')})
    assert align_with_relion(wrong, 'C1', C1, one.calibration.particle_diameter, rng).median > 90


def test_the_map_is_rebuilt_from_the_labels_with_its_hand(exported):
    if not has_program(RECONSTRUCTOR):
        pytest.skip(f'{RECONSTRUCTOR} is not installed')
    folder, n, one = exported
    found = reconstruct_from_labels(folder, 'C1')

    assert found.n_particles == n
    assert found.correlation > 0.5
    assert found.correlation > found.mirrored + 0.1
    assert found.resolution < one.calibration.particle_diameter / 3


def test_a_small_network_learns_poses_better_than_chance(exported):
    _, _, one = exported
    errors = learn_poses(one.frames, BOX, C1, 150, 0)

    assert errors.n_particles > 10
    assert errors.median < errors.chance - 5


def test_too_few_particles_are_not_learned_from(exported):
    assert learn_poses(exported[2].frames[:2], BOX, C1, 5, 0) is None


@pytest.fixture(scope='module')
def proven(real_set, made, tmp_path_factory):
    """A report with all proofs, small."""
    out = tmp_path_factory.mktemp('proven') / 'report'
    assert main(['evaluate', '--generated', str(made), '--real', real_set.micrographs, '--coordinates',
                 real_set.coordinates, *FAST, '--topaz', str(Path(find_topaz()) / 'bin' / 'topaz'), '--topaz-weights',
                 find_topaz(), '--picking', '--picking-real', real_set.micrographs, '--picking-coordinates',
                 real_set.coordinates, '--picking-seeds', '2', '--picking-iterations', '5', '--no-picking-scratch',
                 '--poses', '--pose-steps', '20', '--reconstruction', '--export', '--output', str(out)]) == 0
    return out


def test_topaz_is_trained_on_the_set_and_on_real_picks_and_scored_on_the_real_micrographs(proven):
    results = json.loads((proven / 'report.json').read_text())['picking']

    assert {(one['arm'], one['iterations'], one['seed']) for one in results} == {
        ('shipped', 0, 0), *((arm, 5, seed) for arm in ('made', 'real') for seed in (0, 1))}
    assert all(0 <= one['average_precision'] <= 1 for one in results)
    assert max(one['average_precision'] for one in results) > 0.2
    assert len({one['average_precision'] for one in results}) > 2           # repetitions differ


def test_the_report_shows_all_proofs(proven):
    table = (proven / 'table.csv').read_text()
    for words in ('shipped weights, 5 iterations', 'median error, RELION against the map', 'small regressor',
                  'resolution at FSC 0.5', 'ROC area of the particle query'):
        assert words in table
    names = {one.name for one in proven.iterdir()}
    assert {'picks.png', 'picking.png', 'similarity.png', 'export'} <= names
    picks = np.asarray(Image.open(proven / 'picks.png')).astype(int)
    is_green = (picks[..., 1] > 150) & (picks[..., 0] < 120) & (picks[..., 2] < 140)
    assert is_green.sum() > 100
    assert 'Topaz' in ' '.join(json.loads((proven / 'report.json').read_text())['verdict'])
    assert (proven / 'export' / 'made' / 'particles.star').exists()


def change_record(folder: Path, name: str, change) -> None:
    path = folder / 'records' / f'{name}.json'
    values = json.loads(path.read_text())
    change(values['record'])
    path.write_text(json.dumps(values))


def forget_particles(record):
    record['particles'] = record['particles'][:3]


def test_faulty_micrographs_are_named_in_the_report_and_sound_ones_are_not(real_set, made, tmp_path):
    faulty = shutil.copytree(made, tmp_path / 'faulty')
    change_record(faulty, 'generated_00004', forget_particles)
    path = faulty / 'micrographs' / 'generated_00007.mrc'
    image = mrcfile.read(path)
    with mrcfile.open(path, 'r+') as file:
        file.set_data(2 * image.mean() - image)
    out = tmp_path / 'report'
    assert main(['evaluate', '--generated', str(faulty), str(made), '--real', real_set.micrographs, '--coordinates',
                 real_set.coordinates, *FAST, '--output', str(out)]) == 0
    found = json.loads((out / 'report.json').read_text())['suspicious']

    # these frames are too small for a CTF fit: a wrong defocus is proven in tests/evaluation/test_suspicion.py
    assert {(one['kind'], one['name']) for one in found['faulty']} == {
        ('unlabelled', 'generated_00004'), ('contrast', 'generated_00007')}
    assert found['made'] == []
    page = (out / 'report.html').read_text()
    assert all(name in page for name in ('generated_00004', 'generated_00007'))


def test_where_the_programs_are_missing_the_rows_say_so(real_set, made, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(evaluate, 'has_independent_fit', lambda: False)
    out = tmp_path / 'report'
    assert main(['evaluate', '--generated', str(made), '--real', real_set.micrographs, '--coordinates',
                 real_set.coordinates, *FAST, '--picking', '--poses', '--pose-steps', '0', '--reconstruction',
                 '--output', str(out)]) == 0
    table = (out / 'table.csv').read_text()

    for words in ("the program 'topaz' is not installed", f'{ALIGNER} is not installed',
                  f'{RECONSTRUCTOR} is not installed', 'RELION is not installed', 'topaz-em is not installed',
                  'torch-ctf-estimation is not installed', 'there is no FID'):
        assert words in table
