"""STAR tables read back by the programs of the field, and picks from STAR and CSV."""

import numpy as np
import pytest

from cryogem.errors import InputError, OutputError
from cryogem.io import star
from tests.messages import is_one_sentence

TABLES = {
    'optics': {'rlnOpticsGroupName': ['opticsGroup1'], 'rlnOpticsGroup': [1], 'rlnVoltage': [300.0],
               'rlnSphericalAberration': [2.7], 'rlnImagePixelSize': [5.36]},
    'particles': {'rlnMicrographName': ['micrographs/00001.mrc', 'micrographs/00002.mrc'],
                  'rlnCoordinateX': [10, 411], 'rlnCoordinateY': [0, 37],
                  'rlnAngleRot': [359.123456, 1e-7], 'rlnAngleTilt': [90.0, 179.999999],
                  'rlnDefocusU': [15800.25, 123456.789], 'rlnOpticsGroup': [1, 1]},
}


def test_tables_are_read_back_by_starfile(tmp_path):
    starfile = pytest.importorskip('starfile')
    star.write_tables(tmp_path / 'one.star', TABLES)

    found = starfile.read(tmp_path / 'one.star', always_dict=True)

    assert list(found) == list(TABLES)
    for block, columns in TABLES.items():
        assert list(found[block].columns) == list(columns)
        for name, values in columns.items():
            if isinstance(values[0], str):
                assert list(found[block][name]) == values
            else:
                np.testing.assert_allclose(found[block][name].to_numpy(float), values, atol=5.1e-7)


def test_tables_are_read_back_by_emtable(tmp_path):
    emtable = pytest.importorskip('emtable')
    star.write_tables(tmp_path / 'one.star', TABLES)

    with open(tmp_path / 'one.star') as file:
        assert list(emtable.Table.Reader(file, tableName='optics').getRow()) == ['opticsGroup1', 1, 300.0, 2.7, 5.36]
    table = emtable.Table(fileName=str(tmp_path / 'one.star'), tableName='particles')
    assert table.getColumnNames() == list(TABLES['particles'])
    assert [row.rlnMicrographName for row in table] == TABLES['particles']['rlnMicrographName']
    assert [row.rlnCoordinateX for row in table] == [10, 411]
    assert [row.rlnDefocusU for row in table] == pytest.approx(TABLES['particles']['rlnDefocusU'])


def test_our_reader_returns_what_our_writer_was_given(tmp_path):
    star.write_tables(tmp_path / 'one.star', TABLES)

    found = star.read_tables(tmp_path / 'one.star')

    assert list(found) == ['optics', 'particles']
    np.testing.assert_array_equal(found['particles']['rlnCoordinateY'], [0, 37])


def test_micrographs_with_numbers_for_names_keep_their_zeros(tmp_path):
    star.write_tables(tmp_path / 'one.star', {'micrographs': {'rlnMicrographName': ['0001', '0002'], 'rlnX': [1, 2]}})

    assert list(star.read_tables(tmp_path / 'one.star')['micrographs']['rlnMicrographName']) == ['0001', '0002']


def test_an_empty_table_keeps_its_columns(tmp_path):
    emtable = pytest.importorskip('emtable')
    star.write_tables(tmp_path / 'one.star', {'particles': {'rlnCoordinateX': [], 'rlnCoordinateY': []},
                                              'optics': TABLES['optics']})

    table = emtable.Table(fileName=str(tmp_path / 'one.star'), tableName='particles')
    assert (len(table), table.getColumnNames()) == (0, ['rlnCoordinateX', 'rlnCoordinateY'])
    assert star.read_coordinates(tmp_path / 'one.star').shape == (0, 2)


def test_equal_tables_give_equal_bytes(tmp_path):
    for name in ('a.star', 'b.star'):
        star.write_tables(tmp_path / name, TABLES)

    assert (tmp_path / 'a.star').read_bytes() == (tmp_path / 'b.star').read_bytes()
    assert b'starfile' not in (tmp_path / 'a.star').read_bytes()    # which stamps the time


def test_columns_of_unequal_length_write_nothing(tmp_path):
    with pytest.raises(ValueError, match='shorter'):
        star.write_tables(tmp_path / 'one.star', {'a': {'x': [1, 2], 'y': [1]}})

    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_error_of_the_output(tmp_path):
    with pytest.raises(OutputError) as caught:
        star.write_tables(tmp_path / 'missing' / 'one.star', TABLES)
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize('header', ['x,y', 'x_coord,y_coord', 'X-Coordinate,Y-Coordinate', 'image_name,x_coord,y_coord',
                                    'y,score,x'])
