"""Frames brought to finer pixels: positions, values and the spectrum beyond the working Nyquist frequency."""

import numpy as np
import pytest

from cryogem.imaging.refinement import FineGrid, choose_lengths
from cryogem.imaging.resampling import resample_image
from cryogem.imaging.spectrum import N_SHELLS, measure_power, spread_shells

# original shapes of a K3, a K2 and a Falcon, and a frame cut by hand, each with a binning that somebody would use
FRAMES = [((4092, 5760), 0.83, 4 * 0.83), ((3710, 3838), 1.05, 3.5), ((4096, 4096), 1.1, 4.4), ((501, 640), 2.0, 3.7)]


def blob(shape, center_yx, sigma):
    y, x = (np.arange(n) for n in shape)
    return np.exp(-(y[:, None] - center_yx[0]) ** 2 / 2 / sigma ** 2 - (x - center_yx[1]) ** 2 / 2 / sigma ** 2)


@pytest.mark.parametrize(('shape', 'pixel_size', 'working'), FRAMES)
def test_a_working_frame_covers_the_original_one_and_is_not_larger_than_needed(shape, pixel_size, working):
    grid = FineGrid(working, pixel_size, shape)
    for fine, coarse in zip(shape, grid.working_shape, strict=True):
        assert fine * pixel_size <= coarse * working + 1e-3 < fine * pixel_size + working + 2e-3


@pytest.mark.parametrize(('shape', 'pixel_size', 'working'), [*FRAMES, ((300, 420), 1.1, 4.4)])
def test_a_blob_at_a_position_in_angstroms_is_where_it_was_and_as_high(shape, pixel_size, working):
    grid = FineGrid(working, pixel_size, shape)
    center = np.array([31.3, 47.8])                             # working px
    coarse = blob(grid.working_shape, center, 3.0)
    fine = grid.refine_image(coarse)
    expected = blob(shape, grid.refine_centers(center), 3.0 * grid.ratio)

    assert fine.shape == shape
    assert np.abs(fine - expected).max() < 1e-4
    # from the corner of the frame, in Å: half a pixel before the first centre in both samplings
    np.testing.assert_allclose((grid.refine_centers(center) + 0.5) * pixel_size, (center + 0.5) * working, rtol=1e-12)
    np.testing.assert_allclose(grid.coarsen_centers(grid.refine_centers(center)), center, rtol=1e-12)


def test_a_frame_without_the_half_pixel_would_be_seen_to_be_off():
    grid = FineGrid(4.4, 1.1, (300, 420))
    center = np.array([31.3, 47.8])
    fine = grid.refine_image(blob(grid.working_shape, center, 3.0))

    assert np.abs(fine - blob(fine.shape, center * grid.ratio, 12.0)).max() > 0.05


def test_a_refined_frame_that_is_binned_again_is_the_frame():
    rng, grid = np.random.default_rng(0), FineGrid(4.0, 1.0, (256, 384))
    coarse = resample_image(rng.standard_normal((128, 192)).astype(np.float32), 1.0, 2.0)       # empty at its Nyquist
    coarse = FineGrid(2.0, 1.0, (64, 96)).refine_image(coarse[:32, :48])        # and beyond half of it
    again = resample_image(grid.refine_image(coarse), 1.0, 4.0)

    inner = (slice(8, -8), slice(8, -8))                        # binning takes the frame for periodic
    np.testing.assert_allclose(again[inner], coarse[inner], atol=0.04 * coarse.std())


def test_a_constant_stays_constant_up_to_the_edges():
    fine = FineGrid(3.0, 1.0, (150, 120)).refine_image(np.full((50, 40), 7.0))

    np.testing.assert_allclose(fine, 7.0, rtol=1e-5)


def test_a_mask_is_refined_pixel_by_pixel():
    grid = FineGrid(2.0, 1.0, (5, 8))
    mask = np.arange(12).reshape(3, 4)

    np.testing.assert_array_equal(grid.refine_mask(mask), np.kron(mask, np.ones((2, 2), int))[:5])


def test_fine_noise_fills_what_working_pixels_cannot_hold_and_nothing_else():
    grid, rng = FineGrid(4.0, 1.0, (512, 512)), np.random.default_rng(1)
    power = np.linspace(3.0, 1.0, N_SHELLS)
    fields = np.stack([grid.draw_fine_noise(spread_shells(power, (512, 512)), rng) for _ in range(4)])
    spectrum = np.abs(np.fft.rfft2(fields)) ** 2 / fields[0].size
    ky, kx = np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)

    assert spectrum[:, np.hypot(ky, kx) < 0.1249].max() < 1e-8
    measured = measure_power(fields, np.ones((512, 512))).mean(axis=0)
    np.testing.assert_allclose(measured[33:125], power[33:125], rtol=0.15)


def test_a_refined_frame_with_fine_noise_has_no_seam_at_the_working_nyquist_frequency():
    grid, rng = FineGrid(4.0, 1.0, (512, 512)), np.random.default_rng(2)
    made = np.stack([grid.refine_image(rng.standard_normal((128, 128))) + grid.draw_fine_noise(
        np.full((512, 257), 16.0), rng) for _ in range(6)])
    measured = measure_power(made).mean(axis=0)

    # white noise of working pixels has 16 times the power per pixel where pixels are 16 times as many
    np.testing.assert_allclose(measured[4:125], 16, rtol=0.2)


def test_a_spectrum_that_is_not_known_goes_on_flat_with_the_power_of_finer_pixels():
    grid = FineGrid(4.0, 1.0, (64, 64))
    power = grid.continue_power(np.linspace(2.0, 1.0, N_SHELLS))

    # a mode of given amplitude has 16 times the power per pixel where there are 16 times as many pixels
    assert power[0] == pytest.approx(32.0)
    assert power[16] == pytest.approx(16 * np.interp(64, np.arange(N_SHELLS), np.linspace(2.0, 1.0, N_SHELLS)))
    assert power[-1] == pytest.approx(16, rel=0.05)


@pytest.mark.parametrize('ratio', [2.0, 3.0, 3.5, 4 / 1.1, 1.7351])
def test_lengths_have_the_wanted_quotient(ratio):
    coarse, fine = choose_lengths(1000, ratio)

    assert 1000 <= coarse < 1130
    assert coarse % 2 == 0
    assert fine / coarse == pytest.approx(ratio, rel=2e-5)
