"""Tensors on disk: written whole, read without ever running code from the file (``weights_only``)."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from cryogem.errors import InputError
from cryogem.io.files import replace_when_done

_FORMAT = 'cryogem checkpoint'
_VERSION = 1
_DAMAGE = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers, text and containers of them to `path`, whole or not at all.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    with replace_when_done(path) as temporary, temporary.open('wb') as file:
        torch.save({'format': _FORMAT, 'version': _VERSION, 'content': content}, file)
        file.flush()
        os.fsync(file.fileno())             # a power cut must not leave the new name without its bytes


def load_checkpoint(path: Path, device: torch.device | str = 'cpu') -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, tensors on `device`.

    Raises
    ------
    InputError : the file is missing, damaged or not ours.
    """
    document = load_tensors(path, device)
    if document.get('format') != _FORMAT or not isinstance(document.get('content'), dict):
        raise InputError(f'{str(path)!r} is not a checkpoint of cryogem; give a file that cryogem wrote, '
                         'published ones are converted by cryogem import-checkpoint')
    if document.get('version') != _VERSION:
        raise InputError(f'checkpoint {str(path)!r} has format version {document.get("version")!r}, this program '
                         f'reads {_VERSION}; use the version of cryogem that wrote it')
    return document['content']


def load_tensors(path: Path, device: torch.device | str = 'cpu') -> dict[str, Any]:
    """Read a dictionary saved by `torch.save`, anyone's, with tensors and plain values only.

    Raises
    ------
    InputError : the file is missing, damaged, or holds something else than a dictionary of tensors and plain values.
    """
    try:
        document = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise InputError(f'checkpoint {str(path)!r} cannot be read ({error.strerror or error}); '
                         'check the path') from error
    except _DAMAGE as error:
        raise InputError(f'checkpoint {str(path)!r} is damaged or holds more than tensors, so it is not loaded; '
                         'give an intact file of weights') from error
    if not isinstance(document, dict):
        raise InputError(f'checkpoint {str(path)!r} holds a {type(document).__name__}, not weights by name; '
                         'give a file of weights')
    return document
