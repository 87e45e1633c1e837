"""A finished simulate run: the files, and that all its tables tell the same story."""

import hashlib
import json

import mrcfile
import numpy as np
import pytest
import starfile

from cryogem.__main__ import main
from cryogem.dataset.reader import read_record
from tests.commands.experiment import correlate, list_files, read_particles

NAMES = ['simulated_00001', 'simulated_00002', 'simulated_00003']
PER_MICROGRAPH = ['micrographs/{}.mrc', 'clean/{}.mrc', 'masks/{}.mrc', 'masks/{}.png', 'records/{}.json',
                  'coordinates/{}.star']
PER_RUN = ['config.json', 'outline.json', 'manifest.json', 'calibration.json', 'micrographs.star', 'coordinates.txt',
           'particles.star', 'particles_other.star', 'specimen/volume_01.mrc', 'specimen/mask_01.mrc']
REPORT = ['calibration/report.html', 'calibration/curves.png', 'calibration/micrographs.png',
          *(f'calibration/masks/mic_{i}.png' for i in (1, 2, 3))]
STACKS = ['particles.mrcs', 'clean_particles.mrcs', 'clean_particles.star']
CTF_COLUMNS = {'rlnDefocusU', 'rlnDefocusV', 'rlnDefocusAngle', 'rlnPhaseShift'}
PARTICLE_COLUMNS = CTF_COLUMNS | {
    'rlnMicrographName', 'rlnCoordinateX', 'rlnCoordinateY', 'rlnOriginXAngst', 'rlnOriginYAngst', 'rlnAngleRot',
    'rlnAngleTilt', 'rlnAnglePsi', 'rlnOpticsGroup', 'rlnRandomSubset', 'rlnClassNumber'}
OPTICS_COLUMNS = {'rlnOpticsGroupName', 'rlnOpticsGroup', 'rlnMicrographOriginalPixelSize', 'rlnVoltage',
                  'rlnSphericalAberration', 'rlnAmplitudeContrast', 'rlnMicrographPixelSize'}
PARTICLE_TABLES = ['particles.star', 'particles_other.star', 'clean_particles.star']


def test_the_folder_holds_exactly_the_files_of_the_contract(simulated):
    expected = PER_RUN + REPORT + STACKS + [form.format(name) for name in NAMES for form in PER_MICROGRAPH]

    assert list_files(simulated) == sorted(expected)


def test_without_particle_stacks_none_are_written(simulated, tmp_path, real_set):
    out = tmp_path / 'out'
    assert main(real_set.simulate(out, '--n-micrographs', '1')) == 0

    assert list_files(out) == sorted(PER_RUN + REPORT + [form.format(NAMES[0]) for form in PER_MICROGRAPH])
    assert 'rlnImageName' not in read_particles(out / 'particles.star')


@pytest.mark.parametrize(('stacks', 'expected'), [
    ('clean', ['clean_particles.mrcs', 'clean_particles.star']), ('generated', ['particles.mrcs'])])
def test_one_kind_of_particle_stack_can_be_asked_for(stacks, expected, tmp_path, real_set):
    out = tmp_path / 'out'
    assert main(real_set.simulate(out, '--n-micrographs', '1', '--particles', stacks, '--box-size', '32')) == 0

    assert sorted(set(list_files(out)) & set(STACKS)) == expected
    assert ('rlnImageName' in read_particles(out / 'particles.star')) == (stacks == 'generated')
    for path in out.glob('*.mrcs'):
        assert mrcfile.read(path).shape[1:] == (32, 32)


def test_the_manifest_knows_the_checksum_of_every_picture_and_the_run(simulated):
    manifest = json.loads((simulated / 'manifest.json').read_text())

    expected = {form.format(name) for name in NAMES for form in PER_MICROGRAPH if 'records' not in form}
    assert set(manifest['checksums']) == expected
    for file, checksum in manifest['checksums'].items():
        assert hashlib.sha256((simulated / file).read_bytes()).hexdigest() == checksum
    assert (manifest['command'], manifest['seed'], manifest['micrographs']) == ('simulate', 7, NAMES)
    assert (manifest['pixel_size'], manifest['shape'], manifest['is_complete']) == (5.0, [256, 288], True)
    assert manifest['n_particles'] == len(read_particles(simulated / 'particles.star'))
    assert manifest['box_size'] % 2 == 0


