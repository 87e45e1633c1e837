"""The use of a trained generator on whole micrographs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogem.errors import InputError
from cryogem.translation.generator import ResidualGenerator

_BYTES_PER_PIXEL = 160                      # of a residual network of the default width at work; measured: 122 to 136
_SMALLEST_TILE = 64                         # px
_LARGEST_BATCH = 16                         # beyond it a device gains nothing


@dataclass(frozen=True)
class Passes:
    """How frames go through a network."""

    batch_size: int = 1                     # frames at once
    tile: int | None = None                 # px, side of the pieces of a larger frame, a multiple of the generator's


WHOLE = Passes()


def build_translator(generator: torch.nn.Module, description: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """Return what translates inputs (b, n_inputs, h, w) in contrast units with a model trained here.

    Parameters
    ----------
    description : of the model's card; a `contrast_span` in it is what the network's [-1, 1] stands for.
    """
    span, device = description.get('contrast_span'), next(generator.parameters()).device

    def run(inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            inputs = inputs.to(device)
            return generator(inputs) if span is None else generator((inputs / span).clamp(-1, 1)) * span

    return run


def translate_scaled(generator: torch.nn.Module, prior: np.ndarray, span: float | None) -> np.ndarray:
    """Run a published network, which works in [-1, 1], over a `prior` (h, w) in contrast units.

    Parameters
    ----------
    span : contrast units that [-1, 1] stands for, either side, in a network trained here; None for one that came with
        its published scaling: the range of the frame on the way in, unit sd on the way out.
    """
    if span is not None:
        return translate(generator, np.clip(prior / span, -1, 1)) * np.float32(span)
    low, high = float(prior.min()), float(prior.max())
    output = translate(generator, (prior - low) / (high - low + 1e-8) * 2 - 1)
    return ((output - output.mean()) / output.std()).astype(np.float32)


def plan_passes(generator: torch.nn.Module, shape: tuple[int, int], memory: float) -> Passes:
    """Say how frames of `shape` (h, w) go through a network that may take `memory` GiB at once.

    What comes out does not depend on the number of frames, of processes, nor on the memory that is free at the time.

    Raises
    ------
    InputError : not even a small tile fits.
    """
    if not isinstance(generator, ResidualGenerator):
        return Passes()
    frame, available = _BYTES_PER_PIXEL * math.prod(shape), int(memory * 2 ** 30)
    if frame > available:
        side = math.isqrt(available // _BYTES_PER_PIXEL) - 2 * _find_margin(generator)
        if side < _SMALLEST_TILE:
            needed = _BYTES_PER_PIXEL * (_SMALLEST_TILE + 2 * _find_margin(generator)) ** 2
            raise InputError(f'network_memory {memory:g} GiB is too little for any tile; give at least '
                             f'{math.ceil(needed / 2 ** 30 * 100) / 100:g}')
        return Passes(tile=side // generator.multiple * generator.multiple)
    # on a CPU frames beside each other take as long as one after the other
    is_on_cpu = next(generator.parameters()).device.type == 'cpu'
    return Passes(1 if is_on_cpu else min(_LARGEST_BATCH, available // frame))


def translate(generator: torch.nn.Module, inputs: np.ndarray, passes: Passes = WHOLE) -> np.ndarray:
    """Run `generator` over one whole micrograph, as `translate_all` does over several."""
    return translate_all(generator, [inputs], passes)[0]


def translate_all(generator: torch.nn.Module, frames: Sequence[np.ndarray], passes: Passes = WHOLE) -> list[np.ndarray]:
    """Run `generator` over whole micrographs of one shape, on the device the generator is on.

    A residual generator takes large frames piece by piece, each with the margin that it sees, which gives the same
    numbers in less memory. The published network cannot: its norms are over the whole frame.

    Parameters
    ----------
    generator : as `load_generator` returns it.
    frames : (h, w) or (n_inputs, h, w) float32 each, scaled as the generator wants it.
    passes : with tiles for a residual generator alone.

    Returns
    -------
    (h, w) float32 each. What else is in its batch changes no bit of a frame.

    Raises
    ------
    InputError : one of `frames` is not a frame of finite numbers.
    """
    n_inputs = getattr(generator, 'n_inputs', 1)
    for one in frames:
        _check_frame(one, n_inputs)
    device = next(generator.parameters()).device
    made: list[np.ndarray] = []
    with torch.inference_mode():
        for first in range(0, len(frames), passes.batch_size):
            taken = list(frames[first:first + passes.batch_size])
            # always as many as in a full batch: libraries choose other sums for other sizes
            filled = taken + taken[-1:] * (passes.batch_size - len(taken))
            batch = torch.from_numpy(np.stack(filled).astype(np.float32)).reshape(
                len(filled), n_inputs, *filled[0].shape[-2:])
            if isinstance(generator, ResidualGenerator) and passes.tile and max(batch.shape[-2:]) > passes.tile:
                output = _translate_tiles(generator, batch, device, passes.tile)
            else:
                output = generator(batch.to(device))[:, 0].float().cpu()
            made += list(output[:len(taken)].numpy())
    return made


def _check_frame(inputs: np.ndarray, n_inputs: int) -> None:
    wanted = 'one (h, w) frame' if n_inputs == 1 else f'one ({n_inputs}, h, w) stack'
    is_right = inputs.ndim == 2 if n_inputs == 1 else inputs.ndim == 3 and len(inputs) == n_inputs
    if not is_right or not np.isfinite(inputs).all():
        raise InputError(f'image of shape {inputs.shape} cannot be translated; give {wanted} of finite numbers')


def _find_margin(generator: ResidualGenerator) -> int:
    """Return the px around a tile that have an influence on it, rounded up to where tiles may begin."""
    return -(-generator.receptive_field // 2 // generator.multiple) * generator.multiple


def _translate_tiles(generator: ResidualGenerator, whole: Tensor, device: torch.device, tile: int) -> Tensor:
    """Return the (b, h, w) translation of `whole` frames (b, n_inputs, h, w), made tile by tile."""
    margin = _find_margin(generator)
    height, width = whole.shape[-2:]
    output = torch.empty((len(whole), height, width))
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            top, left = max(0, y - margin), max(0, x - margin)
            piece = whole[..., top:y + tile + margin, left:x + tile + margin].to(device)
            made = generator(piece)[:, 0, y - top:y - top + tile, x - left:x - left + tile]
            output[:, y:y + made.shape[1], x:x + made.shape[2]] = made.cpu()
    return output
