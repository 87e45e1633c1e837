"""Whether a model shows what its data hold or what it was told: two halves that should agree, and a decoy.

A model of each half of the real micrographs is trained; what they do to the same simulations should agree. The decoy is
trained on a specimen without particles, so whatever looks like a particle in its pictures was put there by learning
alone. The same is counted in what the model itself makes of an empty specimen.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from cryogem.commands.crops import FreshCrops, RealCrops
from cryogem.commands.judging import keep_prior
from cryogem.commands.training_plan import TrainingPlan, build_training_protocol
from cryogem.translation.engine import Engine
from cryogem.translation.model import load_generator, read_card
from cryogem.translation.trainer import Support, Translate, train
from cryogem.translation.translate import build_translator

logger = logging.getLogger(__name__)

GUARD = 'guard'
_STRONG = 4.0                               # sd of smoothed noise beyond which a dark blob counts as a particle
_N_EMPTY = 32                               # crops without particles that are looked at


def measure_bias(plan: TrainingPlan, output: Path, engine: Engine) -> dict[str, Any]:
    """Train the halves and the decoy below `output`, going on where an interrupted run stopped; say what they show.

    Returns
    -------
    Plain JSON values for the card; empty in all but the first process.
    """
    models = {}
    for number, real in enumerate(split_real(plan), 1):
        models[f'half_{number}'] = dataclasses.replace(plan, real=real)
    models['decoy'] = dataclasses.replace(plan, simulated=_make_empty(plan, plan.crop_size).draw)
    for name, part in models.items():
        logger.info('bias guard: training %s', name)
        held_out = part.build_judge(plan.config.seed) if name != 'decoy' and plan.split else None
        train(part.build_sampler(engine), part.settings, output / GUARD / name, True, part.describe(engine),
              Support(held_out.judge if held_out else None, part.measure_textures(), None, plan.config.workers), engine)
    return _report(plan, output) if engine.is_first else {}


def split_real(plan: TrainingPlan) -> list[RealCrops]:
    """Return the real micrographs that are learned from as two halves: of the files, or of a single one's columns."""
    calibration, pixel_size = plan.dataset.calibration, plan.config.pixel_size
    part = plan.split.train_part if plan.split else (0.0, 1.0)
    files = plan.real.files
    if len(files) > 1:
        return [RealCrops(files[start::2], pixel_size, calibration, part) for start in (0, 1)]
    middle = sum(part) / 2
    return [RealCrops(files, pixel_size, calibration, one) for one in ((part[0], middle), (middle, part[1]))]


def count_particles(crops: np.ndarray, noise: np.ndarray, diameter_px: float) -> float:
    """Count what stands out like a particle in (n, h, w) crops, per crop.

    Parameters
    ----------
    noise : (n, h, w) crops without particles: their smoothed sd is the unit.
    diameter_px : of the particle, px.
    """
    # blobs of the particle's size, against what is around them: ice is no particle
    blobs = [np.stack([gaussian_filter(crop, diameter_px / 4) - gaussian_filter(crop, diameter_px) for crop in one])
             for one in (crops, noise)]
    darkness = -blobs[0] / blobs[1].std()
    size = max(3, int(diameter_px))
    peaks = darkness == np.stack([maximum_filter(one, size) for one in darkness])
    return float((peaks & (darkness > _STRONG)).sum() / len(crops))


def _make_empty(plan: TrainingPlan, side: int) -> FreshCrops:
    protocol = build_training_protocol(plan.config, plan.dataset)
    return FreshCrops(plan.dataset, dataclasses.replace(protocol, particles_per_frame=(0.0, 0.0)), side, plan.recipe)


def _report(plan: TrainingPlan, output: Path) -> dict[str, Any]:
    translate = {name: _load(output / GUARD / name) for name in ('half_1', 'half_2', 'decoy')}
    real = plan.real if plan.split is None else plan.open_held_out()
    empty, full = (plan.draw_crops(real, _N_EMPTY, plan.config.seed + 2, make_draw)
                   for make_draw in (lambda side: _make_empty(plan, side).draw, plan.make_draw))
    prior, *halves = (full.translate(one) for one in (keep_prior, translate['half_1'], translate['half_2']))
    change = np.sqrt(np.mean([np.mean((half - prior) ** 2) for half in halves]))
    diameter = plan.dataset.calibration.particle_diameter / plan.dataset.calibration.pixel_size
    noise = empty.translate(keep_prior)
    counts = {name: count_particles(empty.translate(one), noise, diameter)
              for name, one in (('prior', keep_prior), ('model', _load(output)), ('decoy', translate['decoy']))}
    return {
        'halves': {'distances': [full.measure_distance(half) for half in halves],
                   'prior': full.measure_distance(prior),
                   'disagreement': float(np.sqrt(np.mean((halves[0] - halves[1]) ** 2)) / max(float(change), 1e-12))},
        'particles_on_empty_crops': {**counts, 'placed_on_full_crops': count_particles(prior, noise, diameter)},
    }


def _load(folder: Path) -> Translate:
    return build_translator(load_generator(folder), read_card(folder)['description'])
