"""Average precision as Topaz computes it, on Topaz's own files, and its intervals."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from cryogem.evaluation.pickers import Picks
from cryogem.evaluation.picking import (
    compute_average_precision,
    find_best_threshold,
    match_picks,
    score_picks,
    summarise,
)
from tests.topaz import find_topaz


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def draw_picks(rng, n_images=3):
    """Return integer targets, and picks of which some are near them; scores have ties."""
    targets = [rng.integers(0, 300, (int(rng.integers(5, 20)), 2)) for _ in range(n_images)]
    picks = []
    for one in targets:
        near = one[rng.random(len(one)) < 0.7] + rng.integers(-4, 5, (1, 2))
        places = np.concatenate([near, rng.integers(0, 300, (15, 2))])
        picks.append(Picks(places.astype(float), np.round(rng.normal(size=len(places)) + (np.arange(
            len(places)) < len(near)), 1)))
    return picks, targets


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(2))
@pytest.mark.parametrize('radius', [8, 20])
def test_the_score_equals_that_of_topaz_on_its_own_files(seed, radius, tmp_path):
    picks, targets = draw_picks(np.random.default_rng(seed))
    with (tmp_path / 'targets.txt').open('w') as file:
        file.write('image_name\tx_coord\ty_coord\n')
        file.writelines(f'm{i}\t{x}\t{y}\n' for i, one in enumerate(targets) for y, x in one)
    with (tmp_path / 'picks.txt').open('w') as file:
        file.write('image_name\tx_coord\ty_coord\tscore\n')
        file.writelines(f'm{i}\t{x:.0f}\t{y:.0f}\t{score}\n' for i, one in enumerate(picks)
                        for (y, x), score in zip(one.centers_yx, one.scores, strict=True))
        file.write('not_among_the_targets\t5\t5\t9\n')
    done = subprocess.run([Path(find_topaz()) / 'bin' / 'topaz', 'precision_recall_curve', '-r', str(radius),
                           '--predicted', 'picks.txt', '--targets', 'targets.txt'], cwd=tmp_path, capture_output=True,
                          text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    expected = float(done.stdout.splitlines()[0].split('auprc=')[1].split(',')[0])
    everywhere = [*picks, Picks(np.array([[5.0, 5.0]]), np.array([9.0]))]

    assert 0.05 < expected < 0.95
    assert score_picks(everywhere, [*targets, np.empty((0, 2))], radius) == pytest.approx(expected, abs=1e-6)


def test_a_pick_at_the_radius_or_beyond_does_not_match():
    matches = match_picks(np.array([[0.0, 8.0], [50.0, 57.9]]), np.array([[0.0, 0.0], [50.0, 50.0]]), 8)

    assert list(matches.is_hit) == [False, True]
    assert list(matches.is_found) == [False, True]


def test_two_picks_on_one_particle_are_one_hit_and_one_in_excess():
    matches = match_picks(np.array([[0.0, 1.0], [0.0, -3.0]]), np.array([[0.0, 0.0]]), 8)

    assert list(matches.is_hit) == [True, False]


def test_missed_particles_count_against_the_score():
    assert compute_average_precision(np.array([True]), np.array([1.0]), 1) == 1
    assert compute_average_precision(np.array([True]), np.array([1.0]), 4) == 0.25
    assert compute_average_precision(np.empty(0), np.empty(0), 4) == 0


def test_a_false_pick_costs_more_the_surer_it_is():
    scores = np.array([3.0, 2.0, 1.0])
    values = [compute_average_precision(np.array(one), scores, 2) for one in
              ([True, True, False], [True, False, True], [False, True, True])]

    assert values == pytest.approx([1, (1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2])


def test_equal_scores_are_taken_together_whatever_their_order():
    hits = np.array([True, False, True, False])

    assert compute_average_precision(hits, np.ones(4), 2) == compute_average_precision(hits[::-1], np.ones(4), 2) == 0.5


def test_perfect_picks_score_one_and_random_ones_little(rng):
    targets = [rng.uniform(0, 1000, (40, 2)) for _ in range(2)]
    perfect = [Picks(one, rng.random(40)) for one in targets]
    random = [Picks(rng.uniform(0, 1000, (40, 2)), rng.random(40)) for _ in range(2)]

    assert score_picks(perfect, targets, 10) == 1
    assert score_picks(random, targets, 10) < 0.1


def test_the_threshold_of_the_pictures_keeps_hits_and_drops_what_is_in_excess():
    targets = [np.array([[10.0, 10.0], [50.0, 50.0]])]
    picks = [Picks(np.array([[10.0, 10.0], [50.0, 50.0], [80.0, 80.0], [30.0, 90.0]]), np.array([4.0, 3.0, 2.0, 1.0]))]

    assert find_best_threshold(picks, targets, 8) == 3.0


def test_the_interval_is_that_of_student():
    # mean 2, sd 1, n 3: t(0.975, 2) = 4.303, half width 4.303 / sqrt 3
    assert summarise([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - 2.484, 2 + 2.484), abs=1e-3)
    assert summarise([0.7]) == (0.7, 0.7, 0.7)
