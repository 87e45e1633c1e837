"""Records are drawn by index alone, and pictures show what the record says."""

import dataclasses
import json

import numpy as np
import pytest

from cryogem.conventions import euler_to_matrix
from cryogem.imaging.calibration import MicrographCalibration
from cryogem.imaging.ctf import image_specimen
from cryogem.imaging.exposure import add_ice, draw_record, expose, expose_particles, spawn_generator
from cryogem.imaging.ice import render_ice
from cryogem.records import Ctf, Micrograph, Particle
from cryogem.specimen.micrograph import paint
from tests.imaging.synthetic import CTF, ICE, PIXEL_SIZE, SHAPE, make_calibration, make_protocol
from tests.phantom import make_chiral_phantom, relative_error

CLEAR = Ctf(1.0, 1.0, 0.0, 300.0, 0.0, 0.0, phase_shift=90.0)       # transfers everything as it is


def make_record(particles: tuple[Particle, ...], ctf: Ctf, **more) -> Micrograph:
    plain = Micrograph(
        index=0, name='made_00001', shape=SHAPE, pixel_size=PIXEL_SIZE, ctf=ctf, source=0, ice_flips=(False, False),
        signal_scale=1.0, grey_mean=0.0, grey_sd=1.0, particles=particles)
    return dataclasses.replace(plain, **more)


def test_a_record_depends_on_its_index_alone_not_on_what_was_drawn_before(ensemble):
    protocol, calibration = make_protocol(sd=5), make_calibration(1.0)
    in_order = [draw_record(protocol, calibration, ensemble, index) for index in range(4)]

    for index in (3, 0, 2):
        spawn_generator(protocol.seed, index, purpose=1).normal(size=10)
        assert draw_record(protocol, calibration, ensemble, index) == in_order[index]


def test_no_two_micrographs_and_no_two_seeds_are_alike(ensemble):
    calibration = make_calibration(1.0)
    records = [draw_record(make_protocol(seed), calibration, ensemble, index) for seed in (0, 1) for index in (0, 1, 2)]

    first_centers = {one.particles[0].center_yx for one in records}
    first_angles = {one.particles[0].rot for one in records}
    assert len(first_centers) == len(first_angles) == len({one.ctf for one in records}) == len(records)


def test_streams_of_record_and_noise_differ():
    first, second = (spawn_generator(0, 5, purpose).normal(size=100) for purpose in (0, 1))

    assert abs(np.corrcoef(first, second)[0, 1]) < 0.3
    assert not np.array_equal(first, spawn_generator(0, 6, 0).normal(size=100))
    assert not np.array_equal(first, spawn_generator(1, 5, 0).normal(size=100))


@pytest.mark.parametrize(('prefix', 'index', 'name'), [
    ('simulated', 0, 'simulated_00001'), ('generated', 11, 'generated_00012'), ('x', 99999, 'x_100000')])
def test_names_count_from_one_with_five_digits(ensemble, prefix, index, name):
    record = draw_record(make_protocol(prefix=prefix, count=2), make_calibration(1.0), ensemble, index)

    assert (record.name, record.index) == (name, index)


def test_a_record_survives_json(ensemble):
    record = draw_record(make_protocol(), make_calibration(1.0), ensemble, 2)

    assert Micrograph.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_record_takes_grey_scale_signal_and_source_from_the_calibration(ensemble):
    plain = make_calibration(0.3, ctfs=(CTF, CTF))
    micrographs = tuple(dataclasses.replace(one, grey_mean=100.0 * (i + 1), grey_sd=10.0 * (i + 1))
                        for i, one in enumerate(plain.micrographs))
    calibration = dataclasses.replace(plain, micrographs=micrographs)

    records = [draw_record(make_protocol(count=3), calibration, ensemble, index) for index in range(20)]

    assert {one.source for one in records} == {0, 1}
    assert {one.ice_flips for one in records} == {(a, b) for a in (False, True) for b in (False, True)}
    for one in records:
        factor = one.source + 1
        assert (one.grey_mean, one.grey_sd, one.signal_scale) == (100.0 * factor, 10.0 * factor, 0.3)
        assert (one.shape, one.pixel_size) == (SHAPE, PIXEL_SIZE)


