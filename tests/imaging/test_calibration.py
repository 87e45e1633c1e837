"""Everything that was put into synthetic micrographs is measured again: density, grey scale, ice, noise, signal."""

import dataclasses
import json

import numpy as np
import pytest

from cryogem.errors import InputError
from cryogem.imaging.calibration import Calibration, RealMicrograph
from cryogem.imaging.measurement import calibrate, find_background, with_signal
from cryogem.imaging.signal_fit import SignalFit
from cryogem.imaging.spectrum import N_SHELLS, measure_power
from tests.imaging.synthetic import (
    CTF,
    GREY_MEAN,
    GREY_SD,
    ICE,
    NOISE_POWER,
    PIXEL_SIZE,
    SHAPE,
    SIGNAL_SCALE,
    make_calibration,
)
from tests.messages import is_one_sentence

DIAMETER = 100.0                            # Å


def average_groups(power, size: int = 8) -> np.ndarray:
    return np.asarray(power)[..., 8:].reshape(-1, size).mean(axis=-1)


@pytest.fixture(scope='module')
def measured(made) -> Calibration:
    return calibrate([one.real for one in made], PIXEL_SIZE, DIAMETER)


def test_the_grey_scale_is_that_of_the_pixels(made, measured):
    for one, found in zip(made, measured.micrographs, strict=True):
        assert found.grey_mean == pytest.approx(one.real.image.mean(dtype=np.float64), rel=0.01)
        assert found.grey_mean == pytest.approx(GREY_MEAN, rel=0.01)
        assert found.grey_sd == pytest.approx(one.real.image.std(dtype=np.float64), rel=0.01)


def test_the_density_of_particles_is_found(made, measured):
    mean, sd = measured.particles_per_frame

    # the true number on the area where centres are counted, scaled to the frame
    assert mean == pytest.approx(30, rel=0.05)
    assert sd < 4                                                   # the experiment had the same number on each frame
    assert [one.n_picks for one in measured.micrographs] == [len(one.real.centers_yx) for one in made]


def test_the_density_does_not_suffer_from_unmarked_particles_at_the_border(made, measured):
    unmarked = []
    for one in made:
        centers, size = one.real.centers_yx, np.array(SHAPE)
        is_inner = ((centers >= 12) & (centers <= size - 13)).all(axis=1)
        unmarked.append(dataclasses.replace(one.real, centers_yx=centers[is_inner]))

    assert calibrate(unmarked, PIXEL_SIZE, DIAMETER).particles_per_frame == pytest.approx(
        measured.particles_per_frame, rel=0.02)


def test_the_ice_is_found(made, measured):
    flips = [one.record.ice_flips for one in made]
    for found, (flip_y, flip_x) in zip(measured.micrographs, flips, strict=True):
        signs = np.where(flip_y, (-1.0) ** np.arange(6), 1)[:, None] * np.where(flip_x, (-1.0) ** np.arange(6), 1)
        expected = ICE * signs * GREY_SD / found.grey_sd            # in this micrograph's contrast units
        np.testing.assert_allclose(np.array(found.ice), expected, atol=0.06)


def test_the_noise_outside_the_picks_is_found(measured):
    found = np.mean([np.array(one.background_power) * (one.grey_sd / GREY_SD) ** 2 for one in measured.micrographs],
                    axis=0)

    np.testing.assert_allclose(average_groups(found), average_groups(NOISE_POWER), rtol=0.1)


def test_the_total_holds_signal_and_noise(made, measured):
    clean = np.mean([measure_power(one.clean) for one in made], axis=0)
    total = np.mean([np.array(one.total_power) * (one.grey_sd / GREY_SD) ** 2 for one in measured.micrographs], axis=0)

    np.testing.assert_allclose(average_groups(total), average_groups(NOISE_POWER + clean), rtol=0.1)


def test_shape_neighbours_ctf_and_names_are_kept(made, measured):
    assert measured.shape == SHAPE
    assert (measured.pixel_size, measured.particle_diameter) == (PIXEL_SIZE, DIAMETER)
    assert [one.name for one in measured.micrographs] == [one.real.name for one in made]
    assert {one.ctf for one in measured.micrographs} == {CTF}
    assert len(measured.neighbour_distances) == 21
    assert np.all(np.diff(measured.neighbour_distances) >= 0)
    assert measured.neighbour_distances[0] >= 110 - PIXEL_SIZE      # the experiment kept them 110 Å apart
    assert measured.neighbour_distances[10] == measured.neighbour_distances[20]


def test_bright_particles_are_noticed_and_turned_dark(made, measured, caplog):
    inverted = [dataclasses.replace(one.real, image=2 * np.float32(GREY_MEAN) - one.real.image) for one in made]

    found = calibrate(inverted, PIXEL_SIZE, DIAMETER)

    assert 'inverted' in caplog.text
    for bright, dark in zip(found.micrographs, measured.micrographs, strict=True):
        assert bright.grey_sd == pytest.approx(-dark.grey_sd, rel=1e-3)
        np.testing.assert_allclose(bright.ice, dark.ice, atol=1e-3)


def test_dark_particles_are_not_taken_for_bright_ones(made, measured):
    assert all(one.grey_sd > 0 for one in measured.micrographs)


