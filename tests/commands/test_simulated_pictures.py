"""The pictures of a simulate run: micrographs, clean twins, masks and particle stacks agree with the records."""

import json

import mrcfile
import numpy as np
import pytest
import starfile
from PIL import Image
from scipy.ndimage import gaussian_filter

from cryogem.dataset.reader import read_record
from tests.commands.experiment import correlate, read_particles

NAMES = ['simulated_00001', 'simulated_00002', 'simulated_00003']


def test_pictures_carry_pixel_size_and_type(simulated):
    for name in NAMES:
        for folder, kind in (('micrographs', np.float32), ('clean', np.float32), ('masks', np.int16)):
            with mrcfile.open(simulated / folder / f'{name}.mrc') as file:
                assert (file.data.shape, file.data.dtype, file.is_single_image()) == ((256, 288), kind, True)
                assert tuple(file.voxel_size.tolist())[:2] == pytest.approx((5.0, 5.0))
    assert mrcfile.validate(simulated / 'micrographs' / f'{NAMES[0]}.mrc')


def test_particle_stacks_are_stacks_of_the_box_at_the_pixel_size(simulated):
    box = json.loads((simulated / 'manifest.json').read_text())['box_size']
    for name in ('particles', 'clean_particles'):
        n = len(read_particles(simulated / f'{name}.star'))
        with mrcfile.open(simulated / f'{name}.mrcs') as file:
            assert (file.data.shape, file.data.dtype) == ((n, box, box), np.float32)
            assert file.is_image_stack()
            assert float(file.voxel_size.x) == pytest.approx(5.0)


def test_the_specimen_is_the_map_at_the_working_pixel_size(simulated, real_set):
    with mrcfile.open(simulated / 'specimen' / 'volume_01.mrc') as file:
        assert file.is_volume()
        assert float(file.voxel_size.x) == pytest.approx(5.0)
        density = file.data.copy()
    expected = real_set.phantom.render(density.shape[0], 5.0)

    assert np.corrcoef(density.ravel(), expected.ravel())[0, 1] > 0.95
    assert np.corrcoef(density[:, :, ::-1].ravel(), expected.ravel())[0, 1] < 0.8


def test_every_instance_of_the_mask_is_a_particle_of_the_record_and_visible_ones_have_pixels(simulated):
    for name in NAMES:
        record = read_record(simulated, name)
        instances = set(np.unique(mrcfile.read(simulated / 'masks' / f'{name}.mrc'))) - {0}
        assert instances <= {one.instance_id for one in record.particles}
        alone = {one.instance_id for one in record.particles if one.overlap_fraction == 0 and one.visible_fraction > 0}
        assert alone <= instances
        assert len(alone) > 5


def test_coordinates_are_inside_the_frame_and_on_their_own_particle(simulated):
    table = read_particles(simulated / 'particles.star')
    hits = []
    for name in NAMES:
        mask = mrcfile.read(simulated / 'masks' / f'{name}.mrc')
        own = table[table['rlnMicrographName'] == f'micrographs/{name}.mrc']
        y, x = own['rlnCoordinateY'].to_numpy(), own['rlnCoordinateX'].to_numpy()
        assert ((y >= 0) & (y < 256) & (x >= 0) & (x < 288)).all()
        # the particle is no ball: in some views its rotation centre lies just beside its silhouette
        hits += [i in mask[max(0, b - 3):b + 4, max(0, a - 3):a + 4]
                 for i, b, a in zip(own['cryogemInstance'], y, x, strict=True)]

    assert np.mean(hits) > 0.95


def test_the_clean_picture_is_dark_at_the_particles(simulated):
    for name in NAMES:
        clean, mask = (mrcfile.read(simulated / folder / f'{name}.mrc') for folder in ('clean', 'masks'))
        particles = starfile.read(simulated / 'coordinates' / f'{name}.star')
        y, x = np.mgrid[:256, :288]
        is_near = np.zeros(mask.shape, bool)
        for center_x, center_y in particles.to_numpy():
            is_near |= np.hypot(y - center_y, x - center_x) <= 8
        assert clean[is_near].mean() < clean[~is_near].mean() - 0.1
        assert clean[mask > 0].mean() < clean[mask == 0].mean() - 0.1


def test_the_masks_cover_the_signal(simulated):
    for name in NAMES:
        clean, mask = (mrcfile.read(simulated / folder / f'{name}.mrc') for folder in ('clean', 'masks'))
        picture = np.asarray(Image.open(simulated / 'masks' / f'{name}.png'))
        np.testing.assert_array_equal(picture, np.where(mask > 0, 255, 0))
        assert picture.dtype == np.uint8
        assert np.mean(clean[mask > 0] ** 2) > 8 * np.mean(clean[mask == 0] ** 2)
        assert 0.03 < (mask > 0).mean() < 0.3
        # a mask that is turned or moved no longer covers it
        for other in (mask[::-1], mask[:, ::-1], np.roll(mask, 16, axis=1)):
            assert np.mean(clean[other > 0] ** 2) < 0.5 * np.mean(clean[mask > 0] ** 2)


def test_a_micrograph_is_its_clean_twin_on_smooth_ice_in_the_grey_of_its_real_one(simulated):
    for name in NAMES:
        record = read_record(simulated, name)
        micrograph, clean = (mrcfile.read(simulated / folder / f'{name}.mrc') for folder in ('micrographs', 'clean'))
        ice = (micrograph - record.grey_mean) / record.grey_sd - clean
        assert (record.grey_mean, record.grey_sd) == pytest.approx((120, 20), rel=0.3)
        assert np.abs(ice - gaussian_filter(ice, 4, mode='nearest')).max() < 0.02
        assert 0.05 < np.ptp(ice) < 2


def test_the_rows_are_in_the_order_of_the_stacks(simulated, predict_particle):
    clean = mrcfile.read(simulated / 'clean_particles.mrcs')
    table = read_particles(simulated / 'clean_particles.star')
    predicted = [predict_particle(row, clean.shape[-1], 5.0) for row in table.to_dict('records')]
    agreement = correlate(clean, predicted)

    np.testing.assert_array_equal(agreement.argmax(axis=1), np.arange(len(clean)))
    assert np.diag(agreement).min() > 0.9


def test_particle_images_are_cut_at_their_coordinates_and_bright(simulated):
    images = mrcfile.read(simulated / 'particles.mrcs')
    table = read_particles(simulated / 'particles.star').to_dict('records')
    half, n_inside = images.shape[-1] // 2, 0
    for image, row in zip(images, table, strict=True):
        micrograph = mrcfile.read(simulated / row['rlnMicrographName'])
        y, x = row['rlnCoordinateY'], row['rlnCoordinateX']
        if not (half <= y < 256 - half and half <= x < 288 - half):
            continue
        n_inside += 1
        cut = micrograph[y - half:y + half, x - half:x + half]
        assert np.corrcoef(image.ravel(), -cut.ravel())[0, 1] == pytest.approx(1, abs=1e-4)
    assert n_inside > 20
    agreement = correlate(images, mrcfile.read(simulated / 'clean_particles.mrcs'))
    assert np.mean(agreement.argmax(axis=1) == np.arange(len(images))) > 0.9


def test_the_ring_around_a_particle_image_has_zero_mean_and_unit_sd(simulated):
    images = mrcfile.read(simulated / 'particles.mrcs')
    box = images.shape[-1]
    y, x = np.mgrid[:box, :box] - box // 2
    ring = images[:, np.hypot(y, x) > 0.375 * box]

    np.testing.assert_allclose(ring.mean(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(ring.std(axis=1), 1, atol=1e-3)
