"""STAR tables from records: order, conventions and which particle goes where."""

import dataclasses

import pytest
import starfile

from cryogem.dataset import exchange, tables
from cryogem.io.star import write_tables
from cryogem.records import Ctf, Micrograph, Particle

CTF = Ctf(12000, 11000, 30)
PARTICLES = (
    Particle(1, (10.5, 20.2), 30.0, 10, 20, 30, volume_index=1, random_subset=2),
    Particle(2, (-0.5, 5.0), 0.0, 1, 2, 3),                             # rounds to row 0: inside
    Particle(3, (-0.6, 5.0), 0.0, 1, 2, 3),                             # rounds to row -1: outside
    Particle(4, (63.49, 79.49), 0.0, 1, 2, 3),                          # the last pixel
    Particle(5, (63.5, 79.0), 0.0, 1, 2, 3),                            # one beyond
    Particle(6, (30.0, 30.0), 0.0, 1, 2, 3, visible_fraction=0.49),
    Particle(7, (30.0, 30.0), 0.0, 1, 2, 3, visible_fraction=0.5),
)


def make_record(name='a_00001', ctf=CTF, particles=PARTICLES):
    return Micrograph(index=0, name=name, shape=(64, 80), pixel_size=2.0, ctf=ctf, source=0, ice_flips=(False, False),
                      signal_scale=1.0, grey_mean=0.0, grey_sd=1.0, particles=particles)


def test_a_particle_is_listed_when_its_pixel_is_inside_and_half_of_it_is_visible():
    record = make_record()

    assert [one.instance_id for one in tables.select_particles(record)] == [1, 2, 4, 7]
    assert [one.instance_id for one in tables.select_particles(record, is_listed_pickable=False)] == [3, 5, 6]


def test_integer_coordinate_less_origin_is_the_centre():
    columns = tables.build_particles([make_record()], tables.number_optics([make_record()]))

    assert columns['rlnCoordinateX'] == [20, 5, 79, 30]
    assert columns['rlnCoordinateY'] == [11, 0, 63, 30]
    assert columns['rlnOriginXAngst'] == pytest.approx([-0.4, 0, -0.98, 0])
    assert columns['rlnOriginYAngst'] == pytest.approx([1.0, 1.0, -0.98, 0])


def test_the_defocus_of_a_particle_is_that_of_its_micrograph_plus_its_height():
    columns = tables.build_particles([make_record()], tables.number_optics([make_record()]))

    assert (columns['rlnDefocusU'][0], columns['rlnDefocusV'][0], columns['rlnDefocusAngle'][0]) == (12030, 11030, 30)
    assert columns['rlnDefocusU'][1] == 12000


def test_classes_count_from_one_and_images_follow_the_rows():
    records = [make_record(), make_record('a_00002')]
    columns = tables.build_particles(records, tables.number_optics(records))
    columns |= tables.name_images(8, 1, 'particles.mrcs')

    assert columns['rlnClassNumber'][:2] == [2, 1]
    assert columns['rlnRandomSubset'][:2] == [2, 1]
    assert columns['rlnImageName'] == [f'00000{i}@particles.mrcs' for i in range(1, 9)]
    assert columns['rlnMicrographName'] == ['micrographs/a_00001.mrc'] * 4 + ['micrographs/a_00002.mrc'] * 4


def test_each_setting_of_the_microscope_has_an_optics_group():
    other = dataclasses.replace(CTF, voltage=200.0)
    records = [make_record('a'), make_record('b', other), make_record('c')]
    groups = tables.number_optics(records)
    optics = tables.build_optics(groups, 2.0, image_size=32)

    assert optics['rlnOpticsGroup'] == [1, 2]
    assert optics['rlnVoltage'] == [300.0, 200.0]
    assert optics['rlnImageSize'] == [32, 32]
    assert tables.build_micrographs(records, groups)['rlnOpticsGroup'] == [1, 2, 1]
    assert tables.build_particles(records, groups)['rlnOpticsGroup'] == [1] * 4 + [2] * 4 + [1] * 4


def test_topaz_coordinates_are_tab_separated_integers_under_a_header():
    assert (exchange.TOPAZ_HEAD + exchange.format_topaz(make_record())).splitlines() == [
        'image_name\tx_coord\ty_coord', 'a_00001\t20\t11', 'a_00001\t5\t0', 'a_00001\t79\t63', 'a_00001\t30\t30']


def test_a_run_without_particles_has_tables_with_columns_and_no_rows(tmp_path):
    record = make_record(particles=())
    groups = tables.number_optics([record])
    write_tables(tmp_path / 'a.star', {'optics': tables.build_optics(groups, 2.0),
                                       'particles': tables.build_particles([record], groups)})
    text = (tmp_path / 'a.star').read_text()

    assert '_rlnAngleRot' in text
    assert '_rlnMicrographName' in text
    assert len(starfile.read(tmp_path / 'a.star', always_dict=True)['optics']) == 1
    assert exchange.format_topaz(record) == ''
