"""The last touch to a model of the `fast` preset: how strong its signal is, by the features that judge it.

Textures, which the training compares, hardly say how strong a signal under noise is; features of a network that was
made to see particles do.
"""

import copy
import logging
from pathlib import Path

import numpy as np
import torch

from cryogem.commands.judging import TOPAZ_FRECHET, HeldOut
from cryogem.commands.training_plan import TrainingPlan
from cryogem.translation.generator import ResidualGenerator
from cryogem.translation.model import load_generator, read_card, save_model
from cryogem.translation.trainer import Translate
from cryogem.translation.translate import build_translator

_CHANGES = (-0.06, 0.0, 0.06, 0.12)         # of the signal, of itself, to which a parabola is fitted; none is larger
_CROPS = 96                                 # of each kind
_STREAM = 2                                 # added to the seed: crops that neither choose nor judge the model

logger = logging.getLogger(__name__)


def settle_signal(plan: TrainingPlan, output: Path, held_out: HeldOut) -> None:
    """Change the strength of the signal of the model in `output` to what brings it nearest to real crops.

    It is found on the micrographs learned from, and kept if the held-out ones agree. Nothing is done twice, nor without
    features that see particles, nor to a network without a signal of its own.
    """
    card, generator = read_card(output), load_generator(output)
    description = card['description']
    if (not isinstance(generator, ResidualGenerator) or generator.n_inputs < 2 or 'signal_change' in description
            or held_out.measure.name != TOPAZ_FRECHET):
        return
    seen = plan.draw_crops(plan.real, _CROPS, plan.config.seed + _STREAM)
    translate = build_translator(generator, description)
    change = find_change(seen, translate)
    settled = change_signal(generator, change)
    before, after = held_out.judge(translate), held_out.judge(build_translator(settled, description))
    logger.info('signal changed by %+.1f %%: distance to held-out real crops %.4g, before %.4g%s', 100 * change, after,
                before, '' if after < before else '; not kept')
    if after < before:
        realism = {**(description.get('realism') or {}), 'model': after}
        save_model(output, settled, {**description, 'signal_change': round(change, 4), 'realism': realism},
                   f'settled_{card["weights"]}')


def find_change(seen: HeldOut, translate: Translate) -> float:
    """Return by what share of itself more signal brings translated crops nearest to the real crops of `seen`."""
    made = seen.translate(translate)
    distances = [seen.measure_distance(made + change * seen.clean) for change in _CHANGES]
    curvature, slope, _ = np.polyfit(_CHANGES, distances, 2)
    if curvature <= 0:                      # no least distance: the best that was tried
        return _CHANGES[int(np.argmin(distances))]
    return float(np.clip(-slope / (2 * curvature), _CHANGES[0], _CHANGES[-1]))


def change_signal(generator: ResidualGenerator, change: float) -> ResidualGenerator:
    """Return a copy of `generator` whose signal is stronger by a share, to first order."""
    changed = copy.deepcopy(generator)
    with torch.no_grad():
        changed.gains[1] = torch.atanh((torch.tanh(changed.gains[1]) + change).clamp(-0.99, 0.99))
    return changed
