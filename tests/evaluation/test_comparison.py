"""The floor: what two halves of the real set differ by, and a set in the place of one half."""

import numpy as np
import pytest

from cryogem.evaluation.comparison import compare, merge


def difference(first, second):
    return abs(np.mean(first) - np.mean(second))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_set_compared_with_itself_stands_exactly_at_the_floor(rng):
    real = rng.standard_normal(10)
    found = compare(real, real, difference, rng)

    assert found.floor > 0
    assert (found.distance, found.spread) == (found.floor, found.floor_spread)
    assert found.ratio == 1


def test_a_set_of_the_same_kind_stands_near_the_floor_and_another_one_far_above(rng):
    real = rng.standard_normal(40)
    same = [compare(rng.standard_normal(40), real, difference, rng).ratio for _ in range(30)]

    assert 0.5 < np.median(same) < 2
    assert compare(rng.standard_normal(40) + 3, real, difference, rng).ratio > 5


@pytest.mark.parametrize(('n_generated', 'n_real', 'half'), [(10, 10, 5), (3, 10, 3), (50, 9, 4), (1, 2, 1)])
def test_all_three_sides_hold_the_same_number_of_micrographs(n_generated, n_real, half, rng):
    sizes = set()

    def note(first, second):
        sizes.add((len(first), len(second)))
        return 0.0

    found = compare(rng.standard_normal(n_generated), rng.standard_normal(n_real), note, rng)
    assert sizes == {(half, half)}
    assert found.n_micrographs == half


def test_the_halves_share_no_micrograph_and_no_generated_one_comes_twice(rng):
    def check(first, second):
        assert len(set(first)) == len(first)
        assert not set(first) & set(second)
        return 0.0

    compare([f'g{i}' for i in range(7)], [f'r{i}' for i in range(12)], check, rng)


def test_all_sets_are_compared_with_the_same_floor(rng):
    real = rng.standard_normal(10)
    floors = {compare(rng.standard_normal(n), real, difference, np.random.default_rng(2)).floor for n in (5, 7, 10, 40)}

    assert len(floors) == 1


@pytest.mark.parametrize(('n_generated', 'n_real'), [(5, 1), (5, 0), (0, 5)])
def test_too_few_micrographs_give_no_comparison(n_generated, n_real, rng):
    assert compare(np.zeros(n_generated), np.zeros(n_real), difference, rng) is None


def test_a_floor_that_is_not_above_zero_gives_no_ratio(rng):
    assert compare(np.ones(4), np.ones(4), difference, rng).ratio is None


def test_spreads_of_several_seeds_hold_what_the_seeds_differ_by(rng):
    real = rng.standard_normal(10)
    found = [compare(rng.standard_normal(10) + shift, real, difference, np.random.default_rng(1))
             for shift in (1, 3, 5)]
    merged = merge(found)

    assert merged.distance == pytest.approx(np.mean([one.distance for one in found]))
    assert merged.spread > np.std([one.distance for one in found])
    assert merged.floor == pytest.approx(found[0].floor)
