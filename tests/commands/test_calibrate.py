"""`cryogem calibrate` and what the commands read: micrographs of every kind, picks, CTF tables."""

import json
import shutil

import mrcfile
import numpy as np
import pytest
import tifffile
from PIL import Image

from cryogem.__main__ import main
from cryogem.commands.inputs import read_ctfs
from cryogem.config import CalibrateConfig
from tests.commands.experiment import list_files


def calibrate(output, *arguments):
    """Run the command and return its calibration."""
    assert main(['calibrate', *map(str, arguments), '--output', str(output)]) == 0
    return json.loads((output / 'calibration.json').read_text())


def read_real(real_set):
    return [mrcfile.read(path) for path in sorted((real_set.folder / 'micrographs').iterdir())]


def test_the_folder_holds_calibration_config_and_report(calibrated, real_set):
    expected = ['calibration.json', 'config.json', 'calibration/report.html', 'calibration/curves.png',
                'calibration/micrographs.png', *(f'calibration/masks/{name}.png' for name in real_set.names)]
    assert list_files(calibrated) == sorted(expected)
    assert json.loads((calibrated / 'config.json').read_text())['command'] == 'calibrate'


def test_the_calibration_holds_what_was_put_into_the_micrographs(calibrated, real_set):
    values = json.loads((calibrated / 'calibration.json').read_text())

    assert (values['pixel_size'], values['shape'], values['particle_diameter']) == (5, [256, 288], 120)
    assert [one['name'] for one in values['micrographs']] == real_set.names
    assert [one['n_picks'] for one in values['micrographs']] == [13, 14, 15]
    # picks keep clear of the border: 14 lie on 216 x 248 px, of which the inner 232 x 264 px are counted
    assert values['particles_per_frame'][0] == pytest.approx(14 * 256 * 288 / (232 * 264), rel=0.02)
    for one, image in zip(values['micrographs'], read_real(real_set), strict=True):
        assert one['grey_mean'] == pytest.approx(np.median(image), abs=2)
        assert one['grey_sd'] == pytest.approx(image.std(), rel=0.1)
    assert values['neighbour_distances'][0] >= 30 * 5
    assert values['signal_scale'] is None


def test_the_ctfs_of_the_table_arrive_at_their_micrographs(calibrated):
    values = json.loads((calibrated / 'calibration.json').read_text())
    found = [(one['ctf']['defocus_u'], one['ctf']['defocus_v'], one['ctf']['defocus_angle'])
             for one in values['micrographs']]

    assert found == [(15000, 14600, 30), (17000, 16500, 80), (19500, 18800, 140)]


def test_without_a_table_the_ctfs_are_estimated_and_logged(real_set, tmp_path, capsys):
    values = calibrate(tmp_path / 'out', '--micrographs', real_set.micrographs, '--particle-diameter', '120')

    for one, expected in zip(values['micrographs'], (14800, 16750, 19150), strict=True):
        assert (one['ctf']['defocus_u'] + one['ctf']['defocus_v']) / 2 == pytest.approx(expected, rel=0.02)
    lines = [line for line in capsys.readouterr().out.splitlines() if ': defocus ' in line]
    assert [line.split(':')[0] for line in lines] == real_set.names


def test_the_diameter_is_estimated_from_the_picks_when_nothing_says_it(real_set, tmp_path):
    values = calibrate(tmp_path / 'out', '--micrographs', real_set.micrographs, '--coordinates', real_set.coordinates,
                       '--ctfs', real_set.ctfs)

    assert 150 <= values['particle_diameter'] <= 200                    # picks keep at least 150 Å


def test_micrographs_are_binned_until_the_particle_is_at_most_100_px(real_set, tmp_path):
    values = calibrate(tmp_path / 'out', '--micrographs', real_set.micrographs, '--pixel-size', '0.8',
                       '--ctfs', real_set.ctfs, '--particle-diameter', '90')

    assert values['pixel_size'] == pytest.approx(1.6)
    assert values['shape'] == [128, 144]


