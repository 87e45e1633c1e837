"""The figures of the report: what is drawn, and what is left out as it says nothing."""

import numpy as np
import pytest
from PIL import Image

from cryogem.evaluation.frames import Frame
from cryogem.evaluation.picking import match_picks
from cryogem.evaluation.plots import draw_picks, find_last_legible_shell

SHELLS = np.arange(128)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_amplitudes_end_where_no_set_is_seen_to_hold_the_clean_twin(rng):
    chance = rng.normal(0, 0.02, (2, 128))
    seen = np.where(SHELLS < 60, 0.8, 0.0)

    assert abs(find_last_legible_shell([chance[0], seen + chance[1]]) - 60) <= 3


def test_where_nothing_is_seen_no_amplitude_is_drawn(rng):
    assert find_last_legible_shell([rng.normal(0, 0.02, 128)]) == 0
    assert find_last_legible_shell([]) == 0


def test_a_ring_of_weak_signal_after_a_zero_of_the_ctf_is_still_drawn():
    rings = np.where((SHELLS < 40) | ((SHELLS > 60) & (SHELLS < 90)), 0.3, 0.0)

    assert abs(find_last_legible_shell([rings]) - 89) <= 3


def test_matched_picks_are_green_misses_red_and_excess_picks_yellow(tmp_path):
    targets = np.array([[50.0, 50.0], [50.0, 150.0]])
    picks = np.array([[51.0, 50.0], [150.0, 150.0]])
    frame = Frame('m', np.zeros((200, 200), dtype=np.float32), targets)
    draw_picks(tmp_path / 'picks.png', [('caption', frame, picks, match_picks(picks, targets, 20))], 40, 1)
    picture = np.asarray(Image.open(tmp_path / 'picks.png').convert('RGB')).astype(int)[30:]
    red, green, blue = np.moveaxis(picture, -1, 0)
    seen = {'hit': (green > 150) & (red < 100), 'miss': (red > 200) & (green < 100),
            'excess': (red > 200) & (green > 150) & (blue < 80)}
    quarters = {name: tuple(np.argwhere(found).mean(axis=0) > 220) for name, found in seen.items()}

    assert quarters == {'hit': (False, False), 'miss': (False, True), 'excess': (True, True)}
