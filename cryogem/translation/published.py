"""Published checkpoints of CryoGEM (``latest_net_G.pth``) turned into model folders."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryogem.errors import InputError, OutputError
from cryogem.io.checkpoint import load_tensors
from cryogem.translation.model import CARD, save_model
from cryogem.translation.paper import N_PAPER_FEATURES, PaperGenerator

_PREFIX = 'module.'                         # left by torch's DataParallel
_OUTERMOST = 'model.down.0.weight'
_LEVEL = re.compile(r'model\.(submodule\.)*down\.[01]\.weight')


def import_published_checkpoint(path: Path, model_dir: Path) -> PaperGenerator:
    """Read a published generator checkpoint and write it as a model folder.

    Returns
    -------
    The network, its depth and width those of the checkpoint.

    Raises
    ------
    InputError : `path` is missing, damaged, or holds another network.
    OutputError : `model_dir` holds a model already, or cannot be written.
    """
    if (model_dir / CARD).exists():
        raise OutputError(f'output {str(model_dir)!r} holds a model already; choose another folder')
    generator = load_published_generator(path)
    save_model(model_dir, generator, {'imported_from': path.name, 'preset': 'paper', 'input_range': [-1.0, 1.0]})
    return generator


def load_published_generator(path: Path) -> PaperGenerator:
    """Return the network of a published generator checkpoint, in eval mode.

    Raises
    ------
    InputError : `path` is missing, damaged, or holds another network.
    """
    state = {str(key).removeprefix(_PREFIX): value for key, value in load_tensors(path).items()}
    problem = _find_problem(state)
    if problem:
        raise InputError(f'checkpoint {str(path)!r} is no published CryoGEM generator ({problem}); '
                         'give the file latest_net_G.pth')
    with torch.random.fork_rng(devices=[]):
        generator = PaperGenerator(*_infer_sizes(state))
    generator.load_state_dict(state)
    return generator.eval()


def _infer_sizes(state: dict[str, Any]) -> tuple[int, int]:
    """Return depth and width: one halving convolution per level, the outermost `width` maps wide."""
    return sum(1 for key in state if _LEVEL.fullmatch(key)), state[_OUTERMOST].shape[0]


def _find_problem(state: dict[str, Any]) -> str:
    """Return what keeps `state` from being a published generator, empty when nothing does."""
    if not isinstance(state.get(_OUTERMOST), Tensor) or state[_OUTERMOST].ndim != 4:
        return f'it has no weights {_OUTERMOST}'
    depth, width = _infer_sizes(state)
    if depth < N_PAPER_FEATURES:
        return f'it has {depth} levels, at least {N_PAPER_FEATURES} are needed'
    with torch.device('meta'):              # shapes only, without memory or random numbers
        expected = PaperGenerator(depth, width).state_dict()
    for key in sorted(expected.keys() ^ state.keys()):
        return f'{key} is {"missing" if key in expected else "unknown"}'
    for key, tensor in expected.items():
        found = state[key]
        if not isinstance(found, Tensor) or found.shape != tensor.shape:
            return f'{key} has shape {tuple(getattr(found, "shape", ()))}, expected {tuple(tensor.shape)}'
        if not found.is_floating_point() or not torch.isfinite(found).all():
            return f'{key} has values that are no finite numbers'
    return ''
