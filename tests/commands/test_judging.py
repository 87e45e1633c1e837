import dataclasses
from typing import Any

import numpy as np

from cryogem.commands import judging
from cryogem.commands.judging import HeldOut, choose_measure, keep_prior
from cryogem.translation.pairs import SimulatedCrop

SIDE = 64                                   # px: too small for Topaz, so judged by statistics


class RealStandIn:
    """Real micrographs whose crops are skewed noise."""

    shape = (SIDE, SIDE)

    def draw(self, rng: np.random.Generator, side: int) -> np.ndarray:
        return rng.gamma(2.0, 1.0, (side, side)).astype(np.float32) - 2


def draw_simulated(rng: np.random.Generator, side: int) -> SimulatedCrop:
    noise = rng.standard_normal((side, side), dtype=np.float32)
    return SimulatedCrop(noise, np.zeros((side, side), bool), np.zeros_like(noise))


def make_held_out() -> HeldOut:
    real: Any = RealStandIn()
    return HeldOut('', real, lambda side: draw_simulated, None, False, 6, 3)


def test_real_crops_are_described_once_however_often_they_judge(monkeypatch):
    described = []

    def count(topaz_weights, side):
        measure = choose_measure(topaz_weights, side)
        return dataclasses.replace(measure, describe=lambda crops: described.append(1) or measure.describe(crops))

    monkeypatch.setattr(judging, 'choose_measure', count)
    held_out = make_held_out()
    assert held_out.judge(keep_prior) == held_out.judge(keep_prior) > 0
    assert len(described) == 3              # the real ones, and twice what was made


def test_what_is_like_the_real_crops_is_nearer_than_their_prior():
    held_out = make_held_out()
    rng = np.random.default_rng(8)
    alike = np.stack([RealStandIn().draw(rng, SIDE) for _ in range(6)])
    assert held_out.measure_distance(held_out.real) == 0
    assert held_out.measure_distance(alike) < 0.3 * held_out.judge(keep_prior)
