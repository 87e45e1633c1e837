"""The smooth background: known cosines are found again below particles and dirt."""

import numpy as np
import pytest

from cryogem.imaging.ice import ORDER, fit_ice, fit_paper_ice, render_ice, render_paper_ice

SHAPE = (260, 390)


def draw_coefficients(seed: int = 0) -> np.ndarray:
    coefficients = np.random.default_rng(seed).normal(0, 0.3, (ORDER, ORDER))
    coefficients[0, 0] = 0
    return coefficients


def test_the_background_is_a_sum_of_cosines():
    coefficients = np.zeros((ORDER, ORDER))
    coefficients[2, 1] = 0.7
    y, x = (np.arange(n) + 0.5 for n in SHAPE)

    expected = 0.7 * np.cos(2 * np.pi * y / SHAPE[0])[:, None] * np.cos(np.pi * x / SHAPE[1])

    found = render_ice(coefficients, SHAPE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('shape', [SHAPE, (97, 64), (512, 131)])
def test_known_cosines_are_found_again(shape):
    coefficients = draw_coefficients()

    found = fit_ice(render_ice(coefficients, shape) + 3, np.ones(shape, bool))

    assert found[0, 0] == 0                                         # the mean belongs to the grey scale
    np.testing.assert_allclose(found, coefficients, atol=0.02)


def test_masked_particles_noise_and_a_few_outliers_do_not_disturb_it():
    rng = np.random.default_rng(1)
    coefficients = draw_coefficients(2)
    contrast = render_ice(coefficients, SHAPE) + rng.normal(0, 1, SHAPE)
    is_background = np.ones(SHAPE, bool)
    y, x = np.mgrid[:SHAPE[0], :SHAPE[1]]
    for center in rng.uniform(0, SHAPE, (40, 2)):
        is_near = np.hypot(y - center[0], x - center[1]) < 13
        contrast[is_near] -= 4
        is_background &= ~is_near
    contrast[tuple(rng.integers(0, SHAPE, (30, 2)).T)] = 8          # hot pixels, clipped by the grey scale

    found = fit_ice(contrast, is_background)

    np.testing.assert_allclose(found, coefficients, atol=0.05)
    unmasked = fit_ice(contrast, np.ones(SHAPE, bool))
    assert np.abs(unmasked - coefficients).max() > 0.1


def test_a_corner_without_background_does_not_swing():
    coefficients = draw_coefficients(3)
    contrast = render_ice(coefficients, SHAPE) + np.random.default_rng(0).normal(0, 1, SHAPE)
    is_background = np.ones(SHAPE, bool)
    is_background[:60, :80] = False

    corner = render_ice(fit_ice(contrast, is_background), SHAPE)[:60, :80]

    assert np.abs(corner).max() < 3 * np.abs(render_ice(coefficients, SHAPE)).max()


@pytest.mark.parametrize('flips', [(False, False), (True, False), (False, True), (True, True)])
def test_flips_mirror_the_background(flips):
    coefficients = draw_coefficients()
    axes = tuple(axis for axis, flip in enumerate(flips) if flip)

    np.testing.assert_allclose(
        render_ice(coefficients, SHAPE, flips), np.flip(render_ice(coefficients, SHAPE), axes), atol=1e-5)


def test_the_background_fits_any_frame():
    small, large = (render_ice(draw_coefficients(), shape) for shape in ((100, 120), (200, 240)))

    binned = large.reshape(100, 2, 120, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(small, binned, atol=5e-3)


def test_the_published_ice_is_a_few_levels_of_transmission_about_one():
    y, x = np.mgrid[:512, :640]
    thick = np.where(x < 320, 0.4, -0.4).astype(np.float32)
    found = fit_paper_ice(thick + np.random.default_rng(0).normal(0, 1, thick.shape).astype(np.float32))
    rendered = render_paper_ice(found, thick.shape)

    assert max(found.shape) <= 32
    assert found.mean() == pytest.approx(1, abs=0.02)
    assert rendered.shape == thick.shape
    assert rendered[:, 60:260].mean() == pytest.approx(1.4, abs=0.08)
    assert rendered[:, 380:580].mean() == pytest.approx(0.6, abs=0.08)


def test_the_published_ice_is_mirrored_with_its_micrograph():
    found = 1 + 0.3 * np.random.default_rng(0).uniform(-1, 1, (12, 16))

    plain, flipped = (render_paper_ice(found, (120, 160), flips) for flips in ((False, False), (True, False)))
    np.testing.assert_array_equal(flipped, plain[::-1])
