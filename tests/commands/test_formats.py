"""Files for other programs, each read as its format is documented, and compared with RELION's table of the same run.

With CRYODRGN pointing to an unpacked cryodrgn distribution, its own commands must give the same pickles.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from cryogem.__main__ import main
from cryogem.dataset.reader import read_grey_values, read_record
from tests.commands.experiment import turn_matrix
from tests.commands.reconstruction import find_relion

BOX = 32
NAMES = ('simulated_00001', 'simulated_00002')


@pytest.fixture(scope='module')
def run(real_set, tmp_path_factory):
    """A run with every format."""
    out = tmp_path_factory.mktemp('formats') / 'out'
    assert main(real_set.simulate(
        out, '--n-micrographs', '2', '--box-size', str(BOX), '--particles', 'both', '--formats', 'clean', 'masks',
        'png', 'topaz', 'eman', 'cryolo', 'coco', 'cryodrgn')) == 0
    return out


@pytest.fixture(scope='module')
def rows(run):
    return starfile.read(run / 'particles.star', always_dict=True)['particles']


def rows_of(rows, name):
    return rows[rows['rlnMicrographName'] == f'micrographs/{name}.mrc']


def test_eman_boxes_have_their_corner_half_a_box_from_the_coordinate(run, rows):
    for name in NAMES:
        boxes = np.loadtxt(run / 'boxes' / f'{name}.box', dtype=int)
        own = rows_of(rows, name)
        np.testing.assert_array_equal(boxes[:, :2] + BOX // 2, own[['rlnCoordinateX', 'rlnCoordinateY']])
        assert (boxes[:, 2:] == BOX).all()


def test_cryolo_boxes_are_a_star_file_with_a_version_and_the_columns_of_cbox(run, rows):
    for name in NAMES:
        blocks = starfile.read(run / 'boxes' / f'{name}.cbox', always_dict=True)
        assert float(blocks['global']['cbox_format_version']) == 1.0
        boxes = blocks['cryolo']
        assert list(boxes.columns) == ['CoordinateX', 'CoordinateY', 'CoordinateZ', 'Width', 'Height', 'Depth',
                                       'EstWidth', 'EstHeight', 'Confidence', 'NumBoxes', 'Angle']
        centers = boxes[['CoordinateX', 'CoordinateY']].to_numpy(float) + boxes[['Width', 'Height']].to_numpy(float) / 2
        np.testing.assert_array_equal(centers, rows_of(rows, name)[['rlnCoordinateX', 'rlnCoordinateY']])
        assert boxes['CoordinateZ'].isna().all()


def decode(segmentation):
    """Return the (h, w) bool mask of uncompressed run lengths, column by column, background first (COCO)."""
    values = np.arange(len(segmentation['counts'])) % 2 == 1
    h, w = segmentation['size']
    return np.repeat(values, segmentation['counts']).reshape(w, h).T


def test_instances_of_coco_are_the_masks(run):
    coco = json.loads((run / 'instances.json').read_text())
    assert [one['name'] for one in coco['categories']] == ['particle']
    assert [one['file_name'] for one in coco['images']] == [f'micrographs/{name}.mrc' for name in NAMES]
    assert [one['id'] for one in coco['annotations']] == list(range(1, len(coco['annotations']) + 1))
    for image, name in zip(coco['images'], NAMES, strict=True):
        mask = mrcfile.read(run / 'masks' / f'{name}.mrc')
        assert (image['height'], image['width']) == mask.shape
        own = [one for one in coco['annotations'] if one['image_id'] == image['id']]
        assert sorted(one['instance'] for one in own) == sorted(set(np.unique(mask)) - {0})
        for one in own:
            found = decode(one['segmentation'])
            np.testing.assert_array_equal(found, mask == one['instance'])
            assert one['area'] == found.sum()
            y, x = np.nonzero(found)
            assert one['bbox'] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert (one['category_id'], one['iscrowd']) == (1, 0)
        pickable = {one['instance'] for one in own if one['is_pickable']}
        record = read_record(run, name)
        listed = {one.instance_id for one in record.particles if record.is_pickable(one)}
        assert pickable == listed


def test_poses_and_ctfs_of_cryodrgn_follow_the_stack_and_its_conventions(run, rows):
    with (run / 'poses.pkl').open('rb') as file:
        rotations, translations = pickle.load(file)
    with (run / 'ctf.pkl').open('rb') as file:
        optics = pickle.load(file)
    assert len(rotations) == len(translations) == len(optics) == len(rows) == len(mrcfile.read(run / 'particles.mrcs'))
    assert {one.dtype for one in (rotations, translations, optics)} == {np.dtype(np.float32)}
    for i, row in enumerate(rows.to_dict('records')):
        # cryoDRGN turns its grid by the matrix that turns the particle into the frame of its image
        np.testing.assert_allclose(
            rotations[i], turn_matrix(row['rlnAngleRot'], row['rlnAngleTilt'], row['rlnAnglePsi']), atol=1e-6)
        np.testing.assert_allclose(translations[i] * BOX * 5.0, [row['rlnOriginXAngst'], row['rlnOriginYAngst']],
                                   atol=1e-4)
        np.testing.assert_allclose(optics[i], [
            BOX, 5.0, row['rlnDefocusU'], row['rlnDefocusV'], row['rlnDefocusAngle'], 300, 2.7, 0.1,
            row['rlnPhaseShift']], rtol=1e-6)


@pytest.mark.slow
def test_cryodrgn_itself_makes_the_same_pickles_of_our_table(run, tmp_path):
    if 'CRYODRGN' not in os.environ:
        pytest.skip('CRYODRGN is not set to the folder of an unpacked cryodrgn distribution')
    environment = {**os.environ, 'PYTHONPATH': os.environ['CRYODRGN']}
    for command, name in (('parse_pose_star', 'poses.pkl'), ('parse_ctf_star', 'ctf.pkl')):
        program = (f'import argparse; from cryodrgn.commands import {command} as c; p = argparse.ArgumentParser(); '
                   f'c.add_args(p); c.main(p.parse_args())')
        subprocess.run([sys.executable, '-c', program, str(run / 'particles.star'), '-o', str(tmp_path / name)],
                       env=environment, check=True, timeout=600)
        ours, theirs = (pickle.loads((folder / name).read_bytes()) for folder in (run, tmp_path))
        for one, other in zip(*((ours, theirs) if name == 'poses.pkl' else ([ours], [theirs])), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_every_file_of_a_micrograph_is_in_the_checksums(run):
    listed = set(json.loads((run / 'manifest.json').read_text())['checksums'])
    there = {str(path.relative_to(run)) for name in NAMES for path in run.rglob(f'{name}.*')}

    assert there - listed == {f'records/{name}.json' for name in NAMES}


def test_with_no_format_there_are_micrographs_records_and_tables_alone(real_set, tmp_path):
    out = tmp_path / 'out'
    assert main(real_set.simulate(out, '--n-micrographs', '1', '--formats', 'none')) == 0

    assert {path.name for path in out.iterdir()} == {
        'config.json', 'outline.json', 'manifest.json', 'calibration.json', 'calibration', 'micrographs', 'records',
        'coordinates', 'specimen', 'micrographs.star', 'particles.star', 'particles_other.star'}


def test_a_format_that_is_unknown_is_named(real_set, tmp_path, fail):
    assert fail(real_set.simulate(tmp_path / 'out', '--formats', 'clean', 'eman2')) == (
        "formats cannot be 'eman2'; say none, or some of clean, masks, png, topaz, eman, cryolo, coco, cryodrgn")


@pytest.mark.parametrize(('pixel_type', 'mode', 'tolerance'), [('float16', 12, 0.004), ('int8', 0, 0.03)])
def test_smaller_types_hold_the_same_grey_values(pixel_type, mode, tolerance, simulated, generated, tmp_path):
    out = tmp_path / 'out'
    assert main(['generate', '--dataset', str(simulated), '--n-micrographs', '3', '--seed', '11', '--pixel-type',
                 pixel_type, '--output', str(out)]) == 0
    for name in ('generated_00001', 'generated_00002', 'generated_00003'):
        record, exact = read_record(out, name), mrcfile.read(generated / 'micrographs' / f'{name}.mrc')
        with mrcfile.open(out / 'micrographs' / f'{name}.mrc') as file:
            assert file.header.mode == mode
            assert file.header.ispg == 0
            assert float(file.voxel_size.x) == 5.0
            assert float(file.header.dmean) == pytest.approx(file.data.mean(dtype=np.float64), abs=1e-3 * exact.std())
            label = bytes(file.header.label[0]).decode().strip('\0 ')
        # mrcfile adds up float16 in float16 and calls the right mean of any micrograph wrong
        assert pixel_type == 'float16' or mrcfile.validate(out / 'micrographs' / f'{name}.mrc')
        np.testing.assert_allclose(read_grey_values(out, record), exact, atol=tolerance * exact.std() * 2)
        if pixel_type == 'int8':
            scale, offset = (float(one) for one in label.removeprefix('made by cryogem: grey = value * ').split(' + '))
            stored = mrcfile.read(out / 'micrographs' / f'{name}.mrc')
            np.testing.assert_allclose(stored * scale + offset, exact, atol=tolerance * exact.std() * 2)


def test_particles_cut_from_int8_are_those_cut_from_float32(simulated, tmp_path):
    stacks = []
    for pixel_type in ('float32', 'int8'):
        out = tmp_path / pixel_type
        assert main(['generate', '--dataset', str(simulated), '--n-micrographs', '1', '--particles', 'generated',
                     '--pixel-type', pixel_type, '--output', str(out)]) == 0
        stacks.append(mrcfile.read(out / 'particles.mrcs'))

    assert np.corrcoef(stacks[0].ravel(), stacks[1].ravel())[0, 1] > 0.999


def test_half_precision_is_refused_where_it_would_coarsen_grey_values(simulated, tmp_path, fail):
    dataset = shutil.copytree(simulated, tmp_path / 'dataset')
    calibration = json.loads((dataset / 'calibration.json').read_text())
    calibration['micrographs'][1]['grey_mean'] = 5000.0
    (dataset / 'calibration.json').write_text(json.dumps(calibration))
    message = fail(['generate', '--dataset', str(dataset), '--pixel-type', 'float16', '--output',
                    str(tmp_path / 'out')])

    assert message.startswith("pixel_type float16 cannot hold the grey values of 'mic_2', 5000 ± ")
    assert not (tmp_path / 'out').exists()


def test_relion_extracts_the_particles_of_our_table_and_reads_int8(simulated, tmp_path):
    relion = find_relion('relion_preprocess')
    for pixel_type in ('float32', 'int8'):              # RELION knows float16 from version 4 on
        out = tmp_path / pixel_type
        assert main(['generate', '--dataset', str(simulated), '--n-micrographs', '1', '--pixel-type', pixel_type,
                     '--output', str(out)]) == 0
        relion(out, 'relion_preprocess', '--i', 'micrographs.star', '--reextract_data_star', 'particles.star',
               '--part_star', 'extracted.star', '--part_dir', 'extracted/', '--extract', '--extract_size', '48',
               '--norm', '--bg_radius', '18')
    stacks = [mrcfile.read(next((tmp_path / one / 'extracted').rglob('*.mrcs')))
              for one in ('float32', 'int8')]

    assert np.corrcoef(stacks[0].ravel(), stacks[1].ravel())[0, 1] > 0.999


def test_the_folder_of_the_run_is_where_names_in_tables_start(run, rows):
    assert all((run / name).is_file() for name in rows['rlnMicrographName'])
    assert Path(rows['rlnImageName'][0].split('@')[1]) == Path('particles.mrcs')
