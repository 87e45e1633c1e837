"""Maps: resampling and filters against closed forms, masks against bodies of known shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cryogem.errors import InputError
from cryogem.specimen import volume
from tests.messages import is_one_sentence
from tests.phantom import GaussianPhantom, make_chiral_phantom, relative_error


def radii(n: int) -> np.ndarray:
    """Return (n, n, n) distances from n // 2, px."""
    axis = np.arange(n) - n // 2
    return np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis ** 2)


def make_ball(n: int, radius: float) -> np.ndarray:
    return (radii(n) <= radius).astype(np.float32)


@pytest.mark.parametrize('box_size', [40, 41, 47])
@pytest.mark.parametrize('working', [2.0, 3.0, 3.37, 4.0])
def test_resampling_gives_the_phantom_at_the_other_pixel_size(box_size, working):
    phantom = make_chiral_phantom()

    found = volume.resample(phantom.render(box_size, 3.0), 3.0, working)

    assert found.shape[0] % 2 == 0
    assert found.dtype == np.float32
    assert relative_error(found, phantom.render(found.shape[0], working)) < 0.01


def test_resampling_and_back_is_the_identity_for_a_smooth_map():
    original = make_chiral_phantom().render(40, 3.0)

    there = volume.resample(original, 3.0, 4.0)
    back = volume._center_in_box(volume.resample(there, 4.0, 3.0), 40)

    assert relative_error(back, original) < 0.01


