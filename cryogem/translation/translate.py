"""The use of a trained generator on whole micrographs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogem.errors import InputError
from cryogem.translation.generator import ResidualGenerator

TILE = 2048                                 # px: larger frames are translated in tiles of this side


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


def translate(generator: torch.nn.Module, inputs: np.ndarray, tile: int = TILE) -> np.ndarray:
    """Run `generator` over one whole micrograph, on the device the generator is on.

    A residual generator takes frames larger than `tile` piece by piece, each with the margin that it sees, which gives
    the same numbers in less memory. The published network cannot: its norms are over the whole frame.

    Parameters
    ----------
    generator : as `load_generator` returns it.
    inputs : (h, w) or (n_inputs, h, w) float32, scaled as the generator wants it.
    tile : px, a multiple of the generator's `multiple`.

    Returns
    -------
    (h, w) float32.

    Raises
    ------
    InputError : `inputs` is not a frame of finite numbers.
    """
    n_inputs = getattr(generator, 'n_inputs', 1)
    wanted = 'one (h, w) frame' if n_inputs == 1 else f'one ({n_inputs}, h, w) stack'
    is_right = inputs.ndim == 2 if n_inputs == 1 else inputs.ndim == 3 and len(inputs) == n_inputs
    if not is_right or not np.isfinite(inputs).all():
        raise InputError(f'image of shape {inputs.shape} cannot be translated; give {wanted} of finite numbers')
    # A copy: a read-only array cannot be shared with torch.
    whole = torch.from_numpy(inputs.astype(np.float32)).reshape(1, -1, *inputs.shape[-2:])
    device = next(generator.parameters()).device
    with torch.inference_mode():
        if isinstance(generator, ResidualGenerator) and max(inputs.shape[-2:]) > tile:
            return _translate_tiles(generator, whole, device, tile).numpy()
        return generator(whole.to(device))[0, 0].float().cpu().numpy()


def _translate_tiles(generator: ResidualGenerator, whole: Tensor, device: torch.device, tile: int) -> Tensor:
    """Return the (h, w) translation of a `whole` frame (1, n_inputs, h, w), made tile by tile."""
    margin = -(-generator.receptive_field // 2 // generator.multiple) * generator.multiple
    height, width = whole.shape[-2:]
    output = torch.empty((height, width))
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            top, left = max(0, y - margin), max(0, x - margin)
            piece = whole[..., top:y + tile + margin, left:x + tile + margin].to(device)
            made = generator(piece)[0, 0, y - top:y - top + tile, x - left:x - left + tile]
            output[y:y + made.shape[0], x:x + made.shape[1]] = made.cpu()
    return output
