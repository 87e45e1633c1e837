"""The folder of a run: where it may be written, when a micrograph is finished, and that it reads back the same."""

import dataclasses
import json

import mrcfile
import numpy as np
import pytest

from cryogem.config import SimulateConfig, describe_run
from cryogem.dataset import layout
from cryogem.dataset.finishing import finish_dataset
from cryogem.dataset.plan import Plan
from cryogem.dataset.reader import read_dataset, read_record, split_weight
from cryogem.dataset.writer import (
    check_empty,
    check_output,
    is_finished,
    start_dataset,
    write_micrograph,
    write_plan,
    write_specimen,
)
from cryogem.errors import InputError, OutputError
from cryogem.imaging.calibration import Calibration, MicrographCalibration
from cryogem.imaging.exposure import Exposure, expose
from cryogem.imaging.noise_fit import NoiseModel
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.records import Ctf, Micrograph, Particle
from cryogem.specimen.ensemble import build_ensemble
from tests.messages import is_one_sentence
from tests.phantom import make_chiral_phantom

CONFIG = SimulateConfig(output='out', volume=('a.mrc',), micrographs=('*.mrc',), n_micrographs=1)
DESCRIPTION = describe_run('simulate', CONFIG)
PLAN = Plan('simulate', 0, 'simulated', 1, 5.0, (64, 80), 24, particles='both', formats=CONFIG.formats)
POWER = (1.0,) * N_SHELLS
MEASURED = {
    'pixel_size': 5.0, 'shape': (64, 80), 'particle_diameter': 90.0, 'particles_per_frame': (3.0, 1.0),
    'neighbour_distances': (90.0,), 'signal_scale': 0.5, 'noise': NoiseModel(POWER, POWER),
    'micrographs': (MicrographCalibration(
        name='real', grey_mean=100.0, grey_sd=10.0, n_picks=3, ice=((0.0, 0.1), (0.0, 0.0)), total_power=POWER,
        background_power=POWER, noise_power=POWER),)}
CALIBRATION = Calibration(**{one.name: MEASURED.get(one.name) for one in dataclasses.fields(Calibration)})
PARTICLES = (Particle(1, (20.3, 30.7), 0.0, 10, 50, 30), Particle(2, (45.0, 60.2), 20.0, 80, 120, 3))


@pytest.fixture(scope='module')
def ensemble():
    return build_ensemble([make_chiral_phantom().prepare(24, 5.0)], [1.0])


@pytest.fixture(scope='module')
def exposure(ensemble) -> Exposure:
    record = Micrograph(
        index=0, name='simulated_00001', shape=(64, 80), pixel_size=5.0, ctf=Ctf(12000, 11000, 30), source=0,
        ice_flips=(True, False), signal_scale=0.5, grey_mean=100.0, grey_sd=10.0, particles=PARTICLES)
    return expose(record, ensemble)


@pytest.fixture
def run(tmp_path, exposure, ensemble):
    """A finished run of one micrograph, written by the functions of the writer alone."""
    folder = tmp_path / 'out'
    start_dataset(folder, DESCRIPTION)
    write_plan(folder, PLAN)
    write_specimen(folder, ensemble, CALIBRATION)
    write_micrograph(folder, exposure, exposure.clean * 10 + 100, PLAN)
    finish_dataset(folder, PLAN, ensemble)
    return folder