def test_a_frame_smaller_than_two_particles_is_refused():
    image = np.random.default_rng(0).normal(0, 1, (40, 200)).astype(np.float32)

    with pytest.raises(InputError, match=r"'one'.*160 Å.*100 Å.*pixel_size") as caught:
        calibrate([RealMicrograph('one', image, np.empty((0, 2)))], PIXEL_SIZE, DIAMETER)
    assert is_one_sentence(caught.value)


def test_without_picks_noise_and_grey_scale_are_measured_all_the_same(made):
    bare = [dataclasses.replace(one.real, centers_yx=np.empty((0, 2))) for one in made[:2]]

    found = calibrate(bare, PIXEL_SIZE, DIAMETER)

    assert (found.particles_per_frame, found.neighbour_distances, found.clustering) == (None, None, None)
    assert all(len(one.background_power) == N_SHELLS for one in found.micrographs)


def test_few_grey_levels_and_hot_pixels_hardly_change_what_is_measured(made, measured):
    rng = np.random.default_rng(0)
    coarse = []
    for one in made:
        image = np.rint(one.real.image / GREY_SD * 1.5)             # 8-bit files with a sd of one and a half levels
        image[rng.integers(0, SHAPE[0], 20), rng.integers(0, SHAPE[1], 20)] = 250
        coarse.append(dataclasses.replace(one.real, image=image.astype(np.float32)))

    found = calibrate(coarse, PIXEL_SIZE, DIAMETER)

    assert found.particles_per_frame == pytest.approx(measured.particles_per_frame, rel=0.01)
    for few, fine in zip(found.micrographs, measured.micrographs, strict=True):
        assert few.defects.n_levels < 25
        assert 1e-4 < few.defects.hot_pixel_share < 3e-4
        assert few.grey_sd / 1.5 == pytest.approx(fine.grey_sd / GREY_SD, rel=0.06)
        # rounding adds a twelfth of a squared level, 4 % of the variance, and what is left of the hot pixels 1 %
        np.testing.assert_allclose(average_groups(few.background_power), average_groups(fine.background_power),
                                   rtol=0.15)
        assert not few.remarks


def test_a_calibration_survives_json(measured):
    text = json.dumps(measured.to_json())

    found = Calibration.from_json(json.loads(text))

    assert found == measured
    assert json.dumps(found.to_json()) == text
    assert measured.to_json()['units']['pixel_size'] == 'Å/px'


def test_a_calibration_without_picks_and_ctfs_survives_json():
    bare = make_calibration(None, ctfs=(None,))

    assert Calibration.from_json(json.loads(json.dumps(bare.to_json()))) == bare


@pytest.mark.parametrize('spoil', [lambda v: v.pop('shape'), lambda v: v.pop('micrographs'),
                                   lambda v: v.update(colour=1), lambda v: v['micrographs'][0].pop('ice')])
def test_a_damaged_calibration_is_refused(spoil):
    values = json.loads(json.dumps(make_calibration().to_json()))
    spoil(values)

    with pytest.raises(InputError, match='run calibrate again') as caught:
        Calibration.from_json(values)
    assert is_one_sentence(caught.value)


def make_fit(measured, scale: float, gain) -> SignalFit:
    n = len(measured.micrographs)
    return SignalFit(scale, gain, (scale,) * n, (0.01,) * n, None)


def test_noise_is_the_total_without_the_signal(made, measured):
    signal = np.mean([measure_power(one.clean) for one in made], axis=0) / SIGNAL_SCALE ** 2
    scale = SIGNAL_SCALE * GREY_SD / np.mean([one.grey_sd for one in measured.micrographs])

    gain = np.linspace(1, 0.5, N_SHELLS)
    found = with_signal(measured, make_fit(measured, scale, gain), signal)

    assert (found.signal_scale, found.map_gain) == (scale, tuple(gain.tolist()))
    assert {one.signal_scale for one in found.micrographs} == {scale}
    for before, after in zip(measured.micrographs, found.micrographs, strict=True):
        total = np.array(before.total_power)
        np.testing.assert_allclose(after.noise_power, np.maximum(total - scale ** 2 * signal, 0.1 * total))
        assert after.background_power == before.background_power
    noise = np.mean([np.array(one.noise_power) * (one.grey_sd / GREY_SD) ** 2 for one in found.micrographs], axis=0)
    np.testing.assert_allclose(average_groups(noise), average_groups(NOISE_POWER), rtol=0.1)


def test_noise_never_falls_below_a_tenth_of_the_total(measured):
    found = with_signal(measured, make_fit(measured, 1.0, None), np.full(N_SHELLS, 1e6))

    for one in found.micrographs:
        np.testing.assert_allclose(one.noise_power, 0.1 * np.array(one.total_power))


def test_the_background_leaves_out_sixty_percent_of_a_diameter_around_picks():
    is_background = find_background((100, 120), np.array([[50.0, 60.0], [0.0, 119.0]]), 20.0)

    distance = np.hypot(*(np.mgrid[:100, :120] - np.array([50, 60])[:, None, None]))
    assert not is_background[distance <= 12].any()
    assert not is_background[0, 119]
    assert is_background[(distance > 12.5) & (distance < 40)].all()