@pytest.mark.parametrize('kind', ['int16', 'uint16', 'int8', 'float16', 'tif', 'png', 'mrcs'])
def test_micrographs_of_every_kind_give_the_same_calibration(kind, real_set, calibrated, tmp_path):
    for path in sorted((real_set.folder / 'micrographs').iterdir()):
        image = np.clip(mrcfile.read(path), 0, 255)
        if kind == 'tif':
            tifffile.imwrite(tmp_path / f'{path.stem}.tif', image.astype(np.uint16))
        elif kind == 'png':
            Image.fromarray(image.round().astype(np.uint8)).save(tmp_path / f'{path.stem}.png')
        elif kind == 'mrcs':
            with mrcfile.new(tmp_path / f'{path.stem}.mrcs') as file:
                file.set_data(image[None])
        else:
            with mrcfile.new(tmp_path / f'{path.stem}.mrc') as file:
                file.set_data((image - (120 if kind == 'int8' else 0)).astype(kind))
    values = calibrate(tmp_path / 'out', '--micrographs', tmp_path / 'mic_*', '--coordinates', real_set.coordinates,
                       '--ctfs', real_set.ctfs, '--pixel-size', '5', '--particle-diameter', '120')
    expected = json.loads((calibrated / 'calibration.json').read_text())

    assert values['particles_per_frame'] == expected['particles_per_frame']
    shift = 120 if kind == 'int8' else 0
    for one, other in zip(values['micrographs'], expected['micrographs'], strict=True):
        assert one['grey_mean'] + shift == pytest.approx(other['grey_mean'], abs=1)
        np.testing.assert_allclose(one['background_power'][2:], other['background_power'][2:], rtol=0.05,
                                   atol=0.01)


def test_dead_edges_empty_frames_and_grey_levels_are_reported(real_set, tmp_path):
    for path in (real_set.folder / 'micrographs').iterdir():
        image = mrcfile.read(path).round().copy()
        image[:5] = 0
        with mrcfile.new(tmp_path / path.name) as file:
            file.set_data(image.astype(np.int16))
    values = calibrate(tmp_path / 'out', '--micrographs', tmp_path / '*.mrc', '--coordinates',
                       real_set.folder / 'coordinates' / 'mic_2.star', '--ctfs', real_set.ctfs, '--pixel-size', '5',
                       '--particle-diameter', '120')

    assert all(one['defects']['dead_rows'] == 5 for one in values['micrographs'])
    assert all(50 < one['defects']['n_levels'] < 256 for one in values['micrographs'])
    assert values['summary']['empty_share'] == pytest.approx(2 / 3)
    assert values['summary']['dead_rows']['mean'] == 5
    assert values['summary']['grey_sd']['mean'] == pytest.approx(15, rel=0.4)


def test_files_beyond_the_working_nyquist_frequency_are_measured_at_their_own_pixel_size(real_set, tmp_path):
    values = calibrate(tmp_path / 'out', '--micrographs', real_set.micrographs, '--pixel-size', '2.5',
                       '--working-pixel-size', '5', '--ctfs', real_set.ctfs, '--particle-diameter', '60')
    image, power = read_real(real_set)[0], np.array(values['original_power'])

    assert (values['pixel_size'], values['original_pixel_size']) == (5, 2.5)
    # the upper half of the spectrum is what binning threw away; its level is that of the differences of pixels
    window = np.hanning(256)
    spectrum = np.abs(np.fft.rfft2((image[:, :256] - image.mean()) * np.outer(window, window))) ** 2
    radius = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256))
    level = spectrum[(radius > 0.3) & (radius < 0.5)].mean() / (np.outer(window, window) ** 2).sum()
    sd = values['micrographs'][0]['grey_sd']
    assert power[80:127].mean() == pytest.approx(level / sd ** 2, rel=0.25)


def test_shifted_coordinates_are_told_by_how_much(real_set, tmp_path, capsys):
    for name, centers in real_set.centers_yx.items():
        rows = ''.join(f'{x - 6:.2f},{y + 3:.2f}\n' for y, x in centers)
        (tmp_path / f'{name}.csv').write_text(f'x,y\n{rows}')
    values = calibrate(tmp_path / 'out', '--micrographs', real_set.micrographs, '--coordinates', tmp_path / '*.csv',
                       '--ctfs', real_set.ctfs, '--particle-diameter', '120')

    assert 'WARNING: coordinates miss the middle of the particles' in capsys.readouterr().out
    y, x = values['picks']['shift_yx']
    assert (y, x) == pytest.approx((-3, 6), abs=1.5)


@pytest.mark.parametrize('form', ['x,y', 'x_coord,y_coord', 'X-Coordinate,Y-Coordinate'])
def test_picks_can_be_csv(form, real_set, calibrated, tmp_path):
    for name, centers in real_set.centers_yx.items():
        rows = ''.join(f'{x:.2f},{y:.2f}\n' for y, x in centers)
        (tmp_path / f'{name}.csv').write_text(f'{form}\n{rows}')
    values = calibrate(tmp_path / 'out', '--micrographs', real_set.micrographs, '--coordinates', tmp_path / '*.csv',
                       '--ctfs', real_set.ctfs, '--particle-diameter', '120')

    assert values == json.loads((calibrated / 'calibration.json').read_text())