def test_the_config_beside_the_results_makes_them_again(simulated, tmp_path, fingerprint):
    out = tmp_path / 'again'
    assert main(['simulate', '--config', str(simulated / 'config.json'), '--output', str(out)]) == 0

    assert fingerprint(out) == fingerprint(simulated)


def test_the_tables_have_the_columns_of_relion(simulated):
    micrographs = starfile.read(simulated / 'micrographs.star', always_dict=True)
    assert list(micrographs) == ['optics', 'micrographs']
    assert set(micrographs['micrographs']) >= CTF_COLUMNS | {'rlnMicrographName', 'rlnOpticsGroup'}
    assert list(micrographs['micrographs']['rlnMicrographName']) == [f'micrographs/{name}.mrc' for name in NAMES]
    for path in PARTICLE_TABLES:
        blocks = starfile.read(simulated / path, always_dict=True)
        assert list(blocks) == ['optics', 'particles']
        assert set(blocks['optics']) >= OPTICS_COLUMNS
        assert set(blocks['particles']) >= PARTICLE_COLUMNS
        assert set(blocks['particles']['rlnOpticsGroup']) <= set(blocks['optics']['rlnOpticsGroup'])
    for path in ('particles.star', 'clean_particles.star'):
        blocks = starfile.read(simulated / path, always_dict=True)
        optics = blocks['optics'].iloc[0]
        assert (optics['rlnImagePixelSize'], optics['rlnMicrographPixelSize']) == (5.0, 5.0)
        assert optics['rlnImageDimensionality'] == 2
        assert optics['rlnImageSize'] == json.loads((simulated / 'manifest.json').read_text())['box_size']
        expected = [f'{i:06d}@{path.replace(".star", ".mrcs")}' for i in range(1, len(blocks['particles']) + 1)]
        assert list(blocks['particles']['rlnImageName']) == expected


def test_defocus_u_is_the_larger_one_and_comes_from_the_table_with_two_percent_of_jitter(simulated):
    known = np.array([(15000, 14600, 30), (17000, 16500, 80), (19500, 18800, 140)], dtype=float)
    rows = starfile.read(simulated / 'micrographs.star', always_dict=True)['micrographs']
    for name, (_, row) in zip(NAMES, rows.iterrows(), strict=True):
        u, v, angle = known[read_record(simulated, name).source]
        assert row['rlnDefocusAngle'] == angle
        assert row['rlnDefocusU'] / u == pytest.approx(row['rlnDefocusV'] / v, rel=1e-6)
        assert abs(row['rlnDefocusU'] / u - 1) <= 0.02


def test_an_integer_coordinate_and_its_origin_make_the_centre(simulated):
    for path in PARTICLE_TABLES:
        table = read_particles(simulated / path)
        assert all(table[name].dtype.kind == 'i' for name in ('rlnCoordinateX', 'rlnCoordinateY'))
        for name in NAMES:
            centers = {one.instance_id: one.center_yx for one in read_record(simulated, name).particles}
            rows = table[table['rlnMicrographName'] == f'micrographs/{name}.mrc']
            for _, row in rows.iterrows():
                center = [row[f'rlnCoordinate{axis}'] - row[f'rlnOrigin{axis}Angst'] / 5.0 for axis in 'YX']
                assert center == pytest.approx(centers[row['cryogemInstance']], abs=1e-5)
                assert abs(row['rlnOriginXAngst']) <= 2.5
                assert abs(row['rlnOriginYAngst']) <= 2.5


