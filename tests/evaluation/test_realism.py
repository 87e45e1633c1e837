"""The ranking that every distance must reproduce, the floor, and the classifier at chance."""

import numpy as np
import pytest

from cryogem.evaluation.classifier import tell_apart
from cryogem.evaluation.features import extract_features, find_topaz_weights, load_topaz_network
from cryogem.evaluation.realism import (
    Sampling,
    choose_crop_size,
    compare_arm,
    compare_halves,
    measure_frames,
    tell_arms_apart,
)
from tests.evaluation.sets import DIAMETER, make_set
from tests.topaz import find_topaz

KINDS = ('same', 'half_signal', 'shot', 'gaussian', 'photographs')
SEEDS = (0, 1, 2)
SAMPLING = Sampling(160, 4, DIAMETER, SEEDS)


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


@pytest.mark.parametrize('key', ['power', 'background', 'autocorrelation', 'local_variance'])
def test_statistics_rank_the_same_distribution_before_other_noise_and_photographs_last(key, found):
    distances = {kind: found[kind][key].distance for kind in KINDS}

    assert distances['same'] < min(distances['shot'], distances['gaussian'])
    assert distances['same'] < distances['half_signal'] or key == 'autocorrelation'
    assert max(distances['same'], distances['half_signal'], distances['shot']) < distances['gaussian']
    assert distances['gaussian'] < distances['photographs']


def test_the_real_set_itself_stands_at_the_floor(found):
    for key, one in found['real'].items():
        assert one.distance == one.floor, key


@pytest.mark.parametrize('key', ['power', 'background', 'histogram', 'autocorrelation', 'local_variance'])
def test_another_set_of_the_same_distribution_stands_near_the_floor(key, found):
    one = found['same'][key]

    assert one.distance < 1.5 * one.floor + one.floor_spread


@pytest.mark.slow
@pytest.mark.parametrize('distance', ['frechet_topaz', 'kernel_topaz'])
def test_distances_on_topaz_features_rank_all_kinds_in_full(distance, sets, topaz):
    measured = {arm: [measure_frames(frames, SAMPLING, topaz, seed) for seed in SEEDS] for arm, frames in sets.items()}
    found = {arm: compare_arm(measured[arm], measured['real'], SAMPLING)[distance] for arm in KINDS}
    values = [found[kind].distance for kind in KINDS]

    assert values == sorted(values)
    assert values[3] > 5 * values[2]
    assert values[4] > 2 * values[3]
    floor = compare_halves(measured['real'], SAMPLING)[distance]
    assert floor.distance == floor.floor
    assert abs(values[0] - floor.floor) < 4 * floor.floor_spread


def test_features_see_equal_numbers_of_crops_of_every_micrograph(sets):
    seen = []

    def extract(crops):
        seen.append(crops.shape)
        return crops.mean(axis=(1, 2))[:, None]

    measured = measure_frames(sets['real'][:3], SAMPLING, {'plain': extract}, 0)
    assert seen == [(4, 160, 160)] * 3
    assert [one.features['plain'].shape for one in measured] == [(4, 1)] * 3


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
