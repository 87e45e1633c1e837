"""The distances of an ablation are those that were put into the micrographs, and its table says how it was measured."""

import dataclasses

import numpy as np
import pytest

from cryogem.evaluation.ablation import (
    DISTANCES,
    RATIOS,
    Ablation,
    AblationRow,
    bring_to_contrast,
    format_ablation,
    measure_distances,
)
from cryogem.evaluation.calibration_report import format_page
from cryogem.evaluation.frames import Frame
from tests.imaging.synthetic import make_calibration

DIAMETER_PX = 20.0
CENTERS = np.stack(np.meshgrid(np.arange(40, 260, 44.0), np.arange(40, 260, 44.0)), axis=-1).reshape(-1, 2)


def make_frames(depth: float = 1.0, seed: int = 0, strength=1.0) -> list[Frame]:
    """Return noisy frames with dark discs at known centres."""
    rng, frames = np.random.default_rng(seed), []
    y, x = np.mgrid[:300, :300]
    for i in range(2):
        image = strength * rng.normal(0, 1, (300, 300))
        for center in CENTERS:
            image -= depth * (np.hypot(y - center[0], x - center[1]) < 10)
        frames.append(Frame(f'frame_{i}', image.astype(np.float32), CENTERS))
    return frames


@pytest.fixture(scope='module')
def judges() -> list[Frame]:
    return make_frames()


def test_micrographs_are_no_distance_from_themselves(judges):
    found = measure_distances(judges, judges, None, DIAMETER_PX)

    assert set(found) == {*DISTANCES, *RATIOS} - {'frechet'}
    assert [found[key] for key in ('spectrum', 'variance', 'greys')] == pytest.approx([0, 0, 0])
    assert (found['contrast'], found['profile']) == pytest.approx((1, 1))


@pytest.mark.parametrize('ratio', [0.5, 0.8, 1.25])
def test_the_contrast_of_weaker_and_stronger_particles_is_their_ratio(ratio):
    clear = [make_frames(depth, seed, strength=0.3) for depth, seed in ((ratio, 1), (1.0, 2))]
    found = measure_distances(*clear, None, DIAMETER_PX)

    assert found['contrast'] == pytest.approx(ratio, rel=0.06)
    assert found['profile'] > 0.97


def test_noise_of_uneven_strength_is_seen_by_the_local_variance_alone():
    judges = make_frames(0.0)               # discs have a variance of their own
    same = measure_distances(make_frames(0.0, seed=1), judges, None, DIAMETER_PX)
    strength = np.where(np.arange(300) < 150, np.sqrt(1.5), np.sqrt(0.5))
    uneven = measure_distances(make_frames(0.0, seed=1, strength=strength), judges, None, DIAMETER_PX)

    # the logarithms of 1.5 and 0.5 lie 0.41 above and 0.69 below that of 1
    assert uneven['variance'] == pytest.approx((np.log(1.5) - np.log(0.5)) / 2, abs=0.12)
    assert uneven['variance'] > 5 * same['variance']
    assert uneven['spectrum'] < 2 * same['spectrum'] + 0.02


def test_dead_edges_and_the_picks_on_them_are_left_out():
    image = np.random.default_rng(0).normal(100, 10, (200, 220)).astype(np.float32)
    image[:6] = 0

    frame = bring_to_contrast('one', image, np.array([[3.0, 50.0], [106.0, 50.0]]))

    assert frame.contrast.shape == (194, 220)
    np.testing.assert_allclose(frame.centers_yx, [[100.0, 50.0]])
    assert frame.contrast.std() == pytest.approx(1, rel=0.02)


def test_bright_particles_are_judged_as_dark_ones():
    image = make_frames()[0].contrast
    dark, bright = (bring_to_contrast('one', 100 + sign * 10 * image, CENTERS, sign) for sign in (1, -1))

    np.testing.assert_allclose(bright.contrast, dark.contrast, atol=1e-4)


def make_ablation() -> Ablation:
    floor = {'spectrum': 0.1, 'variance': 0.02, 'greys': 0.01, 'contrast': 1.0, 'profile': 0.999}
    near = {'spectrum': 0.13, 'variance': 0.05, 'greys': 0.01, 'contrast': 0.95, 'profile': 0.98}
    return Ablation((AblationRow('measured', near, floor),
                     AblationRow('white noise', {**near, 'spectrum': 0.8}, floor)), 4, 6)


def test_the_page_shows_each_distance_with_its_ratio_to_the_floor():
    page = format_page(make_calibration(), [], make_ablation())

    assert '<td>measured</td><td>0.13 (×1.30)</td><td>0.05 (×2.50)</td>' in page
    assert '<td>white noise</td><td>0.8 (×8.00)</td>' in page
    assert '4 real micrographs in halves' in page
    assert 'means over 6 ways' in page
    assert 'no Fréchet distance' in page
    assert DISTANCES['frechet'] not in page


def test_a_page_with_topaz_shows_the_frechet_distance():
    ablation = make_ablation()
    rows = tuple(dataclasses.replace(one, found={'frechet': 0.3, **one.found}, floor={'frechet': 0.1, **one.floor})
                 for one in ablation.rows)

    table = format_ablation(dataclasses.replace(ablation, rows=rows))
    assert '0.3 (×3.00)' in table
    assert DISTANCES['frechet'] in table
    assert 'no Fréchet distance' not in table


def test_a_page_without_the_table_says_how_it_is_had_and_what_is_not_made():
    page = format_page(make_calibration(), [])

    assert '--ablation' in page
    assert 'ice crystals and dirt' in page
    assert 'none is generated' in page