def test_each_painted_particle_is_in_exactly_one_of_the_two_tables(simulated):
    tables = [read_particles(simulated / path) for path in ('particles.star', 'particles_other.star')]
    listed = [[(row['rlnMicrographName'], row['cryogemInstance']) for _, row in table.iterrows()] for table in tables]
    painted = [(f'micrographs/{name}.mrc', one.instance_id)
               for name in NAMES for one in read_record(simulated, name).particles]

    assert sorted(listed[0] + listed[1]) == sorted(painted)
    assert len(set(painted)) == len(painted)
    assert min(map(len, listed)) > 0
    assert (tables[0]['cryogemVisibleFraction'] >= 0.5).all()
    is_inside = ((tables[1]['rlnCoordinateX'].between(0, 287)) & (tables[1]['rlnCoordinateY'].between(0, 255)))
    assert not (is_inside & (tables[1]['cryogemVisibleFraction'] >= 0.5)).any()


def test_each_particle_has_the_defocus_of_its_height(simulated):
    table = read_particles(simulated / 'particles.star')
    heights = []
    for name in NAMES:
        record = read_record(simulated, name)
        known = {one.instance_id: one for one in record.particles}
        for _, row in table[table['rlnMicrographName'] == f'micrographs/{name}.mrc'].iterrows():
            height = known[row['cryogemInstance']].height
            heights.append(height)
            assert row['rlnDefocusU'] == pytest.approx(record.ctf.defocus_u + height, abs=1e-5)
            assert row['rlnDefocusV'] == pytest.approx(record.ctf.defocus_v + height, abs=1e-5)
            assert row['rlnDefocusAngle'] == pytest.approx(record.ctf.defocus_angle)
    assert np.ptp(heights) > 100


def test_both_random_subsets_occur_and_poses_are_all_different(simulated):
    table = read_particles(simulated / 'particles.star')

    assert set(table['rlnRandomSubset']) == {1, 2}
    assert len(table[['rlnAngleRot', 'rlnAngleTilt', 'rlnAnglePsi']].drop_duplicates()) == len(table)


def test_the_coordinates_of_topaz_and_of_the_star_files_are_those_of_the_particle_table(simulated):
    table = read_particles(simulated / 'particles.star')
    lines = (simulated / 'coordinates.txt').read_text().splitlines()
    expected = [f'{name}\t{x}\t{y}' for name, x, y in zip(
        table['rlnMicrographName'].str.removeprefix('micrographs/').str.removesuffix('.mrc'),
        table['rlnCoordinateX'], table['rlnCoordinateY'], strict=True)]

    assert lines == ['image_name\tx_coord\ty_coord', *expected]
    for name in NAMES:
        own = table[table['rlnMicrographName'] == f'micrographs/{name}.mrc'][['rlnCoordinateX', 'rlnCoordinateY']]
        found = starfile.read(simulated / 'coordinates' / f'{name}.star')
        np.testing.assert_array_equal(found[['rlnCoordinateX', 'rlnCoordinateY']].to_numpy(), own.to_numpy())


def test_particles_on_a_micrograph_are_as_many_and_as_far_apart_as_the_picks(simulated, real_set):
    table = read_particles(simulated / 'particles.star')
    picked = np.mean([len(one) for one in real_set.centers_yx.values()])
    for name in NAMES:
        own = table[table['rlnMicrographName'] == f'micrographs/{name}.mrc']
        assert 0.6 * picked < len(own) < 1.8 * picked
        centers = own[['rlnCoordinateY', 'rlnCoordinateX']].to_numpy(float)
        gaps = np.hypot(*(centers[:, None] - centers[None]).transpose(2, 0, 1)) + 1e3 * np.eye(len(own))
        assert gaps.min() > 28                                          # picks keep 30 px


