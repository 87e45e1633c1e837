"""The grey scale withstands what detectors do to single pixels, rows and borders."""

import numpy as np
import pytest

from cryogem.imaging.grey import GreyScale, find_good_region, measure_grey_scale

MEAN, SD = 1500.0, 40.0


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(MEAN, SD, (256, 320)).astype(np.float32)


def add_hot_pixels(image):
    image[::37, ::41] = 60000


def add_dead_pixels(image):
    image[5::37, 3::41] = 0


def add_dead_rows(image):
    image[:4] = 0
    image[-2:] = 0


def add_dead_row_inside(image):
    image[100] = 0


def add_burnt_borders(image):
    image[:, :7] = 30000
    image[:, -12:] += 2000


def add_constant_border_at_the_mean(image):
    image[:6] = MEAN


@pytest.mark.parametrize('spoil', [add_hot_pixels, add_dead_pixels, add_dead_rows, add_dead_row_inside,
                                   add_burnt_borders, add_constant_border_at_the_mean])
def test_mean_and_sd_withstand_bad_pixels(image, spoil):
    spoil(image)

    scale = measure_grey_scale(image)

    assert scale.mean == pytest.approx(MEAN, rel=0.001)
    assert scale.sd == pytest.approx(SD, rel=0.01)


def test_the_good_region_leaves_out_just_the_bad_edges(image):
    assert find_good_region(image) == (slice(0, 256), slice(0, 320))
    add_dead_rows(image)
    image[:, :7] = 30000

    assert find_good_region(image) == (slice(4, 254), slice(7, 320))


def test_no_more_than_a_tenth_is_taken_off_an_edge(image):
    image[:60] += 5000

    assert find_good_region(image)[0].start <= 26


def test_grey_values_come_back():
    scale = GreyScale(MEAN, SD)
    contrast = np.linspace(-7, 7, 50, dtype=np.float32)

    np.testing.assert_allclose(scale.normalise(scale.restore(contrast)), contrast, atol=1e-4)
    assert scale.restore(contrast).dtype == np.float32


def test_a_hot_pixel_is_clipped_and_moves_nothing_else(image):
    scale = GreyScale(MEAN, SD)
    image[10, 10] = 1e7
    contrast = scale.normalise(image)

    assert contrast[10, 10] == 8
    assert contrast.mean() == pytest.approx(0, abs=0.02)


def test_an_inverted_scale_turns_bright_to_dark():
    assert GreyScale(100.0, -10.0).normalise(np.array([[120.0]])) == -2


def test_a_constant_image_does_not_divide_by_zero():
    scale = measure_grey_scale(np.full((32, 32), 7.0, np.float32))

    assert scale.mean == 7
    assert scale.sd > 0
    assert not scale.normalise(np.full((32, 32), 7.0, np.float32)).any()


def test_counts_of_few_electrons_are_measured_too():
    image = np.random.default_rng(0).poisson(0.2, (256, 256)).astype(np.float32)     # more than half are zero

    scale = measure_grey_scale(image)

    assert scale.mean == pytest.approx(0.2, rel=0.05)
    assert scale.sd == pytest.approx(np.sqrt(0.2), rel=0.1)
