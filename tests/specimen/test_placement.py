"""Places of particles: properties for any frame, and the statistics of their number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from cryogem.specimen.placement import draw_count, measure_nearest_distances, place_particles

SHAPES = st.tuples(st.integers(64, 300), st.integers(64, 300))


@settings(max_examples=40)
@given(SHAPES, st.integers(0, 60), st.floats(1, 40), st.floats(0, 30), st.integers(0, 99))
def test_particles_keep_their_distance_inside_frame_and_margin(shape, count, distance, margin, seed):
    centers = place_particles(shape, count, [distance], margin, np.random.default_rng(seed))

    assert centers.shape == (len(centers), 2)
    assert ((centers >= 0) & (centers <= np.array(shape) - 1)).all(axis=1).sum() <= count
    if len(centers) > 1:
        assert pdist(centers).min() >= distance
    assert (centers >= -margin).all()
    assert (centers <= np.array(shape) - 1 + margin).all()


@settings(max_examples=10)
@given(SHAPES, st.integers(0, 20), st.integers(0, 99))
def test_equal_seeds_give_equal_places_and_others_others(shape, count, seed):
    first, again, other = (place_particles(shape, count, [5.0], 10, np.random.default_rng(one))
                           for one in (seed, seed, seed + 1))

    np.testing.assert_array_equal(first, again)
    assert count == 0 or not np.array_equal(first, other)


@settings(max_examples=20)
@given(SHAPES, st.integers(1, 20), st.integers(0, 99))
def test_where_there_is_room_all_are_placed(shape, count, seed):
    assert len(place_particles(shape, count, [2.0], 0, np.random.default_rng(seed))) == count


def test_the_margin_is_filled_as_densely_as_the_frame():
    shape, count, margin = (200, 300), 100, 20
    centers = np.concatenate([place_particles(shape, count, [6.0], margin, np.random.default_rng(seed))
                              for seed in range(20)])

    is_inside = ((centers >= 0) & (centers <= np.array(shape) - 1)).all(axis=1)
    assert is_inside.sum() / 20 == pytest.approx(count, rel=0.03)
    assert len(centers) / 20 == pytest.approx(count * 240 * 340 / (200 * 300), abs=1)


@pytest.mark.parametrize('clustering', [0.0, 0.5])
def test_a_frame_holds_exactly_the_number_asked_for(clustering):
    for seed in range(20):
        centers = place_particles((300, 400), 60, [20.0, 24.0], 30, np.random.default_rng(seed), clustering)
        assert ((centers >= -0.5) & (centers < np.array([300, 400]) - 0.5)).all(axis=1).sum() == 60


def test_particles_do_not_crowd_at_the_edge_of_the_margin():
    shape, margin, width = (200, 300), 20, 6
    centers = np.concatenate([place_particles(shape, 150, [16.0], margin, np.random.default_rng(seed))
                              for seed in range(60)])
    beyond = np.maximum(-centers, centers - (np.array(shape) - 1)).max(axis=1)      # px from the frame, below 0 in it

    def density(low, high):
        area = np.diff([np.prod(np.array(shape) - 1 + 2 * one) for one in (low, high)])[0]
        return ((beyond > low) & (beyond <= high)).sum() / area

    assert density(margin - width, margin) == pytest.approx(density(-60, 0), rel=0.06)


def test_a_frame_asked_for_more_than_fits_is_packed_closely_and_ends_with_fewer():
    shape, distance = (400, 400), 20.0
    centers = place_particles(shape, 10 ** 5, [distance], 0, np.random.default_rng(0))

    # the closest packing of discs covers pi / sqrt(12) = 0.9069 of the plane
    coverage = len(centers) * np.pi * (distance / 2) ** 2 / np.prod(shape)
    assert coverage == pytest.approx(np.pi / np.sqrt(12), rel=0.06)
    assert pdist(centers).min() >= distance


def test_crowds_beyond_the_jamming_of_random_placement_are_placed_in_full():
    shape, distance = (600, 600), 20.0
    count = int(0.75 * np.prod(shape) / (np.pi * (distance / 2) ** 2))
    counts = [len(place_particles(shape, count, [distance], 0, np.random.default_rng(seed))) for seed in range(5)]

    assert min(counts) >= 0.97 * count


@settings(max_examples=20)
@given(st.floats(0, 1), st.integers(0, 99))
def test_clusters_keep_the_distance_too(clustering, seed):
    centers = place_particles((200, 200), 30, [12.0], 10, np.random.default_rng(seed), clustering)

    assert pdist(centers).min() >= 12


def test_clustering_brings_neighbours_nearer():
    nearest = [np.mean(np.concatenate([
        measure_nearest_distances(place_particles((500, 500), 60, [15.0], 0, np.random.default_rng(seed), clustering))
        for seed in range(5)])) for clustering in (0.0, 0.5, 1.0)]

    assert nearest[0] > nearest[1] > nearest[2]
    assert nearest[2] < 1.25 * 15


@pytest.mark.parametrize('count', [10, 400])
def test_no_particle_lies_where_none_may(count):
    is_forbidden = np.zeros((200, 240), dtype=bool)
    is_forbidden[:, 100:] = True
    centers = place_particles((200, 240), count, [10.0], 20, np.random.default_rng(0), is_forbidden=is_forbidden)

    assert len(centers)
    assert centers[:, 1].max() < 99.5


def test_particles_of_many_distances_follow_their_quantiles():
    quantiles = np.linspace(10, 30, 21)
    centers = place_particles((400, 400), 120, quantiles, 0, np.random.default_rng(1))
    nearest = measure_nearest_distances(centers)

    assert nearest.min() >= 10
    assert (nearest < 20).sum() > 10                                # pairs closer than the median exist
    alike = place_particles((400, 400), 120, [30.0], 0, np.random.default_rng(1))
    assert measure_nearest_distances(alike).min() >= 30


def test_places_are_sub_pixel_and_uniform_over_the_frame():
    centers = place_particles((256, 128), 400, [0.5], 0, np.random.default_rng(2))

    assert np.mean(centers == np.rint(centers)) < 0.01
    np.testing.assert_allclose(centers.mean(axis=0), [127.5, 63.5], atol=12)
    np.testing.assert_allclose(centers.std(axis=0), np.array([256, 128]) / np.sqrt(12), rtol=0.1)


def test_counts_are_normal_and_cut_at_two_sd():
    rng = np.random.default_rng(0)
    counts = np.array([draw_count(100, 10, rng) for _ in range(2000)])

    assert counts.min() >= 80
    assert counts.max() <= 120
    assert counts.mean() == pytest.approx(100, abs=1)
    assert counts.std() == pytest.approx(8.80, abs=0.5)             # sd of a normal cut at two sd: 0.880 of it
    assert draw_count(7, 0, rng) == 7
    assert min(draw_count(1, 5, rng) for _ in range(50)) == 0


def test_nearest_distances_of_a_grid_are_its_spacing():
    grid = np.stack(np.meshgrid([0, 7, 14], [0, 7], indexing='ij'), axis=-1).reshape(-1, 2)

    np.testing.assert_allclose(measure_nearest_distances(grid.astype(float)), 7)
    assert len(measure_nearest_distances(np.array([[1.0, 2.0]]))) == 0