def refuse(folder, description=DESCRIPTION, is_continued=False):
    with pytest.raises(OutputError) as caught:
        check_output(folder, description, is_continued)
    assert is_one_sentence(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('is_continued', [False, True])
def test_a_new_or_empty_folder_is_accepted(tmp_path, is_continued):
    check_output(tmp_path / 'new', DESCRIPTION, is_continued)
    (tmp_path / 'empty').mkdir()
    check_output(tmp_path / 'empty', DESCRIPTION, is_continued)
    check_empty(tmp_path / 'new')
    check_empty(tmp_path / 'empty')


def test_a_file_and_a_folder_of_others_are_refused(tmp_path):
    (tmp_path / 'file').touch()

    assert 'is a file' in refuse(tmp_path / 'file')
    assert 'is not empty' in refuse(tmp_path)
    assert 'holds no cryogem run to continue' in refuse(tmp_path, is_continued=True)
    for path, part in ((tmp_path / 'file', 'is a file'), (tmp_path, 'is not empty')):
        with pytest.raises(OutputError, match=part):
            check_empty(path)


def test_a_run_is_continued_with_its_own_settings_and_refused_with_others(run):
    check_output(run, DESCRIPTION, True)
    for free in ({'n_micrographs': 9}, {'workers': 3}, {'device': 'cpu'}, {'output': 'elsewhere'}, {'continue': True}):
        check_output(run, {**DESCRIPTION, **free}, True)
    assert refuse(run, {**DESCRIPTION, 'seed': 1}, True).startswith('seed is 1 but the run in')
    assert refuse(run, {**DESCRIPTION, 'new_setting': 1}, True).startswith('new_setting is 1')
    assert 'is not empty' in refuse(run)


def test_a_micrograph_is_finished_when_all_its_files_are_as_they_were_written(run):
    name = 'simulated_00001'
    assert is_finished(run, name)
    assert not is_finished(run, 'simulated_00002')
    record = json.loads(layout.record_path(run, name).read_text())
    assert sorted(record['checksums']) == [
        'clean/simulated_00001.mrc', 'coordinates/simulated_00001.star', 'masks/simulated_00001.mrc',
        'masks/simulated_00001.png', 'micrographs/simulated_00001.mrc']
    for path in map(run.joinpath, record['checksums']):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert not is_finished(run, name)
        path.write_bytes(content)
        assert is_finished(run, name)


def test_the_record_comes_back_as_it_was_written(run, exposure):
    assert read_record(run, 'simulated_00001') == exposure.record
    assert all(0 < one.visible_fraction <= 1 for one in exposure.record.particles)


def test_writing_the_same_micrograph_twice_gives_the_same_bytes(run, exposure):
    before = {path: path.read_bytes() for path in run.rglob('*') if path.is_file()}
    write_micrograph(run, exposure, exposure.clean * 10 + 100, PLAN)

    assert {path: path.read_bytes() for path in run.rglob('*') if path.is_file()} == before


def test_a_run_is_read_back_with_its_settings_calibration_pictures_and_maps(run, exposure, ensemble):
    dataset = read_dataset(run)

    assert dataset.config == CONFIG
    assert dataset.calibration == CALIBRATION
    clean, mask = dataset.read_pair('simulated_00001')
    np.testing.assert_array_equal(clean, exposure.clean)
    np.testing.assert_array_equal(mask, exposure.instance_mask > 0)
    loaded = dataset.load_ensemble()
    np.testing.assert_array_equal(loaded.volumes[0].density, ensemble.volumes[0].density)
    assert loaded.volumes[0].diameter == pytest.approx(ensemble.volumes[0].diameter, rel=1e-6)
    np.testing.assert_array_equal(expose(exposure.record, loaded).clean, exposure.clean)


def test_a_clean_particle_is_its_particle_alone_and_bright(run, exposure):
    stack = mrcfile.read(run / layout.CLEAN_STACK)
    x, y = exposure.record.particles[0].coordinate_xy
    window = -exposure.clean[y - 12:y + 12, x - 12:x + 12]

    # its neighbour is 38 px away, and both are near enough to the focal plane of their slice
    assert np.corrcoef(stack[0].ravel(), window.ravel())[0, 1] > 0.97
    assert stack[0][8:16, 8:16].mean() > 0


def test_an_empty_run_has_empty_stacks_and_tables(tmp_path, ensemble):
    record = Micrograph(
        index=0, name='simulated_00001', shape=(64, 80), pixel_size=5.0, ctf=Ctf(12000, 11000, 30), source=0,
        ice_flips=(False, False), signal_scale=0.5, grey_mean=100.0, grey_sd=10.0)
    empty = expose(record, ensemble)
    write_plan(tmp_path, PLAN)
    write_micrograph(tmp_path, empty, empty.clean, PLAN)
    finish_dataset(tmp_path, PLAN, ensemble)

    assert json.loads((tmp_path / 'manifest.json').read_text())['n_particles'] == 0
    assert (tmp_path / layout.STACK).stat().st_size == 0
    assert '_rlnAngleRot' in (tmp_path / layout.PARTICLES_STAR).read_text()


def test_a_particle_at_the_border_is_cut_with_the_border_repeated(tmp_path, ensemble):
    record = Micrograph(
        index=0, name='simulated_00001', shape=(64, 80), pixel_size=5.0, ctf=Ctf(12000, 11000, 30), source=0,
        ice_flips=(False, False), signal_scale=0.5, grey_mean=100.0, grey_sd=10.0,
        particles=(Particle(1, (3.0, 40.0), 0.0, 10, 50, 30),))
    exposed = expose(record, ensemble)
    plan = dataclasses.replace(PLAN, particles='generated')
    write_plan(tmp_path, plan)
    image = exposed.clean * 10 + 100 + np.random.default_rng(0).standard_normal((64, 80)).astype(np.float32)
    write_micrograph(tmp_path, exposed, image, plan)
    finish_dataset(tmp_path, plan, ensemble)
    one = mrcfile.read(tmp_path / layout.STACK).squeeze()              # MRC knows no stack of one image

    np.testing.assert_allclose(one[:10], np.broadcast_to(one[9], (10, 24)), atol=1e-5)
    inside = -image[:15, 28:52]
    assert np.corrcoef(one[9:].ravel(), inside.ravel())[0, 1] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(('text', 'expected'), [
    ('map.mrc', ('map.mrc', 1.0)), ('map.mrc:2', ('map.mrc', 2.0)), ('a:b/map.mrc', ('a:b/map.mrc', 1.0)),
    ('a:b/map.mrc:0.5', ('a:b/map.mrc', 0.5)), ('C:\\map.mrc', ('C:\\map.mrc', 1.0))])
def test_a_weight_is_what_follows_the_last_colon_if_it_is_a_number(text, expected):
    assert split_weight(text) == expected


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        read_dataset(tmp_path)
    assert is_one_sentence(caught.value)