@settings(max_examples=15)
@given(st.integers(20, 33), st.floats(0.6, 1.8))
def test_the_centre_stays_at_half_the_box_for_any_box_and_ratio(box_size, ratio):
    ball = GaussianPhantom(np.zeros((1, 3)), np.array([3.0]), np.ones(1))

    found = volume.resample(ball.render(box_size, 1.0), 1.0, ratio)

    center = ndimage.center_of_mass(np.where(found > 0.05, found, 0))
    np.testing.assert_allclose(center, found.shape[0] // 2, atol=0.02)
    assert np.unravel_index(found.argmax(), found.shape) == (found.shape[0] // 2,) * 3
    assert found.max() == pytest.approx(1, abs=0.02)                # values keep their scale


def test_masking_makes_protein_one_and_solvent_zero():
    phantom = make_chiral_phantom()
    noisy = 5 * phantom.render(48, 3.0) + 2 + np.random.default_rng(0).normal(0, 0.3, (48,) * 3).astype(np.float32)

    prepared = volume.flatten_solvent(noisy, 3.0)

    assert prepared.density[prepared.mask > 0.5].mean() == pytest.approx(1, rel=1e-4)
    assert np.all(prepared.density[prepared.mask == 0] == 0)
    assert prepared.mask.min() == 0
    assert prepared.mask.max() == 1
    core = phantom.render(48, 3.0) > 0.5
    assert np.corrcoef(prepared.density[core], phantom.render(48, 3.0)[core])[0, 1] > 0.8


def test_a_given_threshold_is_used():
    density = make_chiral_phantom().render(48, 3.0)

    tight, wide = (volume.flatten_solvent(density, 3.0, mask_threshold=t).mask.sum() for t in (1.0, 0.2))

    assert tight < 0.6 * wide


@pytest.mark.parametrize('radius', [8.0, 12.0])
@pytest.mark.parametrize('pixel_size', [1.5, 4.0])
def test_the_diameter_of_a_ball_is_right_within_a_voxel(radius, pixel_size):
    ball = make_ball(48, radius)

    assert volume.measure_diameter(ball, pixel_size) == pytest.approx(2 * radius * pixel_size, abs=pixel_size)
    # the mask adds half its soft edge all round, the low-pass and the threshold half a voxel or so
    edge = max(6.0, 2 * pixel_size)
    prepared = volume.flatten_solvent(ball, pixel_size)
    assert 2 * radius * pixel_size - pixel_size < prepared.diameter < 2 * radius * pixel_size + edge + 2 * pixel_size


def test_a_body_off_the_centre_has_the_same_diameter():
    ball = np.roll(make_ball(48, 10), (5, -3, 4), axis=(0, 1, 2))

    assert volume.measure_diameter(ball, 1.0) == pytest.approx(volume.measure_diameter(make_ball(48, 10), 1.0))


def test_a_mask_is_soft_solid_and_one_on_the_particle():
    radius = radii(48)
    shell = (radius > 9) & (radius < 14)

    mask = volume.make_soft_mask(shell, 2.0)

    assert mask.dtype == np.float32
    assert mask.min() == 0
    assert mask.max() == 1
    assert np.all(mask[radius < 14] == 1)                           # the hollow is filled
    assert np.all(mask[radius > 14 + 6 / 2 + 1] == 0)               # 6 Å of edge at 2 Å/px
    edge = mask[24, 24, 37:41]
    assert np.all(np.diff(edge) < 0)
    assert np.any((edge > 0.1) & (edge < 0.9))


def test_dust_is_not_particle():
    rough = make_ball(48, 10) > 0
    rough[2:4, 2:4, 2:4] = True

    mask = volume.make_soft_mask(rough, 2.0)

    assert mask[2:4, 2:4, 2:4].max() == 0
    np.testing.assert_array_equal(mask, volume.make_soft_mask(make_ball(48, 10) > 0, 2.0))


@pytest.mark.parametrize('rough', [np.zeros((8, 8, 8), bool), np.ones((8, 8, 8), bool)])
def test_an_empty_or_a_full_mask_is_refused(rough):
    with pytest.raises(InputError, match='mask_threshold') as caught:
        volume.make_soft_mask(rough, 2.0)
    assert is_one_sentence(caught.value)


def test_a_map_whose_protein_is_dark_is_refused():
    with pytest.raises(InputError, match='protein is bright') as caught:
        volume.flatten_solvent(-make_ball(32, 8), 3.0)
    assert is_one_sentence(caught.value)


def test_a_threshold_in_the_solvent_is_refused():
    noisy = make_ball(32, 8) + np.random.default_rng(0).normal(0, 0.1, (32,) * 3).astype(np.float32)

    with pytest.raises(InputError, match='mask_threshold') as caught:
        volume.flatten_solvent(noisy, 3.0, mask_threshold=-0.05)
    assert is_one_sentence(caught.value)


def test_a_particle_that_touches_the_walls_of_its_box_is_fine():
    rod = np.zeros((32, 32, 32), np.float32)
    rod[:, 10:22, 10:22] = 1

    assert volume.flatten_solvent(rod, 3.0).density.mean() > 0.05


def test_a_constant_map_is_refused():
    with pytest.raises(InputError) as caught:
        volume.flatten_solvent(np.ones((16, 16, 16), np.float32), 3.0)
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize('noise', [0.0, 0.15])
def test_otsu_separates_two_levels(noise):
    truth = make_ball(40, 11) > 0
    data = 2 + 3 * truth + np.random.default_rng(0).normal(0, noise, truth.shape) if noise else 2 + 3.0 * truth

    threshold = volume.find_threshold(data)

    assert 2 < threshold < 5
    np.testing.assert_array_equal(data > threshold, truth)


def test_otsu_agrees_with_its_definition():
    data = np.random.default_rng(1).gamma(2.0, size=(20, 20, 20))
    within = {t: (data < t).mean() * data[data < t].var() + (data >= t).mean() * data[data >= t].var()
              for t in np.linspace(data.min(), data.max(), 200)[2:-2]}

    assert volume.find_threshold(data) == pytest.approx(min(within, key=within.get), abs=0.1)


@pytest.mark.parametrize('b_factor', [200.0, 600.0, -150.0])
def test_a_gaussian_gain_turns_a_gaussian_into_one_of_known_width(b_factor):
    width, pixel_size, n = 8.0, 3.0, 40
    before = GaussianPhantom(np.zeros((1, 3)), np.array([width]), np.ones(1)).prepare(n, pixel_size)
    # exp(-2 pi² w² s²) · exp(-B s² / 4): the variance grows by B / (8 pi²)
    wider = np.sqrt(width ** 2 + b_factor / (8 * np.pi ** 2))
    expected = GaussianPhantom(np.zeros((1, 3)), np.array([wider]), np.array([(width / wider) ** 3]))

    frequency = np.arange(128) / 128 / (2 * pixel_size)
    after = volume.filter_radially(before, np.exp(-b_factor / 4 * frequency ** 2))

    assert relative_error(after.density, expected.render(len(after.density), pixel_size)) < 2e-3
    assert after.density.sum() == pytest.approx(before.density.sum(), rel=1e-5)
    np.testing.assert_array_equal(after.mask[8:-8, 8:-8, 8:-8], before.mask)
    assert len(after.density) > n           # room for what the filter spreads


def test_a_low_pass_keeps_slow_waves_and_removes_fast_ones():
    n, pixel_size = 32, 2.0                                         # a wave of k turns has a period of 64 / k Å
    axis = np.arange(n)
    slow, fast = (np.cos(2 * np.pi * k * axis / n) * np.ones((n, n, 1)) for k in (3, 9))

    kept = volume.low_pass_filter((slow + fast + 5).astype(np.float32), pixel_size, 64 / 6)

    np.testing.assert_allclose(kept, slow + 5, atol=1e-4)


def test_a_low_pass_resolution_is_applied_after_masking():
    density = make_chiral_phantom().render(48, 3.0)
    prepared = volume.flatten_solvent(density, 3.0, low_pass=24.0)

    spectrum = np.abs(np.fft.rfftn(prepared.density))
    frequency = np.sqrt(sum(f ** 2 for f in np.meshgrid(
        np.fft.fftfreq(48, 3.0), np.fft.fftfreq(48, 3.0), np.fft.rfftfreq(48, 3.0), indexing='ij')))
    assert spectrum[frequency > 1 / 24 + 2 / 144].max() < 1e-4 * spectrum.max()


@pytest.mark.parametrize('working', [2.2, 3.0, 5.0])
def test_a_map_at_the_working_pixel_size_keeps_its_size_and_its_level(working):
    prepared = volume.flatten_solvent(make_chiral_phantom().render(64, 3.0), 3.0)

    brought = volume.bring_to_pixel_size(prepared, working)

    n = brought.density.shape[0]
    assert n % 2 == 0
    assert brought.pixel_size == working
    assert brought.diameter == prepared.diameter
    assert brought.mask.min() >= 0
    assert brought.mask.max() <= 1
    volumes = [one.mask.sum() * one.pixel_size ** 3 for one in (prepared, brought)]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.04)          # ripples below 0 are cut off, those above stay
    masses = [one.density.sum() * one.pixel_size ** 3 for one in (prepared, brought)]
    assert masses[1] == pytest.approx(masses[0], rel=0.01)
    # no pose turns anything out of the box: all but faint ripples lies inside its sphere
    is_outside = radii(n) >= n / 2
    assert brought.mask[is_outside].max() < 0.03
    assert np.abs(brought.density[is_outside]).max() < 0.005 * brought.density.max()


def test_the_tight_box_holds_the_farthest_voxel_in_every_orientation():
    mask = np.zeros((40, 40, 40), np.float32)
    mask[20, 20, 20:33] = 1                                         # a rod of 12 px from the centre

    assert volume.find_tight_box(mask, 1.0) == 2 * (12 + 2)
    assert volume.find_tight_box(mask, 0.5) == 2 * (6 + 2)


def test_a_grown_box_keeps_the_centre():
    prepared = make_chiral_phantom().prepare(40, 3.0)

    grown = volume.grow_box(prepared, 56)

    assert grown.density.shape == grown.mask.shape == (56, 56, 56)
    assert relative_error(grown.density, make_chiral_phantom().render(56, 3.0)) < 0.01
    assert grown.density[28, 28, 28] == prepared.density[20, 20, 20]
