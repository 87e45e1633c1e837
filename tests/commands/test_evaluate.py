"""`cryogem evaluate`: the report, the gallery and what is refused."""

import json
import shutil

import mrcfile
import numpy as np
import pytest
from PIL import Image

from cryogem.__main__ import main

FAST = ('--no-controls', '--n-seeds', '1', '--crops-per-micrograph', '2', '--crop-size', '96')


@pytest.fixture
def arguments(real_set, generated, tmp_path):
    return ['evaluate', '--generated', str(generated), '--real', real_set.micrographs, '--coordinates',
            real_set.coordinates, *FAST, '--output', str(tmp_path / 'report')]


def read_distance(folder):
    return json.loads((folder / 'report.json').read_text())['radial_power_spectrum']


def test_the_folder_holds_report_table_pictures_and_config(arguments, tmp_path):
    assert main(arguments) == 0

    out = tmp_path / 'report'
    assert sorted({one.name for one in out.iterdir()} - {'similarity.png'}) == [
        'arms.png', 'config.json', 'ctf.png', 'gallery.png', 'report.html', 'report.json', 'signal.png', 'spectra.png',
        'table.csv', 'table.md']
    report = json.loads((out / 'report.json').read_text())
    assert (report['n_generated'], report['n_real'], report['pixel_size']) == (3, 3, 5.0)
    assert json.loads((out / 'config.json').read_text())['command'] == 'evaluate'


@pytest.mark.slow
def test_measured_noise_is_nearer_to_the_real_micrographs_than_white_noise(arguments, simulated, tmp_path):
    found = {}
    for noise in ('measured', 'gaussian'):          # twelve of each: their real micrographs are drawn, and all differ
        made, arguments[-1] = tmp_path / noise, str(tmp_path / f'report_{noise}')
        assert main(['generate', '--model', noise, '--dataset', str(simulated), '--n-micrographs', '12', '--output',
                     str(made)]) == 0
        arguments[2] = str(made)
        assert main(arguments) == 0
        found[noise] = read_distance(tmp_path / f'report_{noise}')

    measured, gaussian = found['measured'], found['gaussian']
    assert measured['log_rms'] < 0.25
    assert gaussian['log_rms'] > 2 * measured['log_rms']
    assert gaussian['bands']['low'] > 2 * measured['bands']['low']       # where white noise is most wrong
    assert gaussian['floor'] == measured['floor']
    assert measured['floor'] > 0                # large here: each of the three has a defocus of its own
    assert set(measured['bands']) == {'low', 'middle', 'high'}


def test_real_micrographs_against_themselves_have_no_distance(arguments, real_set, generated, tmp_path):
    copy = shutil.copytree(generated, tmp_path / 'copy')
    for source, name in zip(real_set.names, sorted((copy / 'micrographs').iterdir()), strict=True):
        shutil.copy(real_set.folder / 'micrographs' / f'{source}.mrc', name)
    arguments[2] = str(copy)
    assert main(arguments) == 0

    assert read_distance(tmp_path / 'report')['log_rms'] == pytest.approx(0, abs=1e-9)


def test_a_single_real_micrograph_has_no_floor(arguments, real_set, tmp_path):
    arguments[arguments.index('--real') + 1] = str(real_set.folder / 'micrographs' / 'mic_1.mrc')
    assert main(arguments) == 0

    assert read_distance(tmp_path / 'report')['floor'] is None


def test_the_gallery_shows_two_real_and_two_generated_micrographs_with_circles(arguments, tmp_path):
    assert main(arguments) == 0

    sheet = np.asarray(Image.open(tmp_path / 'report' / 'gallery.png')).astype(int)
    # pictures of 700 x 622 px with a caption of 22 px, gaps of 10 px all around
    assert sheet.shape == (2 * (622 + 22) + 3 * 10, 2 * 700 + 3 * 10, 3)
    is_circle = (sheet[..., 0] > 230) & (sheet[..., 2] < 40)
    for top in (10 + 22, 10 + 22 + 644 + 10):
        for left in (10, 720):
            picture = sheet[top:top + 622, left:left + 700]
            assert picture.std() > 20
            assert is_circle[top:top + 622, left:left + 700].sum() > 1000
    assert not is_circle[:, :10].any()


