"""The ranking that every distance must reproduce, the floor, and the classifier at chance."""

import numpy as np
import pytest

from cryogem.evaluation.classifier import tell_apart
from cryogem.evaluation.features import extract_features, find_topaz_weights, load_topaz_network
from cryogem.evaluation.realism import (
    Sampling,
    choose_crop_size,
    compare_arm,
    measure_arm,
    measure_frames,
    tell_arms_apart,
)
from tests.evaluation import reference_sets
from tests.evaluation.sets import DIAMETER, make_set
from tests.topaz import find_topaz

NEAR, WHITE = ('half_signal', 'shot'), ('gaussian', 'poisson_gaussian')
KINDS = ('same', *NEAR, *WHITE, 'photographs')
SEEDS = (0, 1, 2)
SAMPLING = Sampling(160, 6, DIAMETER, SEEDS)


@pytest.fixture(scope='module')
def sets():
    return {'real': make_set('same', 100, 12), **{kind: make_set(kind, i, 12) for i, kind in enumerate(KINDS)}}


@pytest.fixture(scope='module')
def topaz():
    network = load_topaz_network(find_topaz_weights(find_topaz()))
    return {'topaz': lambda crops: extract_features(network, crops)}


@pytest.fixture(scope='module')
def found(sets):
    """Comparisons by statistics alone."""
    measured = {arm: [measure_frames(frames, SAMPLING, {}, seed) for seed in SEEDS[:1]] * 3
                for arm, frames in sets.items()}
    return {arm: compare_arm(one, measured['real'], SAMPLING) for arm, one in measured.items()}


def check_ranking(distances):
    """Statistics see that either near miss is nearer than white noise, not which of the two is: see the test below."""
    near, white = ([distances[kind] for kind in kinds] for kinds in (NEAR, WHITE))

    assert distances['same'] < min(near)
    assert max(near) < min(white)
    assert max(white) < distances['photographs']


@pytest.mark.parametrize('key', ['power', 'background', 'autocorrelation'])
def test_statistics_rank_the_same_distribution_before_other_noise_and_photographs_last(key, found):
    check_ranking({kind: found[kind][key].distance for kind in KINDS})


@pytest.mark.parametrize('key', ['local_variance', 'histogram'])
def test_what_sees_no_spectrum_knows_photographs_alone_from_the_rest(key, found):
    distances = {kind: found[kind][key].distance for kind in KINDS}

    assert distances.pop('photographs') > 5 * max(distances.values())


def test_the_real_set_itself_stands_at_the_floor(found):
    for key, one in found['real'].items():
        assert one.distance == one.floor, key


@pytest.mark.parametrize('key', ['power', 'background', 'histogram', 'autocorrelation', 'local_variance'])
def test_another_set_of_the_same_distribution_stands_near_the_floor(key, found):
    one = found['same'][key]

    assert one.distance < 1.5 * one.floor + one.floor_spread


@pytest.fixture(scope='module')
def found_by_topaz(sets, topaz):
    measured = {arm: [measure_frames(frames, SAMPLING, topaz, seed) for seed in SEEDS] for arm, frames in sets.items()}
    return {arm: compare_arm(one, measured['real'], SAMPLING) for arm, one in measured.items()}


@pytest.mark.slow
@pytest.mark.parametrize('distance', ['frechet_topaz', 'kernel_topaz'])
def test_distances_on_topaz_features_rank_all_kinds_in_full(distance, found_by_topaz):
    found = {arm: one[distance] for arm, one in found_by_topaz.items()}
    distances = {kind: one.distance for kind, one in found.items()}

    check_ranking(distances)
    assert min(distances[kind] for kind in WHITE) > 3 * distances['same']
    assert distances['photographs'] > 20 * max(distances[kind] for kind in WHITE)
    floor = found['real']
    assert floor.distance == floor.floor
    assert abs(distances['same'] - floor.floor) < 3 * floor.floor_spread


@pytest.fixture(scope='module')
def found_on_reference(topaz):
    """Comparisons on the sets that the ranking was first measured on, 16 micrographs with 4 crops each."""
    sampling = Sampling(256, 4, reference_sets.DIAMETER, (0,))
    sets = {'real': reference_sets.make_reference_set('same', 100, 16),
            **{kind: reference_sets.make_reference_set(kind, i, 16) for i, kind in enumerate(KINDS)}}
    measured = {arm: [measure_frames(frames, sampling, topaz, 0)] for arm, frames in sets.items()}
    return {arm: compare_arm(one, measured['real'], sampling) for arm, one in measured.items()}


