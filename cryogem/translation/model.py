"""Model folders: ``card.json`` (architecture, sizes, where the model comes from, checksum) and weights in safetensors.

Loading never runs code from either. The card names the file of its weights and is replaced last, so a folder holds a
whole model at every moment, whatever kills the program that writes it.
"""

import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from cryogem import __version__
from cryogem.errors import ConfigError, InputError
from cryogem.io.files import compute_checksum, make_folder, read_json, replace_when_done, write_json
from cryogem.translation.generator import ResidualGenerator
from cryogem.translation.paper import PaperGenerator

CARD, WEIGHTS = 'card.json', 'weights.safetensors'
Generator = ResidualGenerator | PaperGenerator
_ARCHITECTURES: dict[str, type[ResidualGenerator] | type[PaperGenerator]] = {
    one.architecture: one for one in (ResidualGenerator, PaperGenerator)}


def save_model(model_dir: Path, generator: Generator, description: dict[str, Any], weights: str = WEIGHTS) -> None:
    """Write `generator` as a model folder, in the place of the model that is there.

    Parameters
    ----------
    description : plain JSON values for the card.
    weights : name of the file with the weights; another one than that of the model to be replaced.

    Raises
    ------
    OutputError : the folder cannot be written.
    """
    make_folder(model_dir)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    with replace_when_done(model_dir / weights) as temporary:
        temporary.write_bytes(save(state))
    write_json(model_dir / CARD, {
        'architecture': generator.architecture,
        'sizes': generator.sizes,
        'version': __version__,
        'versions': {'torch': torch.__version__, 'numpy': np.__version__,
                     'python': platform.python_version()},
        'weights': weights,
        'weights_sha256': compute_checksum(model_dir / weights),
        'description': description,
    })
    for other in model_dir.glob('*.safetensors'):
        if other.name != weights:
            with suppress(OSError):         # a file too many harms nobody
                other.unlink()


def describe_model(model_dir: Path, description: dict[str, Any]) -> None:
    """Replace the description in the card of a model folder."""
    write_json(model_dir / CARD, {**read_card(model_dir), 'description': description})


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


def passes_gate(card: dict[str, Any]) -> bool:
    """Say whether a model was not found to be worse than its prior; one that was never judged passes."""
    return bool(card.get('description', {}).get('gates', {}).get('realism', {}).get('passed', True))


def load_generator(model_dir: Path, device: torch.device | str = 'cpu') -> Generator:
    """Return the trained network of a model folder on `device`, in eval mode.

    Its input (b, n_inputs, h, w) and output (b, 1, h, w) are float32 and scaled: contrast units for the architecture
    ``residual``, [-1, 1] for ``paper``.

    Raises
    ------
    InputError : the folder is missing or holds no model, the architecture is unknown, or the weights are damaged.
    """
    model_dir = Path(model_dir)
    card = read_card(model_dir)
    generator = _build_generator(model_dir, card)
    try:
        generator.load_state_dict(load_file(_check_weights(model_dir, card)))
    except (RuntimeError, SafetensorError) as error:
        raise InputError(f'model {str(model_dir)!r} has weights that do not fit the sizes in its {CARD}; '
                         'train or import it again') from error
    return generator.to(device).eval()


def _check_weights(model_dir: Path, card: dict[str, Any]) -> Path:
    """Return the file of the weights, its bytes checked against the card."""
    name = card.get('weights')
    if not isinstance(name, str) or Path(name).name != name or not (model_dir / name).is_file():
        raise InputError(f'model {str(model_dir)!r} has no weights {name!r}; train or import it again')
    if compute_checksum(model_dir / name) != card.get('weights_sha256'):
        raise InputError(f'model {str(model_dir)!r} has a damaged {name}, its checksum is not that of {CARD}; '
                         'train or import it again')
    return model_dir / name


def _build_generator(model_dir: Path, card: dict[str, Any]) -> Generator:
    """Build the untrained network a card describes."""
    architecture = card.get('architecture')
    if architecture not in _ARCHITECTURES:
        raise InputError(f'model {str(model_dir)!r} has the unknown architecture {architecture!r}; '
                         f'this program knows {", ".join(_ARCHITECTURES)}')
    try:
        with torch.random.fork_rng(devices=[]):                     # initial weights draw from the global stream
            return _ARCHITECTURES[architecture](**card.get('sizes', {}))
    except (TypeError, ConfigError) as error:
        raise InputError(f'model {str(model_dir)!r} has the impossible sizes {card.get("sizes")!r} in its {CARD}; '
                         'train or import it again') from error
