"""Model folders, and the use of a trained generator on whole micrographs.

A model folder holds ``card.json`` (architecture, sizes, where the model comes from, checksum) and ``weights.pt``.
Loading never runs code from either.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryogem import __version__
from cryogem.errors import ConfigError, InputError
from cryogem.io.checkpoint import load_checkpoint, save_checkpoint
from cryogem.io.files import compute_checksum, make_folder, read_json, write_json
from cryogem.translation.generator import PaperGenerator, ResidualGenerator

CARD, WEIGHTS = 'card.json', 'weights.pt'
Generator = ResidualGenerator | PaperGenerator
_ARCHITECTURES: dict[str, type[ResidualGenerator] | type[PaperGenerator]] = {
    one.architecture: one for one in (ResidualGenerator, PaperGenerator)}


def save_model(model_dir: Path, generator: Generator, description: dict[str, Any]) -> None:
    """Write `generator` as a model folder; `description` (plain JSON values) goes into its card.

    Raises
    ------
    OutputError : the folder cannot be written.
    """
    make_folder(model_dir)
    # Without its card a folder is no model: no moment exists in which a card speaks of other weights.
    (model_dir / CARD).unlink(missing_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    save_checkpoint(model_dir / WEIGHTS, weights)
    write_json(model_dir / CARD, {
        'architecture': generator.architecture,
        'sizes': generator.sizes,
        'version': __version__,
        'weights_sha256': compute_checksum(model_dir / WEIGHTS),
        'description': description,
    })


def read_card(model_dir: Path) -> dict[str, Any]:
    """Return the card of a model folder.

    Raises
    ------
    InputError : the folder or its card is missing or damaged.
    """
    if not Path(model_dir).is_dir():
        raise InputError(f'model {str(model_dir)!r} is no folder; give the output folder of cryogem train')
    card = read_json(Path(model_dir) / CARD, 'model')
    if not isinstance(card, dict):
        raise InputError(f'model {str(model_dir)!r} has a {CARD} without named values; train or import it again')
    return card


def load_generator(model_dir: Path, device: torch.device | str = 'cpu') -> Generator:
    """Return the trained network of a model folder on `device`, in eval mode.

    Its input and output are (b, 1, h, w) float32, already scaled: contrast units for the architecture ``residual``,
    [-1, 1] for ``paper``.

    Raises
    ------
    InputError : the folder is missing or holds no model, the architecture is unknown, or the weights are damaged.
    """
    model_dir = Path(model_dir)
    generator = _build_generator(model_dir, read_card(model_dir))
    try:
        generator.load_state_dict(load_checkpoint(model_dir / WEIGHTS))
    except RuntimeError as error:
        raise InputError(f'model {str(model_dir)!r} has weights that do not fit the sizes in its {CARD}; '
                         'train or import it again') from error
    return generator.to(device).eval()


def _build_generator(model_dir: Path, card: dict[str, Any]) -> Generator:
    """Build the untrained network a card describes, its weights file checked against the card."""
    architecture = card.get('architecture')
    if architecture not in _ARCHITECTURES:
        raise InputError(f'model {str(model_dir)!r} has the unknown architecture {architecture!r}; '
                         f'this program knows {", ".join(_ARCHITECTURES)}')
    weights = model_dir / WEIGHTS
    if not weights.is_file():
        raise InputError(f'model {str(model_dir)!r} has no {WEIGHTS}; train or import it again')
    if compute_checksum(weights) != card.get('weights_sha256'):
        raise InputError(f'model {str(model_dir)!r} has a damaged {WEIGHTS}, its checksum is not that of {CARD}; '
                         'train or import it again')
    try:
        with torch.random.fork_rng(devices=[]):                     # initial weights draw from the global stream
            return _ARCHITECTURES[architecture](**card.get('sizes', {}))
    except (TypeError, ConfigError) as error:
        raise InputError(f'model {str(model_dir)!r} has the impossible sizes {card.get("sizes")!r} in its {CARD}; '
                         'train or import it again') from error


def translate(generator: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    """Run `generator` over one whole micrograph, on the device the generator is on.

    Parameters
    ----------
    generator : as `load_generator` returns it.
    image : (h, w) float32, scaled as the generator wants it.

    Returns
    -------
    (h, w) float32.

    Raises
    ------
    InputError : `image` is not a frame of finite numbers.
    """
    if image.ndim != 2 or not np.isfinite(image).all():
        raise InputError(f'image of shape {image.shape} cannot be translated; give one (h, w) frame of finite numbers')
    device = next(generator.parameters()).device
    with torch.inference_mode():
        # A copy: a read-only array cannot be shared with torch.
        output = generator(torch.from_numpy(image.astype(np.float32))[None, None].to(device))
    return output[0, 0].cpu().numpy()