@pytest.mark.slow
@pytest.mark.parametrize('distance', ['frechet_topaz', 'kernel_topaz'])
def test_topaz_features_see_half_the_signal_before_a_little_more_shot_noise(distance, found_on_reference):
    """When first measured, by another program: 0.016, 0.071, 0.15, white noise 21, photographs 683."""
    found = {kind: found_on_reference[kind][distance].distance for kind in KINDS}

    assert found['same'] < found['half_signal'] < found['shot'] < min(found[kind] for kind in WHITE)
    assert max(found[kind] for kind in WHITE) < found['photographs']


@pytest.mark.slow
@pytest.mark.parametrize('key', ['power', 'background', 'autocorrelation', 'local_variance'])
def test_statistics_see_the_near_misses_of_the_reference_at_the_floor_and_white_noise_beyond(key, found_on_reference):
    """Micrographs at other defoci differ more in these than half a signal of 2 % of the power, or 15 % shot noise."""
    found = {kind: found_on_reference[kind][key] for kind in KINDS}

    assert max(found[kind].distance for kind in ('same', *NEAR)) < min(found[kind].distance for kind in WHITE)
    assert max(found[kind].distance for kind in WHITE) < found['photographs'].distance


def test_features_see_equal_numbers_of_crops_of_every_micrograph(sets):
    seen = []

    def extract(crops):
        seen.append(crops.shape)
        return crops.mean(axis=(1, 2))[:, None]

    measured = measure_frames(sets['real'][:3], SAMPLING, {'plain': extract}, 0)
    assert seen == [(6, 160, 160)] * 3
    assert [one.features['plain'].shape for one in measured] == [(6, 1)] * 3


def test_statistics_of_the_same_micrographs_are_measured_once_and_of_other_noise_anew(sets):
    first = sets['real'][:2]
    same = measure_arm(lambda _: first, SAMPLING, {'plain': lambda crops: crops[0]})
    other = measure_arm({0: first, 1: sets['same'][:2], 2: first}.__getitem__, SAMPLING, {})

    assert all(one[0].statistics is same[0][0].statistics for one in same)
    assert not np.array_equal(same[0][0].features['plain'], same[1][0].features['plain'])
    assert not np.array_equal(other[0][0].statistics.power, other[1][0].statistics.power)


def test_crops_depend_on_the_seed_and_on_nothing_else(sets):
    def first_crop(frames, seed):
        return measure_frames(frames, SAMPLING, {'plain': lambda crops: crops[0]}, seed)[0].features['plain']

    np.testing.assert_array_equal(first_crop(sets['real'][:1], 3), first_crop(sets['real'][:4], 3))
    assert not np.array_equal(first_crop(sets['real'][:1], 3), first_crop(sets['real'][:1], 4))


@pytest.mark.parametrize(('shapes', 'wanted', 'side'), [
    ([(600, 620), (1024, 1024)], None, 256), ([(300, 400)], None, 150), ([(300, 400)], 200, 200)])
def test_the_crops_fit_the_smallest_frame(shapes, wanted, side):
    assert choose_crop_size(shapes, wanted, 256) == side


def test_shuffled_labels_are_at_chance_and_white_noise_is_told_apart(sets):
    pool = [one.contrast for one in sets['real'] + sets['same']]
    order = np.random.default_rng(5).permutation(len(pool))
    shuffled = tell_apart([pool[i] for i in order[:12]], [pool[i] for i in order[12:]], (0,))
    white = tell_apart([one.contrast for one in sets['gaussian']], [one.contrast for one in sets['real']], (0,))

    assert shuffled.is_chance
    assert 0.3 < shuffled.auc < 0.7
    assert white.auc > 0.95
    assert white.low > 0.9
    assert white.n_micrographs == (12, 12)


def test_the_classifier_needs_two_micrographs_of_a_kind(sets):
    images = [one.contrast for one in sets['real'][:2]]

    assert tell_apart(images[:1], images, (0,)) is None
    assert tell_arms_apart({'arm': sets['same'][:1]}, sets['real'][:2], (0,)) == {}
