"""STAR tables of RELION 3.1 and later, and picks in STAR or CSV files."""

import contextlib
import csv
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryogem.errors import InputError
from cryogem.io.files import replace_when_done, write_text

if TYPE_CHECKING:
    import pandas

_X_COLUMNS = ('x', 'x_coord', 'X-Coordinate', 'rlnCoordinateX')
_Y_COLUMNS = ('y', 'y_coord', 'Y-Coordinate', 'rlnCoordinateY')


def read_tables(path: Path) -> dict[str, 'pandas.DataFrame']:
    """Read all blocks of a STAR file by name; an unnamed block has the name ''.

    Raises
    ------
    InputError : the file cannot be read.
    """
    import starfile
    try:
        tables = starfile.read(path, always_dict=True, parse_as_string=['rlnMicrographName', 'rlnImageName'])
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise InputError(f'STAR file {str(path)!r} cannot be read: {error}; check the file') from error
    return {str(name): table for name, table in tables.items()}


def write_tables(path: Path, tables: Mapping[str, Mapping[str, Sequence[Any]]]) -> str:
    """Write blocks of columns as a STAR file, whole or not at all; a block without rows keeps its columns.

    Parameters
    ----------
    tables : block name -> column name (without underscore) -> values.

    Returns
    -------
    The SHA-256 of the file.
    """
    return write_text(path, '\n'.join(_format_block(name, columns) for name, columns in tables.items()))


class TableWriter:
    """Writes a STAR file whose last block is appended to part by part, whole or not at all.

    The rows wait in a file, not in memory, until the blocks before them are known.
    """

    def __init__(self, path: Path, name: str):
        self._path, self._name = path, name
        self._columns: tuple[str, ...] = ()
        self._spool_path = path.with_name(f'.{path.name}.{os.getpid()}.rows.part')
        self.preamble: Mapping[str, Mapping[str, Sequence[Any]]] = {}       # the blocks before, set before the end

    def __enter__(self) -> 'TableWriter':
        with contextlib.ExitStack() as opening:
            self._temporary = opening.enter_context(replace_when_done(self._path))
            opening.callback(self._spool_path.unlink, missing_ok=True)
            self._spool = opening.enter_context(self._spool_path.open('w+', encoding='utf-8'))
            self._closing = opening.pop_all()
        return self

    def append(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write rows; each part has the same columns."""
        self._columns = tuple(columns)
        self._spool.writelines(_format_rows(columns))

    def __exit__(self, *error: Any) -> None:
        with self._closing:
            if error[0] is not None:
                self._closing.pop_all().__exit__(*error)
                return
            self._spool.seek(0)
            with self._temporary.open('w', encoding='utf-8') as file:
                file.writelines(_format_block(name, columns) + '\n' for name, columns in self.preamble.items())
                file.write(_format_head(self._name, self._columns))
                shutil.copyfileobj(self._spool, file)
                file.write('\n')


def _format_block(name: str, columns: Mapping[str, Sequence[Any]]) -> str:
    """Format one loop by hand: starfile stamps the time (equal runs must give equal files) and drops empty tables."""
    return _format_head(name, columns) + ''.join(_format_rows(columns)) + '\n'


def _format_head(name: str, columns: Iterable[str]) -> str:
    return f'data_{name}\n\nloop_\n' + ''.join(f'_{column} #{i}\n' for i, column in enumerate(columns, 1))


def _format_rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    for row in zip(*columns.values(), strict=True):
        yield '\t'.join(f'{v:.6f}' if isinstance(v, float) else str(v) for v in row) + '\n'


def read_coordinates(path: Path) -> np.ndarray:
    """Read the picks of one micrograph.

    Parameters
    ----------
    path : STAR with rlnCoordinateX/Y, or CSV with the columns x and y; centres in px.

    Returns
    -------
    (n, 2) float64 centres in y, x order.

    Raises
    ------
    InputError : not readable, or without columns of coordinates.
    """
    if path.suffix.lower() == '.star':
        columns = _read_star_columns(path)
    else:
        columns = _read_csv_columns(path)
    x = next((columns[name] for name in _X_COLUMNS if name in columns), None)
    y = next((columns[name] for name in _Y_COLUMNS if name in columns), None)
    if x is None or y is None:
        raise InputError(f'coordinates {str(path)!r} have no x and y columns; '
                         'give STAR with rlnCoordinateX and rlnCoordinateY or CSV with x and y')
    try:
        centers = np.stack([np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)], axis=-1)
    except ValueError as error:
        raise InputError(f'coordinates {str(path)!r} hold a value that is no number: {error}; correct it') from error
    if not np.isfinite(centers).all():
        row = int(np.flatnonzero(~np.isfinite(centers).all(axis=-1))[0])
        raise InputError(f'coordinates {str(path)!r} have no number in pick {row + 1}; correct or remove it')
    return centers.reshape(-1, 2)


def _read_star_columns(path: Path) -> dict[str, Sequence[Any]]:
    for table in read_tables(path).values():
        if 'rlnCoordinateX' in table:
            return {name: table[name].to_numpy() for name in table.columns}
    return {}


def _read_csv_columns(path: Path) -> dict[str, Sequence[Any]]:
    try:
        with path.open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file))
            names = list(rows[0]) if rows else _read_csv_header(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f'coordinates {str(path)!r} cannot be read: {error}; check the file') from error
    return {name: [row[name] for row in rows] for name in names}


def _read_csv_header(path: Path) -> list[str]:
    with path.open(newline='', encoding='utf-8') as file:
        return next(csv.reader(file), [])
