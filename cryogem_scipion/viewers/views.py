"""Views that need neither Java nor Xmipp: pages in the browser, pictures and tables in windows of Tk."""

import csv
import json
import tkinter as tk
import weakref
import webbrowser
from pathlib import Path
from tkinter import ttk
from typing import Any

from PIL import Image, ImageTk
from pyworkflow.viewer import View

_SCREEN_SHARE = 0.85                        # of the screen that a picture may fill
_NARROW = 700                               # px: a picture narrower than this is enlarged
_ROWS = 30                                  # of a table that are seen at once
_WIDEST, _CHARACTER, _PADDING = 620, 8, 24  # px of a column, of a character, and beside the text


class PageView(View):
    """A page of HTML in the user's browser."""

    def __init__(self, path: Path):
        self.path = Path(path).resolve()

    def show(self):
        """Open it."""
        webbrowser.open(self.path.as_uri())


class PictureView(View):
    """PNG pictures in a window, one after another, as large as the screen allows."""

    # Tk forgets a picture that nobody holds, and nobody holds a view: as long as the window is there, this does.
    _photos: 'weakref.WeakKeyDictionary[tk.Label, ImageTk.PhotoImage]' = weakref.WeakKeyDictionary()

    def __init__(self, paths: list[Path], title: str, parent=None):
        self.paths, self.title, self._parent = paths, title, parent
        self._index = 0

    def show(self):
        """Open the window with the last picture: that of the present state."""
        self._window = tk.Toplevel(self._parent)
        self._window.configure(bg='white')
        self._label = tk.Label(self._window, bg='white', bd=0)
        self._label.grid(row=0, column=0, columnspan=3, padx=6, pady=6)
        tk.Label(self._window, text=self.title, bg='white').grid(row=2, column=0, columnspan=3, pady=(0, 6))
        if len(self.paths) > 1:
            tk.Button(self._window, text='< Previous', command=lambda: self.turn(-1)).grid(row=1, column=0, pady=4)
            self._caption = tk.Label(self._window, bg='white')
            self._caption.grid(row=1, column=1)
            tk.Button(self._window, text='Next >', command=lambda: self.turn(1)).grid(row=1, column=2)
        self._index = len(self.paths) - 1
        self.turn(0)

    def turn(self, step: int) -> None:
        """Show the picture so many places further on."""
        self._index = (self._index + step) % len(self.paths)
        path = self.paths[self._index]
        with Image.open(path) as opened:
            picture = opened.convert('RGB')
        room = (self._window.winfo_screenwidth() * _SCREEN_SHARE, self._window.winfo_screenheight() * _SCREEN_SHARE)
        enlarged = 2.0 if picture.width < _NARROW else 1.0
        scale = min(enlarged, room[0] / picture.width, room[1] / picture.height)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        photo = ImageTk.PhotoImage(picture.resize(size, Image.Resampling.LANCZOS), master=self._window)
        self._label.configure(image=photo)
        self._photos[self._label] = photo
        self._window.title(f'{self.title}: {path.name}')
        if len(self.paths) > 1:
            self._caption.configure(text=f'{path.name}   ({self._index + 1} of {len(self.paths)})')


class TableView(View):
    """Rows of text in a window."""

    def __init__(self, columns: list[str], rows: list[list[str]], title: str, parent=None):
        self.columns, self.rows, self.title, self._parent = columns, rows, title, parent

    def show(self):
        """Open the window."""
        window = tk.Toplevel(self._parent)
        window.title(self.title)
        tree = ttk.Treeview(window, columns=self.columns, show='headings', height=min(len(self.rows), _ROWS))
        for index, column in enumerate(self.columns):
            tree.heading(column, text=column, anchor='w')
            longest = max([len(column), *(len(row[index]) for row in self.rows)])
            tree.column(column, width=min(_WIDEST, _PADDING + _CHARACTER * longest), anchor='w', stretch=False)
        for number, row in enumerate(self.rows):
            tree.insert('', 'end', values=row, tags=('odd',) if number % 2 else ())
        tree.tag_configure('odd', background='#f2f2f2')
        bar = ttk.Scrollbar(window, orient='vertical', command=tree.yview)
        across = ttk.Scrollbar(window, orient='horizontal', command=tree.xview)
        tree.configure(yscrollcommand=bar.set, xscrollcommand=across.set)
        tree.grid(row=0, column=0, sticky='news')
        bar.grid(row=0, column=1, sticky='ns')
        across.grid(row=1, column=0, sticky='we')
        window.rowconfigure(0, weight=1)
        window.columnconfigure(0, weight=1)
        window.update_idletasks()
        room = int(window.winfo_screenwidth() * _SCREEN_SHARE)
        window.geometry(f'{min(room, window.winfo_reqwidth())}x{window.winfo_reqheight()}')


def readTable(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of a CSV file."""
    with path.open(newline='', encoding='utf-8') as file:
        rows = list(csv.reader(file))
    return (rows[0], rows[1:]) if rows else ([], [])


def moveLast(name: str, columns: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows with the column `name` at the end, where there is one: it is long and seldom filled."""
    order = sorted(range(len(columns)), key=lambda index: columns[index] == name)
    return [columns[index] for index in order], [[row[index] for index in order] for row in rows]


def readSettings(path: Path) -> list[list[str]]:
    """Return the leaves of a JSON file as rows of name and value; long lists are cut, units come last."""
    rows = flatten(json.loads(path.read_text(encoding='utf-8')))
    return sorted(rows, key=lambda row: row[0].startswith('units.'))


def flatten(value: Any, name: str = '') -> list[list[str]]:
    """Return the leaves of JSON values as rows of name and value."""
    if isinstance(value, dict):
        return [row for key, one in value.items() for row in flatten(one, f'{name}.{key}' if name else str(key))]
    if isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value):
        return [row for number, one in enumerate(value, 1) for row in flatten(one, f'{name}.{number}')]
    if isinstance(value, list):
        shown = ', '.join(map(_format, value[:6]))
        return [[name, shown + (f', ... ({len(value)} values)' if len(value) > 6 else '')]]
    return [[name, _format(value)]]


def _format(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: 'yes', False: 'no', None: '-'}[value]
    return f'{value:.6g}' if isinstance(value, float) else str(value)
