"""Every input that cannot be used ends in one line that names the setting, before anything is written."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cryogem.__main__ import main
from cryogem.specimen.placement import place_particles


@pytest.mark.parametrize(('flag', 'key'), [('--micrographs', 'micrographs'), ('--coordinates', 'coordinates')])
def test_a_pattern_that_matches_nothing_is_named(flag, key, case, refuse):
    case.put(flag, 'none/*.mrc')

    assert refuse() == f"{key} 'none/*.mrc' matches no file; check the path and quote the pattern"


def test_one_of_several_patterns_that_matches_nothing_is_named(case, refuse, real_set):
    case.put('--micrographs', real_set.micrographs, 'none/*.mrc')

    assert refuse().startswith("micrographs 'none/*.mrc' matches no file")


def test_two_micrographs_of_one_name_are_refused(case, refuse, real_set):
    shutil.copy(real_set.folder / 'micrographs' / 'mic_1.mrc', case.folder / 'mic_1.mrc')
    case.put('--micrographs', real_set.micrographs, case.folder / '*.mrc')

    message = refuse()
    assert message.startswith("micrographs '")
    assert message.endswith('have the same name; rename one of them')


def test_coordinates_that_are_named_differently_are_refused(case, refuse):
    case.write_text('other.csv', 'x,y\n50,50\n')
    case.put('--coordinates', case.folder / '*.csv')

    message = refuse()
    assert message.startswith(f"coordinates '{case.folder / 'other.csv'}' and the others are not named like any")
    assert "'mic_1'" in message


def test_coordinates_outside_the_frame_are_refused(case, refuse):
    case.write_text('mic_2.csv', 'x,y\n' + ''.join(f'{20 * i},{600 + i}\n' for i in range(12)))
    case.put('--coordinates', case.folder / '*.csv')

    assert refuse() == ("coordinates of micrograph 'mic_2' lie outside its 288 x 256 px (12 of 12); "
                        'give them in pixels of that file')


def test_coordinates_with_x_and_y_exchanged_are_noticed_when_they_leave_the_frame(case, refuse):
    case.write_text('mic_2.csv', 'y,x\n' + ''.join(f'{262 + i},{20 * i}\n' for i in range(12)))
    case.put('--coordinates', case.folder / '*.csv')

    assert refuse().startswith("coordinates of micrograph 'mic_2' lie outside its 288 x 256 px (12 of 12)")


@pytest.mark.parametrize(('name', 'text', 'part'), [
    ('mic_1.csv', 'column,row\n1,2\n', 'have no x and y columns'),
    ('mic_1.csv', 'x,y\n1,two\n', 'hold a value that is no number'),
    ('mic_1.csv', '', 'have no x and y columns'),
    ('mic_1.star', 'data_\n\nloop_\n_rlnVoltage #1\n300\n', 'have no x and y columns'),
    ('mic_1.star', 'nothing of the kind', 'have no x and y columns'),
    ('mic_1.csv', 'x,y\n5\n', 'have no number in pick 1'),
    ('mic_1.csv', 'x,y\n7,8\nnan,5\n', 'have no number in pick 2'),
])
def test_coordinates_that_cannot_be_read_are_named(name, text, part, case, refuse):
    path = case.write_text(name, text)
    case.put('--coordinates', path)

    message = refuse()
    assert message.startswith('coordinates ')
    assert part in message


def test_a_ctf_table_without_one_of_the_micrographs_is_refused(case, refuse, real_set):
    lines = [line for line in Path(real_set.ctfs).read_text().splitlines() if 'mic_3' not in line]
    case.put('--ctfs', case.write_text('ctfs.star', '\n'.join(lines) + '\n'))

    assert refuse() == (f"ctfs '{case.folder / 'ctfs.star'}' has no row for micrograph 'mic_3' (1 of 3 are missing); "
                        'give the table of the same micrographs')


@pytest.mark.parametrize('text', ['data_\n\nloop_\n_rlnMicrographName #1\nmic_1.mrc\n', 'not a table'])
def test_a_table_without_defocus_is_no_ctf_table(text, case, refuse):
    case.put('--ctfs', case.write_text('ctfs.star', text))

    path = case.folder / 'ctfs.star'
    assert refuse().startswith(f"ctfs '{path}' has no table with rlnMicrographName and rlnDefocusU")


def test_a_missing_ctf_table_is_named(case, refuse):
    case.put('--ctfs', case.folder / 'none.star')

    assert f"'{case.folder / 'none.star'}' cannot be read" in refuse()


def test_a_ctf_that_is_no_number_is_refused(case, refuse, real_set):
    text = Path(real_set.ctfs).read_text().replace('17000.0', 'deep')
    case.put('--ctfs', case.write_text('ctfs.star', text))

    assert refuse().startswith(f"ctfs '{case.folder / 'ctfs.star'}' hold a value that is no number")


def test_micrographs_of_different_pixel_sizes_are_refused(case, refuse):
    case.write_micrograph('a.mrc')
    case.write_micrograph('b.mrc', pixel_size=2.5)
    case.put('--micrographs', case.folder / '*.mrc').put('--coordinates').put('--ctfs')

    assert refuse() == (f"micrographs differ in pixel size: '{case.folder / 'b.mrc'}' has 2.5 Å/px, the first one 5; "
                        'run sets of one pixel size apart')


@pytest.mark.parametrize('header', [None, 1.0])
def test_micrographs_without_a_pixel_size_in_the_header_need_it_said(header, case, refuse):
    path = case.write_micrograph('a.mrc', pixel_size=header)
    case.put('--micrographs', path).put('--coordinates').put('--ctfs')

    message = refuse()
    assert message.startswith(f"pixel_size is missing: micrograph '{path}' has ")
    assert message.endswith('give the pixel size in Å/px')


def test_a_map_without_a_pixel_size_is_named(case, refuse, real_set):
    path = case.write_map('map.mrc', real_set.phantom.render(40, 4.0), pixel_size=None)
    case.put('--volume', path)

    assert refuse().startswith(f"volume_pixel_size is missing: volume '{path}' has ")


def test_micrographs_smaller_than_two_particles_are_refused(case, refuse):
    case.put('--micrographs', case.write_micrograph('a.mrc', shape=(40, 300))).put('--coordinates').put('--ctfs')

    message = refuse()
    assert message.startswith("micrograph 'a' is 200 Å wide and a particle ")
    assert 'check pixel_size' in message


def test_a_map_larger_than_the_micrographs_is_refused(case, refuse, real_set, calibrated):
    path = case.write_map('map.mrc', real_set.phantom.render(40, 4.0), pixel_size=40.0)
    case.put('--volume', path).put('--calibration', calibrated)

    message = refuse()
    assert message.startswith('micrographs are 1280 Å wide and the map holds a particle of ')
    assert message.endswith('check the pixel sizes of both')


def test_pixel_sizes_more_than_ten_times_apart_are_refused(case, refuse, real_set):
    path = case.write_map('map.mrc', real_set.phantom.render(40, 4.0), pixel_size=0.4)
    case.put('--volume', path)

    message = refuse()
    assert message.startswith('volume holds a particle of ')
    assert message.endswith(' px of micrographs at 5 Å/px; check the pixel sizes of both')


def test_a_map_that_is_cut_at_the_walls_of_its_box_is_warned_of(case, real_set, caplog):
    path = case.write_map('map.mrc', real_set.phantom.render(24, 4.0))
    case.put('--volume', path)

    assert main(case.arguments) == 0
    assert 'is cut at the walls of its box of 96 Å; give the map in a larger box' in caplog.text


@pytest.mark.parametrize('group', ['C0', 'X7', 'D', 'Th'])
def test_an_unknown_symmetry_is_refused(group, case, refuse):
    case.put('--symmetry', group)

    message = refuse()
    assert message.startswith(f"symmetry cannot be '{group}'")


@pytest.mark.parametrize(('weights', 'shown'), [((-1, 1), '-1, 1'), ((0, 0), '0, 0'), ((1, -0.5), '1, -0.5'),
                                                (('nan', 1), 'nan, 1')])
def test_weights_that_are_no_shares_are_refused(weights, shown, case, refuse, real_set):
    case.put('--volume', *(f'{real_set.map}:{one}' for one in weights))

    assert refuse() == f'volume has weights {shown}; give weights of zero or more, not all zero'


@pytest.mark.filterwarnings('ignore::RuntimeWarning')               # mrcfile's, when such a file is written
@pytest.mark.parametrize(('change', 'part'), [
    (lambda density: density[:, :30], 'has shape (40, 30, 40); pad or crop it to a cube'),
    (lambda density: density[0], 'has shape (40, 40); pad or crop it to a cube'),
    (lambda density: np.full_like(density, 2), 'is constant (2); give a map that holds a particle'),
    (np.zeros_like, 'is constant (0); give a map that holds a particle'),
    (lambda density: np.where(density > 1, np.nan, density), 'holds values that are not finite; repair the map'),
    (lambda density: np.where(density > 1, np.inf, density), 'holds values that are not finite; repair the map'),
])
def test_a_map_that_holds_no_particle_is_refused(change, part, case, refuse, real_set):
    path = case.write_map('bad.mrc', change(real_set.phantom.render(40, 4.0)))
    case.put('--volume', path)

    assert refuse() == f"volume '{path}' {part}"


@pytest.mark.parametrize(('text', 'part'), [(None, 'cannot be read'), ('no MRC file', 'is not a valid MRC file')])
def test_a_map_that_cannot_be_read_is_named(text, part, case, refuse):
    path = case.folder / 'map.mrc'
    if text:
        path.write_text(text * 200)
    case.put('--volume', path)

    message = refuse()
    assert message.startswith(f"volume '{path}' {part}")


def test_a_mask_threshold_above_the_map_is_refused(case, refuse):
    case.put('--mask-threshold', '1e6')

    assert refuse() == 'mask_threshold leaves no voxel of the volume as particle; give another density'


def test_an_inverted_map_is_refused(case, refuse, real_set):
    path = case.write_map('dark.mrc', -real_set.phantom.render(40, 4.0))
    case.put('--volume', path)

    assert 'check that protein is bright in the map' in refuse()


def test_without_picks_the_number_of_particles_must_be_said(case, refuse):
    case.put('--coordinates')

    assert refuse() == ('particles_per_micrograph is missing and there are no picks to count; '
                        'give coordinates of the real micrographs, or MEAN:SD')


def test_without_picks_the_signal_must_be_said(case, refuse):
    case.put('--coordinates').put('--particles-per-micrograph', '10:2')

    assert refuse().startswith('signal_to_noise is missing and there are no picks to measure it')


def test_without_picks_and_diameter_nothing_can_be_calibrated(real_set, tmp_path, fail):
    message = fail(['calibrate', '--micrographs', real_set.micrographs, '--ctfs', real_set.ctfs, '--output',
                    str(tmp_path / 'out')])

    assert message == ('particle_diameter is missing and 0 picks are too few to find it; give the diameter in Å')
    assert not (tmp_path / 'out').exists()


def test_picks_that_sit_beside_the_particles_are_refused(case, refuse, real_set):
    rng = np.random.default_rng(0)
    for name, centers in real_set.centers_yx.items():
        darts = place_particles((256, 288), 40, (24.0,), 0, rng)
        away = [dart for dart in darts if np.hypot(*(centers - dart).T).min() > 26 and min(dart) > 20 and
                dart[0] < 236 and dart[1] < 268]
        case.write_text(f'{name}.csv', 'x,y\n' + ''.join(f'{x},{y}\n' for y, x in away))
    case.put('--coordinates', case.folder / '*.csv').put('--particles-per-micrograph', '10:2')

    assert refuse().startswith('coordinates do not sit on particles')


@pytest.mark.filterwarnings('ignore::RuntimeWarning')               # mrcfile's, when such a file is written
@pytest.mark.parametrize(('value', 'part'), [
    (np.nan, 'holds values that are not finite'), (np.inf, 'holds values that are not finite')])
def test_a_micrograph_that_is_not_finite_is_named(value, part, case, refuse):
    path = case.write_micrograph('a.mrc', value=value)
    case.put('--micrographs', path).put('--coordinates').put('--ctfs')

    assert refuse().startswith(f"micrograph '{path}' {part}")


@pytest.mark.parametrize(('data', 'part'), [
    (np.zeros((3, 64, 64), np.float32), 'has shape (3, 64, 64); give files that hold one grey image each')])
def test_a_stack_is_no_micrograph(data, part, case, refuse):
    path = case.write('a.mrc', data, 5.0)
    case.put('--micrographs', path).put('--coordinates').put('--ctfs')

    assert refuse() == f"micrograph '{path}' {part}"


def test_a_constant_micrograph_is_refused(case, refuse):
    path = case.write_micrograph('a.mrc', value=7.0)
    case.put('--micrographs', path).put('--coordinates').put('--ctfs')

    assert refuse() == f"micrograph '{path}' is constant (7); leave it out"


def test_a_damaged_micrograph_is_named(case, refuse, real_set):
    source = real_set.folder / 'micrographs' / 'mic_1.mrc'
    path = case.folder / 'mic_1.mrc'
    path.write_bytes(source.read_bytes()[:5000])
    case.put('--micrographs', path).put('--coordinates').put('--ctfs')

    assert refuse().startswith(f"micrograph '{path}' is not a valid MRC file")


def test_a_calibration_that_is_not_there_or_damaged_is_named(case, refuse):
    case.put('--calibration', case.folder / 'none')
    assert refuse().startswith(f"calibration '{case.folder / 'none'}' has no readable calibration.json")

    (case.folder / 'none').mkdir()
    case.write_text('none/calibration.json', '{')
    assert refuse().startswith(f"calibration '{case.folder / 'none' / 'calibration.json'}' is damaged")