def test_picks_of_csv_files_come_in_y_x_order(tmp_path, header):
    names = header.split(',')
    values = [{'x': '10.5', 'y': '20'}, {'x': '3', 'y': '4.25'}]
    rows = [','.join(one.get(name[:1].lower(), 'm1') if name[:1].lower() in 'xy' else '0.9' for name in names)
            for one in values]
    (tmp_path / 'm1.csv').write_text('\n'.join([header, *rows]) + '\n')

    np.testing.assert_array_equal(star.read_coordinates(tmp_path / 'm1.csv'), [[20, 10.5], [4.25, 3]])


def test_picks_of_star_files_come_in_y_x_order(tmp_path):
    star.write_tables(tmp_path / 'm1.star', {'': {'rlnCoordinateX': [10.5, 3.0], 'rlnCoordinateY': [20.0, 4.25]}})

    np.testing.assert_array_equal(star.read_coordinates(tmp_path / 'm1.star'), [[20, 10.5], [4.25, 3]])


def test_one_pick_is_a_table_of_one_row(tmp_path):
    star.write_tables(tmp_path / 'm1.star', {'': {'rlnCoordinateX': [10.5], 'rlnCoordinateY': [20.0]}})
    (tmp_path / 'm1.csv').write_text('x,y\n10.5,20\n')

    for name in ('m1.star', 'm1.csv'):
        np.testing.assert_array_equal(star.read_coordinates(tmp_path / name), [[20, 10.5]])


def test_a_file_without_picks_holds_none(tmp_path):
    (tmp_path / 'm1.csv').write_text('x,y\n')

    assert star.read_coordinates(tmp_path / 'm1.csv').shape == (0, 2)


@pytest.mark.parametrize(('name', 'content', 'match'), [
    ('m1.csv', 'a,b\n1,2\n', 'no x and y columns'),
    ('m1.csv', '', 'no x and y columns'),
    ('m1.star', 'data_\n\nloop_\n_rlnDefocusU #1\n_rlnDefocusV #2\n1 2\n3 4\n', 'no x and y columns'),
    ('m1.csv', 'x,y\n1,two\n', 'no number.*two'),
    ('m1.csv', 'x,y\n1,2\n3\n', 'm1'),
    ('m1.csv', 'x,y\n1,nan\n', 'm1'),
    ('m1.csv', None, 'cannot be read'),
    ('m1.star', None, 'cannot be read'),
])
def test_unusable_picks_are_told_in_one_sentence(tmp_path, name, content, match):
    if content is not None:
        (tmp_path / name).write_text(content)

    with pytest.raises(InputError, match=match) as caught:
        star.read_coordinates(tmp_path / name)
    assert is_one_sentence(caught.value)
    assert 'm1' in str(caught.value)


def test_a_csv_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / 'm1.csv').write_bytes(b'\xff\xfe\x00\x81' * 20)

    with pytest.raises(InputError, match='cannot be read') as caught:
        star.read_coordinates(tmp_path / 'm1.csv')
    assert is_one_sentence(caught.value)


def test_a_table_written_part_by_part_equals_one_written_at_once(tmp_path):
    columns = {'rlnMicrographName': ['a', 'b', 'c'], 'rlnX': [1.0, 2.5, 3.0], 'rlnY': [1, 2, 3]}
    optics = {'rlnOpticsGroup': [1], 'rlnVoltage': [300.0]}
    star.write_tables(tmp_path / 'whole.star', {'optics': optics, 'particles': columns})
    with star.TableWriter(tmp_path / 'parts.star', 'particles') as table:
        table.append({name: values[:1] for name, values in columns.items()})
        table.append({name: values[1:] for name, values in columns.items()})
        table.preamble = {'optics': optics}

    assert (tmp_path / 'parts.star').read_bytes() == (tmp_path / 'whole.star').read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['parts.star', 'whole.star']


def test_a_table_that_is_not_finished_leaves_nothing(tmp_path):
    def write():
        with star.TableWriter(tmp_path / 'one.star', 'particles') as table:
            table.append({'rlnX': [1]})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert list(tmp_path.iterdir()) == []
