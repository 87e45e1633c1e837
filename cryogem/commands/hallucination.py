"""Whether a trained model shows particles where none was placed: picks away from every record, beside the prior's."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cryogem.commands.crops import FreshCrops
from cryogem.commands.judging import keep_prior
from cryogem.commands.training_plan import TrainingPlan, build_training_protocol
from cryogem.dataset.tables import select_particles
from cryogem.evaluation.frames import Frame, build_frame
from cryogem.evaluation.pickers import Hallucinations, measure_hallucinations, pick_untrained
from cryogem.evaluation.programs import ProgramError
from cryogem.imaging.grey import GreyScale
from cryogem.records import Micrograph
from cryogem.translation.pairs import stack_inputs
from cryogem.translation.trainer import Translate

logger = logging.getLogger(__name__)

_LARGEST_SIDE = 1024                        # px
_PARTICLES = 300                            # wanted in all frames together
_FRAMES = (4, 32)                           # at least and at most
_STREAM = 3                                 # random stream of the seed, apart from those of the training


def judge_hallucinations(plan: TrainingPlan, translate: Translate, seed: int) -> dict[str, Any]:
    """Let a picker that learned from nothing here look at simulations under the prior and after translation.

    The model passes when its share of picks away from every particle is not above the 95 % interval of the prior's.

    Returns
    -------
    Plain JSON values for the card; ``passed`` is None, with the reason in ``note``, where nothing could be measured.
    """
    both = make_pairs(plan, translate, seed)
    calibration = plan.dataset.calibration
    diameter_px = calibration.particle_diameter / calibration.pixel_size
    found: list[Hallucinations | None] = []
    picker = ''
    try:
        for frames in both:
            picker, picks = pick_untrained(frames, diameter_px, calibration.pixel_size)
            found.append(measure_hallucinations(picks, frames, diameter_px, np.random.default_rng(seed)))
    except ProgramError as error:
        return {'passed': None, 'picker': 'RELION LoG', 'note': f'not measured: {error}'}
    prior, model = found
    known = {'picker': picker, 'n_frames': len(both[0]),
             **{name: {'share': one.share, 'low': one.low, 'high': one.high, 'n_picks': one.n_picks}
                for name, one in (('prior', prior), ('model', model)) if one is not None}}
    if prior is None or model is None:
        return {'passed': None, **known, 'note': 'not measured: there were no particles, or nothing was picked'}
    return {'passed': model.share <= prior.high, **known}


@torch.inference_mode()
def make_pairs(plan: TrainingPlan, translate: Translate, seed: int) -> tuple[list[Frame], list[Frame]]:
    """Return simulated frames under the prior and the same ones translated, with their records."""
    calibration = plan.dataset.calibration
    side = plan.crop_size if plan.config.preset == 'paper' else min(_LARGEST_SIDE, *calibration.shape) // 16 * 16
    protocol = build_training_protocol(plan.config, plan.dataset)
    crops = FreshCrops(plan.dataset, protocol, side, plan.recipe)
    mean = protocol.particles_per_frame[0] * side ** 2 / math.prod(calibration.shape)
    n_frames = min(max(_FRAMES[0], math.ceil(_PARTICLES / max(mean, 1e-6))), _FRAMES[1])
    pairs: tuple[list[Frame], list[Frame]] = ([], [])
    for stream in np.random.SeedSequence(seed, spawn_key=(0, _STREAM)).spawn(n_frames):
        rng = np.random.default_rng(stream)
        crop, record = crops.draw_labelled(rng, side)
        inputs = stack_inputs(crop.prior, crop.signal, rng) if plan.is_conditioned else crop.prior[None]
        batch = torch.from_numpy(inputs[None].astype(np.float32))
        for frames, change in zip(pairs, (keep_prior, translate), strict=True):
            frames.append(_build_frame(change(batch)[0, 0].cpu().numpy(), record))
    return pairs


def _build_frame(contrast: np.ndarray, record: Micrograph) -> Frame:
    """Return an (h, w) picture in contrast units of its record as it is judged."""
    centers = np.array([one.center_yx for one in select_particles(record)]).reshape(-1, 2)
    grey = GreyScale(record.grey_mean, record.grey_sd).restore(contrast)
    return build_frame(record.name, grey, centers, -1 if record.grey_sd < 0 else 1, record)


def list_failures(gates: dict[str, Any]) -> Sequence[str]:
    """Return a sentence for each part of the gate of signal that a model does not pass."""
    signal, picks = gates['signal'], gates['hallucinations']
    sentences = []
    if not signal['passed']:
        sentences.append(f'the model loses signal: its correlation with the clean twin is {signal["largest_loss"]:.3f} '
                         'below that of the prior in some band')
    if picks['passed'] is False:
        sentences.append(f'the model shows particles where none is: {picks["model"]["share"]:.1%} of the picks of '
                         f'{picks["picker"]} are away from every particle, {picks["prior"]["share"]:.1%} on its prior')
    return sentences
