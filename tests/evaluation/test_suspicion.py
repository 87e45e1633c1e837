"""Faulty micrographs are named, sound ones are not; picks away from every record; CTF against label."""

import dataclasses

import numpy as np
import pytest

from cryogem.evaluation.ctf_check import CtfAgreement, CtfCheck, check_ctfs
from cryogem.evaluation.pickers import (
    Picks,
    find_away,
    has_blob_picker,
    measure_hallucinations,
    pick_blobs,
    pick_by_template,
)
from cryogem.evaluation.signal import measure_signal
from cryogem.evaluation.suspicion import find_suspicious
from tests.evaluation.sets import DIAMETER, PIXEL_SIZE, make_set, replace_frame


@pytest.fixture(scope='module')
def frames():
    return make_set('same', 7)


def name_suspects(frames):
    ctfs = check_ctfs(frames, [one.record.ctf for one in frames], PIXEL_SIZE)
    return [(one.kind, one.name) for one in find_suspicious(frames, ctfs, measure_signal(frames), DIAMETER)]


def test_sound_micrographs_are_not_suspected(frames):
    assert name_suspects(frames) == []


def test_a_micrograph_with_a_wrong_defocus_is_named(frames):
    record = frames[2].record
    wrong = dataclasses.replace(record.ctf, defocus_u=record.ctf.defocus_u * 1.15,
                                defocus_v=record.ctf.defocus_v * 1.15)
    faulty = replace_frame(frames, 2, record=dataclasses.replace(record, ctf=wrong))

    assert name_suspects(faulty) == [('defocus', 'same_2')]


def test_a_micrograph_with_unlabelled_particles_is_named(frames):
    kept = frames[4].record.particles[:2]
    faulty = replace_frame(frames, 4, record=dataclasses.replace(frames[4].record, particles=kept),
                           centers_yx=frames[4].centers_yx[:2])

    assert name_suspects(faulty) == [('unlabelled', 'same_4')]


def test_a_micrograph_with_inverted_contrast_is_named(frames):
    faulty = replace_frame(frames, 6, contrast=-frames[6].contrast)

    assert ('contrast', 'same_6') in name_suspects(faulty)
    assert {name for _, name in name_suspects(faulty)} == {'same_6'}


def test_the_words_say_both_defoci(frames):
    checks = tuple(CtfCheck(f'm{i}', 15000.0, 15000.0 if i else 18000.0, 0.5, True) for i in range(4))
    found = find_suspicious([], CtfAgreement(checks), None, DIAMETER)

    assert [one.text for one in found] == [
        'its Thon rings show a defocus of 18000 Å but its label says 15000 Å, more than 3% apart']


def test_no_single_micrograph_is_named_where_most_fits_disagree_with_their_labels():
    checks = tuple(CtfCheck(f'm{i}', 15000.0, 18000.0 + 500 * i, 0.5, True) for i in range(4))

    assert find_suspicious([], CtfAgreement(checks), None, DIAMETER) == []


@pytest.mark.parametrize(('fitted', 'is_trusted', 'agrees', 'contradicts'), [
    (15400.0, True, True, False), (15500.0, True, False, True), (15000.0, False, False, False)])
def test_unclear_rings_neither_agree_nor_contradict(fitted, is_trusted, agrees, contradicts):
    check = CtfCheck('m', 15000.0, fitted, 0.5, is_trusted)

    assert (check.agrees, check.contradicts) == (agrees, contradicts)


def test_rings_of_the_solvent_agree_and_white_noise_after_the_ctf_has_none(frames):
    white = make_set('gaussian', 8, 3)
    shares = [check_ctfs(one, [frame.record.ctf for frame in one], PIXEL_SIZE).share for one in (frames[:3], white)]

    assert shares[0] == 1
    assert shares[1] < 0.5
    assert check_ctfs(white, [None] * 3, PIXEL_SIZE) is None


def test_the_mean_particle_finds_most_particles(frames):
    picks = pick_by_template(frames, DIAMETER)
    found = 0
    for one, frame in zip(picks, frames, strict=True):
        best = one.centers_yx[np.argsort(-one.scores)[:len(frame.centers_yx)]]
        found += (~find_away(frame.centers_yx, best, DIAMETER / 2)).sum()

    assert found > 0.8 * sum(len(one.centers_yx) for one in frames)


def test_picks_away_are_those_farther_than_the_radius():
    known = np.array([[10.0, 10.0], [50.0, 50.0]])

    assert list(find_away(np.array([[10.0, 14.0], [50.0, 56.0], [0.0, 90.0]]), known, 5)) == [False, True, True]
    assert list(find_away(known, np.empty((0, 2)), 5)) == [True, True]
    assert len(find_away(np.empty((0, 2)), known, 5)) == 0


def test_invented_particles_raise_the_share_of_picks_away(frames):
    rng = np.random.default_rng(0)
    right = [Picks(one.centers_yx, np.ones(len(one.centers_yx))) for one in frames]
    # four on every micrograph that are surer than all others
    invented = [Picks(np.concatenate([one.centers_yx, np.full((4, 2), -100.0)]),
                      np.append(np.arange(len(one.centers_yx)) / 100, [5.0] * 4)) for one in frames]
    n = len(frames[0].centers_yx)

    assert measure_hallucinations(right, frames, DIAMETER, rng).share == 0
    found = measure_hallucinations(invented, frames, DIAMETER, rng)
    assert found.share == pytest.approx(4 / n, abs=0.08)
    assert found.low <= found.share <= found.high
    assert measure_hallucinations([], [], DIAMETER, rng) is None


@pytest.mark.slow
def test_relions_blob_picker_finds_particles_and_hardly_anything_else(frames, tmp_path):
    if not has_blob_picker():
        pytest.skip('relion_autopick is not installed')
    picks = pick_blobs(frames[:3], DIAMETER, PIXEL_SIZE, tmp_path)
    found = measure_hallucinations(picks, frames[:3], DIAMETER, np.random.default_rng(0))

    assert all(len(one.centers_yx) for one in picks)
    assert found.share < 0.4