def test_measured_ctfs_are_drawn_with_a_small_jitter(ensemble):
    protocol, calibration = make_protocol(count=1), make_calibration(1.0)

    factors = [draw_record(protocol, calibration, ensemble, i).ctf.defocus_u / CTF.defocus_u for i in range(30)]

    assert 0.97 < min(factors) < 0.995 < 1.005 < max(factors) < 1.03


def test_a_micrograph_without_ctf_takes_one_of_the_others(ensemble):
    calibration = make_calibration(1.0, ctfs=(None, CTF))

    for index in range(10):
        ctf = draw_record(make_protocol(count=1), calibration, ensemble, index).ctf
        assert ctf.defocus_u == pytest.approx(CTF.defocus_u, rel=0.021)
        assert ctf.defocus_angle == CTF.defocus_angle


def test_without_any_ctf_defocus_covers_the_range(ensemble):
    protocol, calibration = make_protocol(count=1, voltage=200.0), make_calibration(1.0, ctfs=(None,))
    ctfs = [draw_record(protocol, calibration, ensemble, index).ctf for index in range(60)]

    means = np.array([(one.defocus_u + one.defocus_v) / 2 for one in ctfs])
    assert all(one.defocus_u >= one.defocus_v for one in ctfs)
    assert all(one.voltage == 200 for one in ctfs)
    assert means.min() >= 10000
    assert means.max() <= 20000
    assert means.mean() == pytest.approx(15000, abs=1200)


def test_particles_lie_inside_the_ice_in_all_subsets_and_keep_their_distance(ensemble):
    protocol = make_protocol(count=60, distance=100.0, ice_thickness=400.0)
    record = draw_record(protocol, make_calibration(1.0), ensemble, 0)

    heights = np.array([one.height for one in record.particles])
    assert np.abs(heights).max() <= (400 - ensemble.diameter) / 2
    assert heights.std() > 0.2 * (400 - ensemble.diameter)
    assert {one.random_subset for one in record.particles} == {1, 2}
    assert [one.instance_id for one in record.particles] == list(range(1, len(record.particles) + 1))
    centers = np.array([one.center_yx for one in record.particles]) * PIXEL_SIZE
    distances = np.linalg.norm(centers[:, None] - centers[None], axis=-1) + 1e9 * np.eye(len(centers))
    assert distances.min() >= 100


def test_ice_thinner_than_the_particle_holds_one_layer(ensemble):
    record = draw_record(make_protocol(ice_thickness=50.0), make_calibration(1.0), ensemble, 0)

    assert {one.height for one in record.particles} == {0.0}


def test_a_picture_shows_each_particle_dark_at_its_centre_in_its_pose(ensemble, record):
    record = dataclasses.replace(record, ctf=CLEAR, signal_scale=2.0)

    exposure = expose(record, ensemble)

    expected = np.zeros(SHAPE)
    side = 2 * max(SHAPE) + 200
    for one in record.particles:
        whole = np.floor(np.array(one.center_yx) + 0.5).astype(int)
        rest = np.array(one.center_yx) - whole
        image = make_chiral_phantom().project(
            side, PIXEL_SIZE, euler_to_matrix(np.array([one.rot, one.tilt, one.psi])), tuple(rest))
        y, x = side // 2 - whole
        expected -= 2 * image[y:y + SHAPE[0], x:x + SHAPE[1]]
    assert exposure.clean.dtype == np.float32
    assert relative_error(exposure.clean, expected) < 0.03


def test_all_that_is_seen_is_in_the_record_with_its_fractions(ensemble):
    record = draw_record(make_protocol(count=40), make_calibration(1.0), ensemble, 1)

    exposure = expose(record, ensemble)

    seen = exposure.record.particles
    assert {one.instance_id for one in seen} == set(np.unique(exposure.instance_mask)) - {0}
    assert all(one.visible_fraction > 0 for one in seen)
    assert any(one.visible_fraction < 1 for one in seen)            # some are cut by the border
    for one in seen:
        if exposure.record.is_pickable(one) and one.overlap_fraction == 0:
            x, y = one.coordinate_xy
            assert one.instance_id in exposure.instance_mask[max(0, y - 6):y + 7, max(0, x - 6):x + 7]
    rest = {field.name for field in dataclasses.fields(record)} - {'particles'}
    assert all(getattr(exposure.record, name) == getattr(record, name) for name in rest)


