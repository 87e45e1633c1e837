"""The fast preset on a detector that the measured noise cannot express."""

import numpy as np
import pytest
import torch

from cryogem.config import TrainConfig, build_config
from cryogem.translation.engine import Engine
from cryogem.translation.learner import Learner
from cryogem.translation.pairs import CropSampler, stack_inputs
from cryogem.translation.settings import TrainerSettings
from cryogem.translation.statistics import StatisticsGoal, measure_statistics
from cryogem.translation.textures import SCALES
from tests.translation.detector import SIDE, draw_real, draw_simulated, make_judge

pytestmark = pytest.mark.slow

_STEPS, _CROP, _BATCH = 125, 64, 16


def make_goal() -> StatisticsGoal:
    crops = [[draw(np.random.default_rng((9, i)), _CROP) for i in range(192)]
             for draw in (draw_real, lambda rng, size: draw_simulated(rng, size).prior)]
    return StatisticsGoal(*(measure_statistics(torch.from_numpy(np.stack(one)[:, None])) for one in crops))


def test_the_fast_preset_learns_patches_and_tails_that_no_spectrum_holds():
    other, distance = make_judge()[1:]
    inputs = []
    for i in range(96):
        crop = draw_simulated(np.random.default_rng((7, i)), SIDE)
        inputs.append(stack_inputs(crop.prior, crop.signal, np.random.default_rng((8, i))))
    stack = torch.from_numpy(np.stack(inputs))
    defaults = build_config(TrainConfig, {'dataset': 'd', 'micrographs': ['m'], 'output': 'o'})
    settings = TrainerSettings(
        max_steps=_STEPS, checkpoint_every=_STEPS, learning_rate=1e-3, temperature=0.07, n_positions=128, seed=1,
        n_inputs=2 + len(SCALES), **{key: defaults.choose(key) for key in (
            'adversarial_weight', 'contrastive_weight', 'statistics_weight')})
    learner = Learner(settings, Engine(), make_goal())
    sampler = CropSampler(draw_simulated, draw_real, _CROP, _BATCH, 1, is_conditioned=True)
    for step in range(_STEPS):
        learner.learn(sampler.draw(step), step)
    made = torch.cat([learner.translate(stack[first:first + 8]) for first in range(0, len(stack), 8)])[:, 0].numpy()
    floor, prior, model = distance(other), distance(stack[:, 0].numpy()), distance(made)

    assert prior > 4 * floor                            # the spectrum alone leaves much to be learned
    assert model < prior / 3
    signals, masks = stack[:, 1].numpy(), stack[:, 1].numpy() < 0
    noise = made - signals
    assert noise[~masks].mean() == pytest.approx(noise[masks].mean(), abs=0.2)      # the particles are still there
