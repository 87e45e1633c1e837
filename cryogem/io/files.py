"""Finding input files and writing output files whole."""

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryogem.errors import InputError, OutputError


def find_files(patterns: Sequence[str], key: str) -> list[Path]:
    """Return the files that match `patterns`, sorted by pattern and name.

    Raises
    ------
    InputError : a pattern of the setting `key` matches nothing.
    """
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(path for path in glob.glob(os.path.expanduser(pattern)) if os.path.isfile(path))
        if not matches:
            raise InputError(f'{key} {pattern!r} matches no file; check the path and quote the pattern')
        found.extend(Path(path) for path in matches)
    return list(dict.fromkeys(found))


def find_by_stem(files: Sequence[Path], key: str) -> dict[str, Path]:
    """Return files by name without extension; two files of one name cannot be told apart in tables.

    Raises
    ------
    InputError : two files of the setting `key` have the same name.
    """
    by_stem: dict[str, Path] = {}
    for path in files:
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise InputError(f'{key} {str(other)!r} and {str(path)!r} have the same name; rename one of them')
    return by_stem


@contextmanager
def replace_when_done(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; it takes the place of `path` only if the block ends well.

    Raises
    ------
    OutputError : the folder cannot be written.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):             # what made writing fail may make this fail, and must stay the error told
            temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f'output {str(path)!r} cannot be written: {error.strerror or error}; '
                       'check permissions and free space')


def write_text(path: Path, text: str) -> str:
    """Write a text file whole; return its SHA-256."""
    with replace_when_done(path) as temporary:
        temporary.write_text(text, encoding='utf-8')
    return hashlib.sha256(text.encode()).hexdigest()


def write_bytes(path: Path, content: bytes) -> str:
    """Write a file whole; return its SHA-256."""
    with replace_when_done(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def write_text_once(path: Path, text: str) -> None:
    """Write a text file whole unless it is there: of several writers the first wins."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        temporary.write_text(text, encoding='utf-8')
        _link_or_move(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _link_or_move(temporary: Path, path: Path) -> None:
    """Give `temporary` the name `path` unless that is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:                         # a file system without links
        if not path.exists():
            os.replace(temporary, path)


def remove_leftovers(folder: Path) -> None:
    """Remove what runs that were killed left half-written in a folder, never what others put there."""
    for path in folder.glob('.*.part'):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def format_json(values: Any) -> str:
    """Return JSON, one readable key per line."""
    return json.dumps(values, indent=1) + '\n'


def write_json(path: Path, values: Any) -> None:
    """Write JSON, one readable key per line."""
    write_text(path, format_json(values))


def read_json(path: Path, key: str) -> Any:
    """Read JSON written by us.

    Raises
    ------
    InputError : the file, needed for the setting `key`, is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise InputError(f'{key} {str(path.parent)!r} has no readable {path.name}; '
                         'give the folder of a finished run') from error
    except ValueError as error:
        raise InputError(f'{key} {str(path)!r} is damaged ({error}); make it again') from error


def compute_checksum(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises
    ------
    OutputError : it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f'output {str(path)!r} cannot be made: {error.strerror}; choose another folder') from error
