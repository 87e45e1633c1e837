"""Average precision as Topaz computes it, on Topaz's own files, and its intervals."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cryogem.evaluation.frames import Frame
from cryogem.evaluation.pickers import Picks
from cryogem.evaluation.picking import (
    RADIUS_PX,
    TRAINED_RADIUS,
    Course,
    TopazPicker,
    Training,
    compute_average_precision,
    count_labelled,
    find_best_threshold,
    match_picks,
    prove_picking,
    score_picks,
    summarise,
)
from cryogem.evaluation.programs import ProgramError, find_topaz_program
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
                          text=True, timeout=600, check=False)
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


@pytest.mark.parametrize('centers', [[[10, 10]], [[10, 10], [12, 11]], [[0, 0], [39, 59]], np.empty((0, 2))])
def test_labelled_px_are_those_within_the_radius_counted_once(centers):
    y, x = np.mgrid[:40, :60]
    is_labelled = np.zeros((40, 60), dtype=bool)
    for cy, cx in centers:
        is_labelled |= (y - cy) ** 2 + (x - cx) ** 2 <= TRAINED_RADIUS ** 2

    assert count_labelled(np.array(centers), (40, 60)) == is_labelled.sum()


def make_crowded(rng, n, side=200, spacing=20):
    """Return micrographs of discs of radius 8 px on a disturbed grid, as crowded as real ones, under white noise."""
    y, x = np.mgrid[:side, :side]
    frames = []
    for index in range(n):
        grid = np.stack(np.meshgrid(*[np.arange(spacing, side - spacing, spacing)] * 2), axis=-1).reshape(-1, 2)
        centers = grid[rng.random(len(grid)) < 0.6] + rng.integers(-3, 4, (1, 2))
        image = rng.normal(0, 1.6, (side, side))
        for cy, cx in centers:
            image -= np.hypot(y - cy, x - cx) < RADIUS_PX
        frames.append(Frame(f'm{index}', ((image - image.mean()) / image.std()).astype(np.float32),
                            centers.astype(float)))
    return frames


def write_topaz(path, losses):
    """Write a stand-in for the program that keeps what it was told, writes these losses and models of 12 epochs."""
    lines = '\\n'.join(['epoch\\titer\\tsplit\\tloss', *(f'1\\t{i}\\ttrain\\t{one}' for i, one in enumerate(losses))])
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > words.txt\nfor last; do :; done\n'
                    f'printf "{lines}\\n" > "$last"\n'
                    'for i in 01 02 03 04 05 06 07 08 09 10 11 12; do : > "${last%.tsv}_epoch$i.sav"; done\n')
    path.chmod(0o755)
    return str(path)


def test_topaz_is_told_the_share_of_px_that_is_labelled(rng, tmp_path):
    frames = make_crowded(rng, 2)
    picker = TopazPicker((write_topaz(tmp_path / 'topaz', [0.5, 0.3]),), tmp_path / 'work', 2 * RADIUS_PX)
    picker.add_set('arm', frames)
    picker.train(Course('arm', True, (10,), 0))
    words = (tmp_path / 'work' / 'arm' / 'words.txt').read_text().splitlines()
    share = sum(count_labelled(one.centers_yx, one.contrast.shape) for one in frames) / (2 * 200 ** 2)

    assert 0.03 < share < 0.2
    assert float(words[words.index('--pi') + 1]) == pytest.approx(share, abs=1e-6)
    assert words[words.index('--method') + 1] == 'PN'
    assert '--num-particles' not in words
    assert '-n' not in words


def test_several_lengths_are_the_models_of_one_training_on_its_way(rng, tmp_path):
    frames = make_crowded(rng, 1)
    picker = TopazPicker((write_topaz(tmp_path / 'topaz', [0.5]),), tmp_path / 'work', 2 * RADIUS_PX)
    picker.add_set('arm', frames)
    models = picker.train(Course('arm', False, (240, 60, 100), 3))
    words = (tmp_path / 'work' / 'arm' / 'words.txt').read_text().splitlines()

    assert (words[words.index('--epoch-size') + 1], words[words.index('--num-epochs') + 1]) == ('20', '12')
    assert [(one.iterations, Path(path).name) for one, path in models.items()] == [
        (60, 'no-pretrained_3_epoch03.sav'), (100, 'no-pretrained_3_epoch05.sav'), (240, 'no-pretrained_3_epoch12.sav')]
    assert set(models) == {Training('arm', False, length, 3) for length in (60, 100, 240)}
    with pytest.raises(ProgramError, match='no model of epoch 13'):
        picker.train(Course('arm', False, (13, 1), 3))


@pytest.mark.parametrize('losses', [[0.6, -3.0], [0.6, float('nan')], []])
def test_a_training_that_ran_away_is_an_error_and_gives_no_figure(losses, rng, tmp_path):
    frames = make_crowded(rng, 1)
    picker = TopazPicker((write_topaz(tmp_path / 'topaz', losses),), tmp_path / 'work', 2 * RADIUS_PX)
    picker.add_set('arm', frames)

    with pytest.raises(ProgramError, match='ran away'):
        picker.train(Course('arm', True, (10,), 0))
    assert prove_picking(picker, [Course('arm', True, (10,), 0)], {'arm': frames}, frames, RADIUS_PX) == ([], {})


def test_the_topaz_of_this_python_is_started_by_a_module_and_any_other_as_it_is(tmp_path, monkeypatch):
    other = write_topaz(tmp_path / 'topaz', [0.5])
    own = (sys.executable, '-m', 'cryogem.evaluation.topaz_program')
    monkeypatch.setenv('PATH', str(tmp_path / 'empty'))

    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert find_topaz_program('topaz') is None
    assert find_topaz_program(other) == (other,)

    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())
    assert find_topaz_program('topaz') == own
    assert find_topaz_program(other) == (other,)
    assert find_topaz_program(str(tmp_path / 'missing')) is None

    monkeypatch.setattr(sys, 'executable', str(tmp_path / 'python'))
    assert find_topaz_program(other) == (sys.executable, *own[1:])


@pytest.mark.slow
def test_topaz_starts_with_the_common_build_of_torchvision_beside_a_cpu_build_of_torch(tmp_path):
    """What `pip install .[evaluation]` brings; there `topaz` itself ends with: operator torchvision::nms is unknown."""
    python = Path(find_topaz()) / 'bin' / 'python'
    if torch.version.cuda is not None:
        pytest.skip('this torch has all that torchvision needs')
    install = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--target', tmp_path, 'torchvision==0.28.0']
    subprocess.run([python, *install], check=True)
    root = Path(__file__).resolve().parents[2]
    said = subprocess.run([python, '-m', 'cryogem.evaluation.topaz_program', 'train', '--help'], capture_output=True,
                          text=True, check=True, env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{root}'}).stdout

    assert '--pretrained' in said


@pytest.mark.slow
def test_a_trained_topaz_picks_crowded_micrographs_better_than_the_shipped_one(rng, tmp_path):
    program = str(Path(find_topaz()) / 'bin' / 'topaz')
    train, test = make_crowded(rng, 3), make_crowded(rng, 2)
    picker = TopazPicker((program,), tmp_path / 'work', 2 * RADIUS_PX)
    courses = [Course('shipped', True, (0,), 0), Course('arm', True, (20, 40), 0)]
    results, picks = prove_picking(picker, courses, {'arm': train}, test, RADIUS_PX)
    shipped, short, trained = (one.average_precision for one in results)
    lengths = [one.training.iterations for one in results]

    assert lengths == [0, 20, 40]
    assert short > shipped
    assert trained > 0.8
    assert trained > shipped + 0.1
    assert set(picks) == {'shipped', 'arm'}