def test_real_micrographs_without_coordinates_are_shown_without_circles(arguments, tmp_path):
    at = arguments.index('--coordinates')
    assert main(arguments[:at] + arguments[at + 2:]) == 0

    sheet = np.asarray(Image.open(tmp_path / 'report' / 'gallery.png')).astype(int)
    is_circle = (sheet[..., 0] > 230) & (sheet[..., 2] < 40)
    assert not is_circle[:650].any()
    assert is_circle[660:].any()


@pytest.mark.slow
def test_real_micrographs_at_another_pixel_size_are_brought_to_that_of_the_run(arguments, real_set, tmp_path):
    assert main(arguments) == 0
    expected = read_distance(tmp_path / 'report')['log_rms']
    for name in real_set.names:
        image = mrcfile.read(real_set.folder / 'micrographs' / f'{name}.mrc')
        spectrum = np.zeros((512, 576), complex)
        spectrum[128:384, 144:432] = np.fft.fftshift(np.fft.fft2(image))
        fine = np.fft.ifft2(np.fft.ifftshift(spectrum)).real * 4
        with mrcfile.new(tmp_path / f'{name}.mrc') as file:
            file.set_data(fine.astype(np.float32))
            file.voxel_size = 2.5
    arguments = ['evaluate', '--generated', arguments[2], '--real', str(tmp_path / '*.mrc'), *FAST, '--output',
                 str(tmp_path / 'fine')]
    assert main(arguments) == 0

    assert read_distance(tmp_path / 'fine')['log_rms'] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(('flag', 'value', 'message'), [
    ('--real', 'none/*.mrc', "real 'none/*.mrc' matches no file; check the path and quote the pattern"),
    ('--coordinates', 'none/*.star', "coordinates 'none/*.star' matches no file; check the path and quote the pattern"),
    ('--generated', 'none', "generated 'none' has no readable calibration.json; give the folder of a finished run"),
])
def test_what_is_not_there_is_named(flag, value, message, arguments, tmp_path, fail):
    arguments[arguments.index(flag) + 1] = value

    assert fail(arguments) == message
    assert not (tmp_path / 'report').exists()


def test_an_unfinished_generate_run_is_refused(arguments, generated, tmp_path, fail):
    part = shutil.copytree(generated, tmp_path / 'part')
    (part / 'manifest.json').unlink()
    arguments[2] = str(part)

    assert fail(arguments) == f"generated '{part}' has no readable manifest.json; give the folder of a finished run"
    assert not (tmp_path / 'report').exists()


def test_coordinates_named_differently_are_refused(arguments, real_set, tmp_path, fail):
    shutil.copy(real_set.folder / 'coordinates' / 'mic_1.star', tmp_path / 'other.star')
    arguments[arguments.index('--coordinates') + 1] = str(tmp_path / '*.star')

    assert 'are not named like any micrograph' in fail(arguments)
    assert not (tmp_path / 'report').exists()


def test_a_real_micrograph_smaller_than_two_particles_is_refused(arguments, tmp_path, fail):
    with mrcfile.new(tmp_path / 'small.mrc') as file:
        file.set_data(np.random.default_rng(0).standard_normal((40, 60)).astype(np.float32))
        file.voxel_size = 5.0

    assert fail(['evaluate', '--generated', arguments[2], '--real', str(tmp_path / 'small.mrc'), *arguments[-2:]]) == (
        'real: small is 40 px wide, less than two particles; check pixel_size')
    assert not (tmp_path / 'report').exists()


def test_micrographs_without_pixel_size_need_it_said(arguments, real_set, tmp_path, fail):
    with mrcfile.new(tmp_path / 'mic_1.mrc') as file:
        file.set_data(mrcfile.read(real_set.folder / 'micrographs' / 'mic_1.mrc'))
    arguments[arguments.index('--real') + 1] = str(tmp_path / 'mic_1.mrc')

    assert fail(arguments).startswith('pixel_size is missing: micrograph ')
    assert not (tmp_path / 'report').exists()
    assert main([*arguments, '--pixel-size', '5']) == 0
