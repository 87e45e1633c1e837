"""Realism of what a generator makes, measured on held-out real crops; signal it keeps."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryogem.commands.crops import RealCrops
from cryogem.evaluation.features import (
    LEAST_CROP,
    compute_frechet_distance,
    extract_features,
    find_topaz_weights,
    load_topaz_network,
)
from cryogem.evaluation.signal import correlate_shells, sum_spectra
from cryogem.translation.pairs import DrawSimulated, stack_inputs
from cryogem.translation.statistics import TextureStatistics, compare_statistics, measure_statistics
from cryogem.translation.trainer import Translate

logger = logging.getLogger(__name__)

TOPAZ_FRECHET = 'topaz_frechet'             # name of the measure by features that see particles
_SIDE = 192                                 # px of the crops judged, less where the frame is smaller
_BATCH = 4                                  # crops translated at once
_LEAST_SD = 1e-6
_N_BANDS = 8                                # of spatial frequency, in which the loss of signal is judged
_TOLERATED_LOSS = 0.02                      # of correlation with the clean twin, in any band: what chance does


@dataclass(frozen=True)
class Measure:
    """A distance between sets of crops, in two parts, so that what many are compared with is described once.

    Parameters
    ----------
    describe : of (n, c, c) crops, what they are compared by.
    compare : distance of two descriptions, of real and of generated crops.
    """

    name: str
    describe: Callable[[np.ndarray], Any]
    compare: Callable[[Any, Any], float]


def choose_measure(topaz_weights: str, side: int) -> Measure:
    """Return the Fréchet distance of Topaz' features, or classical statistics where there is no Topaz.

    Raises
    ------
    InputError : the weights that were given cannot be used.
    """
    path: Path | None = find_topaz_weights(topaz_weights)
    if path is None or side < LEAST_CROP:
        logger.info('realism is judged by spectrum, histograms and local power: %s',
                    'no Topaz is installed' if path is None else f'crops of {side} px are too small for Topaz')
        return Measure('statistics', _describe_statistics, _compare_statistics)
    network = load_topaz_network(path)
    return Measure(TOPAZ_FRECHET, lambda crops: extract_features(network, normalise_crops(crops)),
                   compute_frechet_distance)


def normalise_crops(crops: np.ndarray) -> np.ndarray:
    """Give each of (n, c, c) crops zero mean and unit sd."""
    centered = crops - crops.mean(axis=(1, 2), keepdims=True)
    return centered / np.maximum(centered.std(axis=(1, 2), keepdims=True), _LEAST_SD)


def _describe_statistics(crops: np.ndarray) -> TextureStatistics:
    with torch.inference_mode():
        return measure_statistics(torch.from_numpy(crops[:, None]))


def _compare_statistics(real: TextureStatistics, generated: TextureStatistics) -> float:
    with torch.inference_mode():
        return float(compare_statistics(generated, real))


class HeldOut:
    """Held-out real crops and simulated ones to set against them, the same at every call.

    Parameters
    ----------
    topaz_weights : as the setting of that name.
    real : the held-out micrographs.
    make_draw : (side) -> what draws simulated crops of that side.
    whole : px, side of the frames that the generator must be given; None: it takes the crops themselves.
    is_conditioned : whether the generator sees signal and textures beside the prior.
    n_crops : of each kind.
    seed : of all crops.
    """

    def __init__(self, topaz_weights: str, real: RealCrops, make_draw: Callable[[int], DrawSimulated],
                 whole: int | None, is_conditioned: bool, n_crops: int, seed: int):
        self.side = min(_SIDE, *real.shape, whole or _SIDE) // 16 * 16
        self.measure = choose_measure(topaz_weights, self.side)
        streams = [np.random.default_rng(one) for one in np.random.SeedSequence(seed).spawn(2 * n_crops)]
        self.real = np.stack([real.draw(rng, self.side) for rng in streams[:n_crops]])
        self._described = self.measure.describe(self.real)
        frame = whole or self.side
        self._windows = [(slice(y, y + self.side), slice(x, x + self.side))
                         for y in range(0, frame - self.side + 1, self.side)
                         for x in range(0, frame - self.side + 1, self.side)]
        n_frames = -(-n_crops // len(self._windows))
        draw = make_draw(frame)
        inputs, cleans = [], []
        for rng in streams[n_crops:n_crops + n_frames]:
            crop = draw(rng, frame)
            cleans.append(crop.signal)
            inputs.append(stack_inputs(crop.prior, crop.signal, rng) if is_conditioned else crop.prior[None])
        self._n_crops = n_crops
        self._inputs = torch.from_numpy(np.stack(inputs).astype(np.float32))
        self.clean = self._cut(np.stack(cleans))

    def translate(self, translate: Translate) -> np.ndarray:
        """Return the (n, c, c) translations of the simulated crops."""
        made = [translate(self._inputs[first:first + _BATCH]).cpu() for first in range(0, len(self._inputs), _BATCH)]
        return self._cut(torch.cat(made)[:, 0].numpy())

    def judge(self, translate: Translate) -> float:
        """Return how far the translations are from the held-out real crops."""
        return self.measure_distance(self.translate(translate))

    def measure_distance(self, crops: np.ndarray) -> float:
        """Return how far (n, side, side) crops are from the held-out real ones."""
        return self.measure.compare(self._described, self.measure.describe(crops))

    def _cut(self, frames: np.ndarray) -> np.ndarray:
        return np.stack([frame[window] for frame in frames for window in self._windows])[:self._n_crops]


def keep_prior(inputs: torch.Tensor) -> torch.Tensor:
    """Translate nothing: return the prior of `inputs`."""
    return inputs[:, :1]


def measure_gates(held_out: HeldOut, seen: RealCrops, translate: Translate, seed: int) -> dict[str, Any]:
    """Say what a trained model passes: realism, signal.

    Parameters
    ----------
    held_out : crops that took no part in choosing the model.
    seen : the micrographs that were learned from; held-out ones differ from them by the floor.
    seed : of the crops of `seen`.
    """
    rng = np.random.default_rng(seed)
    crops = np.stack([seen.draw(rng, held_out.side) for _ in range(len(held_out.real))])
    floor = held_out.measure_distance(crops)
    made, prior = held_out.translate(translate), held_out.translate(keep_prior)
    model_distance, prior_distance = map(held_out.measure_distance, (made, prior))
    spectra = [sum_spectra(one, held_out.clean) for one in (made, prior)]
    kept, kept_by_prior = (correlate_shells(one, _N_BANDS) for one in spectra)
    shells, shells_of_prior = (correlate_shells(one) for one in spectra)
    lost = float(np.max(kept_by_prior - kept))
    return {
        'realism': {'passed': model_distance < prior_distance, 'measure': held_out.measure.name,
                    'model': model_distance, 'prior': prior_distance, 'floor': floor,
                    'ratio_model': model_distance / floor, 'ratio_prior': prior_distance / floor,
                    'n_crops': len(held_out.real), 'crop_size': held_out.side},
        'signal': {'passed': lost <= _TOLERATED_LOSS, 'largest_loss': lost,
                   'correlation_model': kept.round(4).tolist(), 'correlation_prior': kept_by_prior.round(4).tolist(),
                   'by_shell_model': shells.round(4).tolist(), 'by_shell_prior': shells_of_prior.round(4).tolist()},
    }
