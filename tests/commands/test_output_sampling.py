"""Micrographs in the pixels of the original ones: labels in Å unchanged, pictures where they say, noise to the end."""

import json

import mrcfile
import numpy as np
import pytest
import starfile

from cryogem.__main__ import main
from cryogem.dataset.reader import read_record
from cryogem.imaging.resampling import resample_image
from tests.commands.experiment import PIXEL_SIZE, SHAPE

WORKING, BOX = 10.0, 48                     # Å/px; px of 5 Å
NAMES = ('generated_00001', 'generated_00002', 'generated_00003')


@pytest.fixture(scope='module')
def coarse(real_set, tmp_path_factory):
    """A simulate run at twice the pixel size of the micrographs."""
    out = tmp_path_factory.mktemp('sampling') / 'simulated'
    assert main(real_set.simulate(out, '--n-micrographs', '1', '--working-pixel-size', str(WORKING))) == 0
    return out


@pytest.fixture(scope='module')
def runs(coarse, tmp_path_factory):
    """The same generate run in working and in original pixels."""
    folders = {}
    for sampling in ('working', 'original'):
        folders[sampling] = tmp_path_factory.mktemp('sampling') / sampling
        assert main(['generate', '--dataset', str(coarse), '--n-micrographs', '3', '--seed', '4', '--particles', 'both',
                     '--output-sampling', sampling, '--formats', 'clean', 'masks', 'eman', '--output',
                     str(folders[sampling]), *(['--box-size', str(BOX)] if sampling == 'original' else [])]) == 0
    return folders


def read_tables(folder):
    return starfile.read(folder / 'particles.star', always_dict=True)


def test_every_file_has_shape_and_pixel_size_of_the_original_micrographs(runs):
    folder = runs['original']
    for kind in ('micrographs', 'clean', 'masks'):
        with mrcfile.open(folder / kind / f'{NAMES[0]}.mrc') as file:
            assert file.data.shape == SHAPE
            assert float(file.voxel_size.x) == pytest.approx(PIXEL_SIZE)
    for name in ('manifest.json', 'outline.json'):
        values = json.loads((folder / name).read_text())
        assert (values['pixel_size'], tuple(values['shape']), values['box_size']) == (PIXEL_SIZE, SHAPE, BOX)
    optics = read_tables(folder)['optics'].iloc[0]
    for column in ('rlnMicrographOriginalPixelSize', 'rlnMicrographPixelSize', 'rlnImagePixelSize'):
        assert optics[column] == PIXEL_SIZE
    record = read_record(folder, NAMES[0])
    assert (record.shape, record.pixel_size) == (SHAPE, PIXEL_SIZE)
    with mrcfile.open(folder / 'particles.mrcs') as file:
        assert file.data.shape[1:] == (BOX, BOX)
        assert float(file.voxel_size.x) == pytest.approx(PIXEL_SIZE)


def test_particles_are_the_same_in_angstroms_and_degrees(runs):
    for name in NAMES:
        working, original = (read_record(runs[one], name) for one in ('working', 'original'))
        assert original.ctf == working.ctf
        assert len(original.particles) == len(working.particles)
        for one, other in zip(working.particles, original.particles, strict=True):
            # from the corner of the frame, half a pixel before the centre of the first one
            np.testing.assert_allclose((np.array(other.center_yx) + 0.5) * PIXEL_SIZE,
                                       (np.array(one.center_yx) + 0.5) * WORKING, rtol=1e-9)
            assert (other.rot, other.tilt, other.psi, other.height) == (one.rot, one.tilt, one.psi, one.height)
    rows = read_tables(runs['original'])['particles']
    assert rows[['rlnOriginXAngst', 'rlnOriginYAngst']].abs().to_numpy().max() <= PIXEL_SIZE / 2


def test_every_particle_is_where_its_row_says_with_its_pose_and_ctf(runs, predict_particle):
    folder = runs['original']
    rows = read_tables(folder)['particles']
    pictures = {name: mrcfile.read(folder / 'clean' / f'{name}.mrc') for name in NAMES}
    agreement, mistaken = [], []
    for row in rows.to_dict('records'):
        picture = pictures[row['rlnMicrographName'].split('/')[1][:-4]]
        x, y = row['rlnCoordinateX'], row['rlnCoordinateY']
        low = BOX // 2
        if row['cryogemOverlapFraction'] > 0 or not (low <= y < SHAPE[0] - low and low <= x < SHAPE[1] - low):
            continue
        window = -picture[y - low:y + low, x - low:x + low]
        near = (slice(low - 10, low + 10),) * 2
        for wanted, shift in ((agreement, 0.0), (mistaken, PIXEL_SIZE / 2)):    # half a pixel, as a slip would leave
            moved = {**row, 'rlnOriginXAngst': row['rlnOriginXAngst'] + shift,
                     'rlnOriginYAngst': row['rlnOriginYAngst'] + shift}
            expected = limit_band(predict_particle(moved, BOX, PIXEL_SIZE))
            wanted.append(np.corrcoef(window[near].ravel(), expected[near].ravel())[0, 1])

    assert len(agreement) >= 5
    assert np.median(agreement) > 0.97
    assert np.mean(np.array(agreement) > np.array(mistaken)) == 1


