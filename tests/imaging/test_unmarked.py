"""Particles that nobody marked are counted; where all are marked, none is invented."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cryogem.imaging.measurement import calibrate
from cryogem.imaging.unmarked import count_unmarked
from tests.imaging.synthetic import PIXEL_SIZE
from tests.imaging.test_picks import make_discs

DIAMETER_PX = 20.0


def count(frames, picks):
    return count_unmarked(frames, picks, DIAMETER_PX, [np.zeros(one.shape, dtype=bool) for one in frames])


def is_inner(centers):
    return ((centers >= 10) & (centers <= 289)).all(axis=1)


def test_where_all_particles_are_marked_none_is_added():
    assert sum(count(*make_discs())) <= 4                           # of 240


@pytest.mark.parametrize('kept', [0.5, 0.75])
def test_unmarked_particles_are_counted(kept):
    frames, centers = make_discs(8)
    rng = np.random.default_rng(3)
    picks = [one[rng.uniform(size=len(one)) < kept] for one in centers]

    missing = sum(int(is_inner(one).sum()) for one in centers) - sum(int(is_inner(one).sum()) for one in picks)
    assert sum(count(frames, picks)) == pytest.approx(missing, rel=0.25)


@pytest.mark.parametrize('blur', [0.0, 4.0])
@pytest.mark.parametrize('seed', range(8))
def test_noise_holds_no_unmarked_particles(seed, blur):
    rng = np.random.default_rng(seed)
    frames, centers = make_discs(2, seed)
    frames = [gaussian_filter(rng.normal(0, 1, one.shape), blur).astype(np.float32) for one in frames]

    assert count(frames, centers) == [0, 0]


@pytest.mark.parametrize('seed', range(4))
def test_picks_beside_the_particles_find_none(seed):
    frames, centers = make_discs(2, seed)
    rng = np.random.default_rng(seed)

    assert sum(count(frames, [rng.uniform(20, 280, one.shape) for one in centers])) <= 8        # of 80


def test_frames_of_large_particles_are_counted_after_binning():
    frames, centers = make_discs(8)
    large = [np.kron(one, np.ones((3, 3), np.float32)) for one in frames]
    picks = [3 * one[::2] + 1 for one in centers]

    found = count_unmarked(large, picks, 3 * DIAMETER_PX, [np.zeros(one.shape, dtype=bool) for one in large])
    missing = sum(int(is_inner(one[1::2]).sum()) for one in centers)
    assert sum(found) == pytest.approx(missing, rel=0.25)


def test_a_few_picks_are_no_template():
    frames, centers = make_discs(2)

    assert count(frames, [one[:10] for one in centers]) == [0, 0]


def test_the_density_holds_unmarked_particles(made):
    half = [dataclasses.replace(one.real, centers_yx=one.real.centers_yx[::2]) for one in made]

    whole, found = (calibrate(real, PIXEL_SIZE, 90.0) for real in ([one.real for one in made], half))
    assert sum(one.n_unmarked for one in whole.micrographs) <= 4
    assert found.particles_per_frame[0] == pytest.approx(whole.particles_per_frame[0], rel=0.15)