def test_two_maps_are_mixed_by_their_weights_and_told_apart_by_class(real_set, tmp_path):
    other = tmp_path / 'ball.mrc'
    z, y, x = np.mgrid[:40, :40, :40] - 20
    with mrcfile.new(other) as file:
        file.set_data((np.sqrt(x ** 2 + y ** 2 + z ** 2) < 9).astype(np.float32))
        file.voxel_size = 4.0
    out = tmp_path / 'out'
    arguments = real_set.simulate(out, '--n-micrographs', '3', '--particles', 'clean')
    arguments[arguments.index(real_set.map)] += ':1'
    arguments.insert(arguments.index('--micrographs'), f'{other}:3')
    assert main(arguments) == 0

    assert sorted(one.name for one in (out / 'specimen').iterdir()) == [
        'mask_01.mrc', 'mask_02.mrc', 'volume_01.mrc', 'volume_02.mrc']
    table = read_particles(out / 'clean_particles.star')
    assert 0.55 < (table['rlnClassNumber'] == 2).mean() < 0.92
    balls = mrcfile.read(out / 'clean_particles.mrcs')[(table['rlnClassNumber'] == 2).to_numpy()]
    y, x = np.mgrid[:balls.shape[-1], :balls.shape[-1]] - balls.shape[-1] // 2
    profile = (np.hypot(y, x) < 7).astype(float)
    assert correlate(balls, [profile]).min() > 0.5


def test_numbers_can_be_said_where_there_are_no_picks(real_set, tmp_path):
    out = tmp_path / 'out'
    assert main(['simulate', '--volume', real_set.map, '--micrographs', real_set.micrographs, '--ctfs', real_set.ctfs,
                 '--particles-per-micrograph', '8:0', '--signal-to-noise', '0.2', '--n-micrographs', '2',
                 '--minimum-distance', '160', '--output', str(out)]) == 0

    table = read_particles(out / 'particles.star')
    counts = table.groupby('rlnMicrographName').size()
    assert counts.between(5, 12).all()
    clean = np.stack([mrcfile.read(out / 'clean' / f'{name}.mrc') for name in NAMES[:2]])
    masks = np.stack([mrcfile.read(out / 'masks' / f'{name}.mrc') for name in NAMES[:2]])
    variance = clean[masks > 0].var()
    assert variance / (1 - variance) == pytest.approx(0.2, rel=0.4)             # of a frame of unit variance


def test_a_calibration_made_before_is_used(calibrated, real_set, tmp_path):
    out = tmp_path / 'out'
    assert main(real_set.simulate(out, '--calibration', str(calibrated), '--n-micrographs', '1')) == 0

    before, after = (json.loads((folder / 'calibration.json').read_text()) for folder in (calibrated, out))
    assert after['particle_diameter'] == before['particle_diameter'] == 120
    for measured, used in zip(before['micrographs'], after['micrographs'], strict=True):
        assert all(used[key] == measured[key] for key in ('name', 'total_power', 'background_power', 'ice', 'ctf'))
    assert before['signal_scale'] is None
    assert after['signal_scale'] > 0


def test_the_working_pixel_size_can_be_said(real_set, tmp_path):
    out = tmp_path / 'out'
    assert main(real_set.simulate(out, '--working-pixel-size', '8', '--n-micrographs', '1')) == 0

    with mrcfile.open(out / 'micrographs' / f'{NAMES[0]}.mrc') as file:
        assert file.data.shape == (160, 180)
        assert float(file.voxel_size.x) == pytest.approx(8)
    with mrcfile.open(out / 'specimen' / 'volume_01.mrc') as file:
        assert float(file.voxel_size.x) == pytest.approx(8)
    optics = starfile.read(out / 'particles.star', always_dict=True)['optics']
    assert list(optics['rlnMicrographPixelSize']) == [8.0]
    table = read_particles(out / 'particles.star')
    assert (table['rlnCoordinateX'] < 180).all()
    assert (table['rlnCoordinateY'] < 160).all()


def test_the_published_ice_can_be_had(real_set, tmp_path):
    out = tmp_path / 'out'
    assert main(real_set.simulate(out, '--ice-model', 'paper', '--n-micrographs', '1')) == 0

    values = json.loads((out / 'calibration.json').read_text())
    for one in values['micrographs']:
        assert np.mean(one['transmission']) == pytest.approx(1, abs=0.02)
        assert one['ice'] == [[0.0]]
    record = read_record(out, NAMES[0])
    image = mrcfile.read(out / 'micrographs' / f'{NAMES[0]}.mrc')
    clean = mrcfile.read(out / 'clean' / f'{NAMES[0]}.mrc')
    # nothing is added to the particles
    np.testing.assert_allclose(image, clean * record.grey_sd + record.grey_mean, rtol=1e-4)