def limit_band(image):
    """Take off what working pixels cannot hold."""
    spectrum = np.fft.fft2(image)
    ky, kx = np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing='ij')
    limit = 0.5 * PIXEL_SIZE / WORKING
    return np.fft.ifft2(np.where((np.abs(ky) < limit) & (np.abs(kx) < limit), spectrum, 0)).real


def test_clean_particles_are_the_exact_pictures_of_their_rows(runs, predict_particle):
    folder = runs['original']
    images = mrcfile.read(folder / 'clean_particles.mrcs')
    rows = starfile.read(folder / 'clean_particles.star', always_dict=True)['particles'].to_dict('records')
    near = (slice(BOX // 2 - 12, BOX // 2 + 12),) * 2
    expected = [limit_band(predict_particle(row, BOX, PIXEL_SIZE)) for row in rows]
    agreement = [np.corrcoef(image[near].ravel(), other[near].ravel())[0, 1]
                 for image, other in zip(images, expected, strict=True)]

    assert len(images) == len(rows) > 20
    assert min(agreement) > 0.98


def test_masks_lie_on_their_particles(runs):
    for name in NAMES:
        record, mask = (read_record(runs['original'], name),
                        mrcfile.read(runs['original'] / 'masks' / f'{name}.mrc'))
        for one in record.particles:
            own = np.argwhere(mask == one.instance_id)
            if one.visible_fraction == 1 and one.overlap_fraction == 0:
                assert np.abs(own.mean(axis=0) - one.center_yx).max() < 4       # the particle is not centred in its map
        expected = mrcfile.read(runs['working'] / 'masks' / f'{name}.mrc')
        np.testing.assert_array_equal(mask[::2, ::2], expected)


def test_below_the_working_nyquist_frequency_the_picture_is_that_in_working_pixels(runs):
    for name in NAMES:
        working, original = (mrcfile.read(runs[one] / 'micrographs' / f'{name}.mrc') for one in ('working', 'original'))
        again, before = (keep_circle(one) for one in (resample_image(original, PIXEL_SIZE, WORKING), working))
        inner = (slice(8, -8), slice(8, -8))
        assert np.corrcoef(again[inner].ravel(), before[inner].ravel())[0, 1] > 0.98


def keep_circle(image):
    """Take off what lies beyond the Nyquist frequency in the corners."""
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing='ij'))
    return np.fft.ifft2(np.where(radius < 0.49, np.fft.fft2(image - image.mean()), 0)).real


def test_the_spectrum_goes_on_to_the_original_nyquist_frequency_as_in_the_real_micrographs(runs, real_set):
    ratios = []
    for name in NAMES:                                          # each with the Thon rings of its own CTF
        source = real_set.names[read_record(runs['original'], name).source]
        made, real = (measure_shells(mrcfile.read(folder / 'micrographs' / f'{one}.mrc'))[25:]
                      for folder, one in ((runs['original'], name), (real_set.folder, source)))
        ratios.append(np.log(made.reshape(5, 5).mean(axis=1) / real.reshape(5, 5).mean(axis=1)))

    # 25 shells from the working Nyquist frequency on, in fives: rings near the end are finer than what is measured
    assert np.abs(np.mean(ratios, axis=0)).max() < 0.35
    assert abs(np.mean(ratios)) < 0.15


def measure_shells(image):
    """Return the mean power on 50 shells up to the Nyquist frequency."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2 / image.size
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing='ij'))
    shells = np.minimum((radius * 100).astype(int), 50)
    return (np.bincount(shells.ravel(), power.ravel()) / np.bincount(shells.ravel()))[:50]


def test_boxes_are_in_the_pixels_that_are_written(runs):
    folder = runs['original']
    rows = read_tables(folder)['particles']
    first = rows[rows['rlnMicrographName'] == f'micrographs/{NAMES[0]}.mrc'].iloc[0]
    box = (folder / 'boxes' / f'{NAMES[0]}.box').read_text().splitlines()[0].split('\t')
    corner = [first[column] - BOX // 2 for column in ('rlnCoordinateX', 'rlnCoordinateY')]

    assert [int(one) for one in box] == [*corner, BOX, BOX]


def test_a_calibration_in_original_pixels_gives_the_same_in_both_samplings(simulated, generated, tmp_path):
    assert main(['generate', '--dataset', str(simulated), '--n-micrographs', '1', '--seed', '11', '--output-sampling',
                 'original', '--output', str(tmp_path / 'out')]) == 0

    name = 'micrographs/generated_00001.mrc'
    assert (tmp_path / 'out' / name).read_bytes() == (generated / name).read_bytes()


def test_a_network_is_not_trained_on_other_pixels_than_those_it_works_with(real_set, tmp_path, fail):
    out = tmp_path / 'simulated'
    assert main(real_set.simulate(out, '--n-micrographs', '1', '--working-pixel-size', str(WORKING),
                                  '--output-sampling', 'original')) == 0
    message = fail(['train', '--dataset', str(out), '--micrographs', real_set.micrographs, '--max-steps', '1',
                    '--crop-size', '32', '--simulation', 'dataset', '--output', str(tmp_path / 'model')])

    assert 'was made with output_sampling original' in message
