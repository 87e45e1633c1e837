"""Records: what is drawn for a micrograph survives the file, and its coordinates say where the particles are."""

import dataclasses
import json

import pytest

from cryogem.records import Ctf, Micrograph, Particle

CTF = Ctf(defocus_u=15200.0, defocus_v=14800.0, defocus_angle=37.5, phase_shift=12.0, b_factor=60.0)
PARTICLE = Particle(instance_id=3, center_yx=(20.25, 41.6), height=-85.0, rot=10.0, tilt=80.0, psi=-120.0,
                    volume_index=1, random_subset=2, visible_fraction=0.9, overlap_fraction=0.1)
MICROGRAPH = Micrograph(index=4, name='simulated_00005', shape=(64, 96), pixel_size=3.5, ctf=CTF, source=1,
                        ice_flips=(True, False), signal_scale=0.02, grey_mean=-1.5, grey_sd=7.0,
                        particles=(PARTICLE, dataclasses.replace(PARTICLE, instance_id=4)))


def test_a_micrograph_written_as_json_is_read_back_equal():
    assert Micrograph.from_json(json.loads(json.dumps(MICROGRAPH.to_json()))) == MICROGRAPH


def test_integer_coordinate_and_origin_reproduce_the_centre():
    x, y = PARTICLE.coordinate_xy
    origin_x, origin_y = PARTICLE.origin_xy

    assert (x, y) == (42, 20)
    assert (y - origin_y, x - origin_x) == pytest.approx(PARTICLE.center_yx)


def test_a_higher_particle_has_a_larger_underfocus_and_the_same_astigmatism():
    ctf = CTF.at_height(200.0)

    assert (ctf.defocus_u, ctf.defocus_v) == (15400.0, 15000.0)
    assert dataclasses.replace(ctf, defocus_u=CTF.defocus_u, defocus_v=CTF.defocus_v) == CTF


@pytest.mark.parametrize(('center_yx', 'visible_fraction', 'is_pickable'), [
    ((20.0, 40.0), 1.0, True),
    ((20.0, 40.0), 0.5, True),
    ((20.0, 40.0), 0.49, False),
    ((-0.4, 0.0), 0.6, True),               # rounds to row 0
    ((-0.6, 0.0), 0.6, False),
    ((63.4, 95.4), 0.6, True),
    ((63.6, 95.0), 0.6, False),             # rounds to row 64 of 64
    ((63.0, 95.6), 0.6, False),
])
def test_a_particle_is_pickable_when_its_coordinate_is_inside_and_half_of_it_visible(
        center_yx, visible_fraction, is_pickable):
    particle = dataclasses.replace(PARTICLE, center_yx=center_yx, visible_fraction=visible_fraction)

    assert MICROGRAPH.is_pickable(particle) is is_pickable


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PARTICLE.psi = 0.0