def test_equal_records_give_equal_pixels(ensemble, record):
    first, second = expose(record, ensemble), expose(record, ensemble)

    np.testing.assert_array_equal(first.clean, second.clean)
    np.testing.assert_array_equal(first.instance_mask, second.instance_mask)


def test_a_micrograph_without_particles_is_empty(ensemble):
    exposure = expose(make_record((), CTF), ensemble)

    assert not exposure.clean.any()
    assert exposure.clean.shape == SHAPE
    assert exposure.record.particles == ()


def test_ice_is_added_as_the_record_flips_it(ensemble, record):
    clean = np.ones(SHAPE, np.float32)
    for flips in ((False, False), (True, False)):
        flipped = dataclasses.replace(record, ice_flips=flips)
        np.testing.assert_allclose(add_ice(clean, flipped, make_calibration(1.0)) - 1,
                                   render_ice(ICE, SHAPE, flips), atol=1e-6)


@pytest.mark.parametrize('center', [(100.0, 150.0), (100.3, 150.0), (99.6, 150.45), (20.25, 299.75)])
@pytest.mark.parametrize('box_size', [48, 64])
def test_the_integer_coordinate_of_a_particle_is_at_half_the_box(ensemble, center, box_size):
    particle = Particle(1, center, 0.0, 25.0, 60.0, -40.0)
    record = make_record((particle,), CLEAR)

    (image,) = expose_particles(record, (particle,), ensemble, box_size)

    y, x = np.mgrid[:box_size, :box_size]
    centroid = np.array([(x * image).sum(), (y * image).sum()]) / image.sum()
    offset = (euler_to_matrix(np.array([25.0, 60.0, -40.0])) @ make_chiral_phantom().centroid())[:2] / PIXEL_SIZE
    # the particle's own centre is at box // 2 minus its origin: centre = coordinate - origin
    np.testing.assert_allclose(centroid - offset, box_size // 2 - np.array(particle.origin_xy), atol=0.05)
    assert image.sum() > 0                                          # particle images are bright


def test_a_particle_image_is_the_inverted_cut_out_of_the_clean_micrograph(ensemble):
    particle = Particle(1, (140.3, 170.8), 0.0, 25.0, 60.0, -40.0)
    record = make_record((particle,), CTF, signal_scale=0.7)

    (image,) = expose_particles(record, (particle,), ensemble, 96)

    x, y = particle.coordinate_xy
    cut = -expose(record, ensemble).clean[y - 48:y + 48, x - 48:x + 48]
    assert relative_error(image, cut) < 0.01


def test_each_particle_image_has_the_defocus_of_its_height(ensemble):
    low, high = (Particle(1, (100.0, 100.0), height, 25.0, 60.0, -40.0) for height in (-3000.0, 3000.0))
    record = make_record((low, high), CTF)

    images = expose_particles(record, (low, high), ensemble, 64)

    shifted = dataclasses.replace(record, ctf=CTF.at_height(3000.0))
    alone = expose_particles(shifted, (dataclasses.replace(high, height=0.0),), ensemble, 64)[0]
    assert relative_error(images[1], alone) < 0.01
    assert relative_error(images[0], alone) > 0.1


def test_no_particles_give_an_empty_stack(ensemble):
    assert expose_particles(make_record((), CTF), (), ensemble, 32).shape == (0, 32, 32)


def test_measured_contrast_is_kept_when_no_signal_was_calibrated(ensemble):
    calibration = make_calibration(None)

    assert isinstance(calibration.micrographs[0], MicrographCalibration)
    assert draw_record(make_protocol(count=1), calibration, ensemble, 0).signal_scale == 1.0


def test_tilted_ice_lies_in_a_plane_of_that_tilt(ensemble):
    protocol = make_protocol(ice_thickness=50.0, ice_tilt=20.0)
    record = draw_record(protocol, make_calibration(1.0), ensemble, 0)

    centers = np.array([one.center_yx for one in record.particles]) * PIXEL_SIZE
    heights = np.array([one.height for one in record.particles])
    design = np.column_stack([centers, np.ones(len(centers))])
    plane, _, _, _ = np.linalg.lstsq(design, heights, rcond=None)
    np.testing.assert_allclose(design @ plane, heights, atol=1e-6)
    assert np.rad2deg(np.arctan(np.hypot(*plane[:2]))) == pytest.approx(20.0)
    middle = (np.array(SHAPE) - 1) / 2 * PIXEL_SIZE
    assert middle @ plane[:2] + plane[2] == pytest.approx(0, abs=1e-6)


def test_phase_shift_and_envelope_are_drawn_as_said_where_no_ctfs_are_known(ensemble):
    protocol = make_protocol(count=1, phase_shift=(60.0, 120.0), b_factor=80.0, astigmatism=0.0)
    ctfs = [draw_record(protocol, make_calibration(1.0, ctfs=(None,)), ensemble, i).ctf for i in range(40)]

    shifts = np.array([one.phase_shift for one in ctfs])
    assert 60 <= shifts.min() < 75 < 105 < shifts.max() <= 120
    assert {one.b_factor for one in ctfs} == {80.0}
    assert all(one.defocus_u == one.defocus_v for one in ctfs)


def test_a_smaller_defocus_error_brings_the_picture_nearer_to_exact_heights(ensemble):
    record = draw_record(make_protocol(count=12, ice_thickness=2000.0), make_calibration(1.0), ensemble, 0)
    exact = expose(record, ensemble, defocus_error=0.5).clean
    errors = [relative_error(expose(record, ensemble, defocus_error=one).clean, exact) for one in (20.0, 200.0)]

    assert 0 < errors[0] < 0.25 * errors[1]


def test_a_wider_margin_changes_no_pixel_by_more_than_a_thousandth(ensemble):
    """What is left out beyond the margin reaches the frame with less than anything that is measured on it."""
    record = draw_record(make_protocol(count=40), make_calibration(1.0), ensemble, 0)
    wide = paint(ensemble.projectors, record.particles, record.shape, 4 * ensemble.box_size, 100.0)

    exact = image_specimen(wide, record.ctf, record.pixel_size)
    difference = expose(record, ensemble).clean - exact

    assert any(min(*one.center_yx, *np.subtract(SHAPE, one.center_yx)) < 0 for one in record.particles)
    assert np.sqrt((difference ** 2).mean()) < 1e-4 * exact.std()
    assert np.abs(difference).max() < 1e-3 * exact.std()


def test_forbidden_regions_are_mirrored_with_the_ice_of_their_micrograph(ensemble):
    is_forbidden = np.zeros(SHAPE, dtype=bool)
    is_forbidden[:SHAPE[0] // 2] = True
    protocol = make_protocol(count=8, forbidden=(is_forbidden,))
    for index in range(6):
        record = draw_record(protocol, make_calibration(1.0), ensemble, index)
        rows = np.array([one.center_yx[0] for one in record.particles])
        is_lower = rows > (SHAPE[0] - 1) / 2        # the pixels of the two halves meet here
        assert len(rows)
        assert is_lower.all() if not record.ice_flips[0] else not is_lower.any()


def test_the_record_says_how_many_particles_were_asked_for(ensemble):
    record = draw_record(make_protocol(count=25), make_calibration(1.0), ensemble, 0)

    assert record.n_requested == 25
    assert sum(record.is_center_inside(one) for one in record.particles) == pytest.approx(25, abs=8)


def test_the_published_ice_multiplies_the_particles_before_the_ctf(ensemble, record):
    calibration = make_calibration(1.0)
    half = dataclasses.replace(calibration, micrographs=(dataclasses.replace(
        calibration.micrographs[0], transmission=((0.5, 0.5), (0.5, 0.5))),))
    uneven = dataclasses.replace(calibration, micrographs=(dataclasses.replace(
        calibration.micrographs[0], transmission=((0.5, 1.5),)),))
    record = dataclasses.replace(record, ice_flips=(False, False))

    plain, halved, bent = (expose(record, ensemble, calibration=one).clean for one in (calibration, half, uneven))
    np.testing.assert_allclose(halved, 0.5 * plain, atol=1e-4 * np.abs(plain).max())
    left, right = (np.s_[:, :SHAPE[1] // 4], np.s_[:, -(SHAPE[1] // 4):])
    assert bent[left].std() == pytest.approx(0.5 * plain[left].std(), rel=0.1)
    assert bent[right].std() == pytest.approx(1.5 * plain[right].std(), rel=0.1)