def test_micrographs_without_picks_count_as_empty_and_a_warning_says_so(real_set, tmp_path, capsys):
    shutil.copy(real_set.folder / 'coordinates' / 'mic_2.star', tmp_path / 'mic_2.star')
    values = calibrate(tmp_path / 'out', '--micrographs', real_set.micrographs, '--coordinates', tmp_path / '*.star',
                       '--ctfs', real_set.ctfs, '--particle-diameter', '120')

    assert [one['n_picks'] for one in values['micrographs']] == [0, 14, 0]
    assert 'WARNING: 2 of 3 micrographs have no coordinates' in capsys.readouterr().out


def test_bright_particles_are_noticed_at_the_picks(real_set, tmp_path, capsys):
    for path in (real_set.folder / 'micrographs').iterdir():
        with mrcfile.new(tmp_path / path.name) as file:
            file.set_data(-mrcfile.read(path))
    values = calibrate(tmp_path / 'out', '--micrographs', tmp_path / '*.mrc', '--coordinates', real_set.coordinates,
                       '--ctfs', real_set.ctfs, '--pixel-size', '5', '--particle-diameter', '120')

    assert all(one['grey_sd'] < 0 for one in values['micrographs'])
    assert 'WARNING: picked particles are bright' in capsys.readouterr().out


def test_one_hot_pixel_and_a_dead_edge_do_not_rescale_a_micrograph(real_set, calibrated, tmp_path):
    for path in (real_set.folder / 'micrographs').iterdir():
        image = mrcfile.read(path).copy()
        image[100, 100], image[:4] = 1e6, 0
        with mrcfile.new(tmp_path / path.name) as file:
            file.set_data(image)
    values = calibrate(tmp_path / 'out', '--micrographs', tmp_path / '*.mrc', '--coordinates', real_set.coordinates,
                       '--ctfs', real_set.ctfs, '--pixel-size', '5', '--particle-diameter', '120')

    for one, other in zip(values['micrographs'], json.loads((calibrated / 'calibration.json').read_text())[
            'micrographs'], strict=True):
        assert one['grey_mean'] == pytest.approx(other['grey_mean'], abs=0.5)
        assert one['grey_sd'] == pytest.approx(other['grey_sd'], rel=0.03)


def write_table(path, optics, columns, row):
    heads = ''.join(f'_{one}\n' for one in columns.split())
    path.write_text(f'{optics}\ndata_micrographs\n\nloop_\n{heads}{row}\n')
    return path


CONFIG = CalibrateConfig(output='x', micrographs=('x',), voltage=200.0, spherical_aberration=1.4,
                         amplitude_contrast=0.07)
OPTICS = ('data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n'
          '1 300 2.7 0.1\n2 120 2.0 0.2\n')


def test_the_microscope_comes_from_the_optics_group_of_the_micrograph(tmp_path):
    path = write_table(tmp_path / 'a.star', OPTICS, 'rlnMicrographName rlnOpticsGroup rlnDefocusU rlnDefocusV '
                       'rlnDefocusAngle rlnPhaseShift', 'job/m.mrc 2 12000 11000 35 90')
    ctf = read_ctfs(path, ['m'], CONFIG)['m']

    assert (ctf.voltage, ctf.spherical_aberration, ctf.amplitude_contrast) == (120, 2.0, 0.2)
    assert (ctf.defocus_u, ctf.defocus_v, ctf.defocus_angle, ctf.phase_shift) == (12000, 11000, 35, 90)


def test_the_microscope_comes_from_the_settings_where_the_table_is_silent(tmp_path):
    path = write_table(tmp_path / 'a.star', '', 'rlnMicrographName rlnDefocusU', 'm.mrc 12000')
    ctf = read_ctfs(path, ['m'], CONFIG)['m']

    assert (ctf.voltage, ctf.spherical_aberration, ctf.amplitude_contrast) == (200, 1.4, 0.07)
    assert (ctf.defocus_u, ctf.defocus_v) == (12000, 12000)


def test_a_defocus_u_below_v_is_turned_round_with_its_angle(tmp_path):
    path = write_table(tmp_path / 'a.star', '', 'rlnMicrographName rlnDefocusU rlnDefocusV rlnDefocusAngle',
                       'm.mrc 11000 12000 120')
    ctf = read_ctfs(path, ['m'], CONFIG)['m']

    assert (ctf.defocus_u, ctf.defocus_v, ctf.defocus_angle) == (12000, 11000, 30)
