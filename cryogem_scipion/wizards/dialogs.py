"""The windows of a wizard: the one that asks for patience, and the one that shows what it proposes."""

import time
import tkinter as tk
from collections.abc import Callable

from PIL import Image, ImageTk
from pyworkflow import Config
from pyworkflow.gui.dialog import RESULT_CANCEL, RESULT_YES, Dialog

from cryogem_scipion.wizards.proposals import Proposal

WAITING = 'please wait'                     # ends the title of the window that asks for it
_WIDTH, _HEIGHT, _GAP = 1150, 620, 8        # px for all pictures together, and between two


class GivenUp(Exception):                   # no error: the user pressed Cancel
    """The user did not want to wait."""


class WaitingMessage:
    """Says that something is being made and for how long; it takes all clicks, and Cancel gives up."""

    def __init__(self, parent, title: str):
        self._start, self._isGivenUp = time.monotonic(), False
        self.window = tk.Toplevel(parent, bg=Config.SCIPION_BG_COLOR)
        self.window.title(f'{title}: {WAITING}')
        self.window.transient(parent)
        self.window.protocol('WM_DELETE_WINDOW', self.giveUp)
        self._label = tk.Label(self.window, bg=Config.SCIPION_BG_COLOR, width=40, text='Looking at your data ...',
                               font=(Config.SCIPION_FONT_NAME, Config.SCIPION_FONT_SIZE))
        self._label.grid(row=0, column=0, padx=20, pady=(15, 5))
        tk.Button(self.window, text='Cancel', command=self.giveUp).grid(row=1, column=0, pady=(5, 15))
        self.window.geometry(f'+{parent.winfo_rootx() + 80}+{parent.winfo_rooty() + 120}')
        self.window.update()
        self.window.grab_set()

    def keepAlive(self) -> None:
        """Let the windows of the project live on.

        Raises
        ------
        GivenUp : Cancel was pressed.
        """
        self._label.config(text=f'Looking at your data ... {time.monotonic() - self._start:.0f} s')
        self.window.update()
        if self._isGivenUp:
            raise GivenUp

    def giveUp(self) -> None:
        """Stop at the next sign of life."""
        self._isGivenUp = True

    def close(self) -> None:
        """Take the window away."""
        self.window.grab_release()
        self.window.destroy()


class ProposalDialog(Dialog):
    """Shows pictures and text; with `redraw` also a field for a value to try, which makes another proposal.

    Parameters
    ----------
    labels : what each value of the proposal is called in the form.
    redraw : from the text of the field to the next proposal; None keeps the present one.
    field : label of that field and the parameter that it shows.
    """

    def __init__(self, parent, title: str, proposal: Proposal, labels: dict[str, str],
                 redraw: Callable[[str], Proposal | None] | None = None, field: tuple[str, str] = ('', '')):
        self.proposal = proposal
        self._labels, self._redraw, self._field = labels, redraw, field
        self._photos: list[ImageTk.PhotoImage] = []         # Tk forgets pictures that nobody holds
        buttons = [('Use', RESULT_YES), ('Cancel', RESULT_CANCEL)] if labels else [('Close', RESULT_CANCEL)]
        super().__init__(parent, title, buttons=buttons, default=buttons[0][0])

    def body(self, bodyFrame):
        """Build the window; called by Dialog."""
        bodyFrame.config(bg=Config.SCIPION_BG_COLOR)
        self._pictures = tk.Frame(bodyFrame, bg=Config.SCIPION_BG_COLOR)
        self._pictures.grid(row=0, column=0, padx=10, pady=10)
        self._text = self._makeLabel(bodyFrame, row=1)
        self._values = self._makeLabel(bodyFrame, row=2, weight='bold')
        if self._redraw is not None:
            self._addField(bodyFrame)
        self._show()

    def _makeLabel(self, bodyFrame, row: int, weight: str = 'normal') -> tk.Label:
        label = tk.Label(bodyFrame, bg=Config.SCIPION_BG_COLOR, justify='left', wraplength=760,
                         font=(Config.SCIPION_FONT_NAME, Config.SCIPION_FONT_SIZE, weight))
        label.grid(row=row, column=0, sticky='w', padx=15, pady=(0, 8))
        return label

    def _addField(self, bodyFrame) -> None:
        frame = tk.Frame(bodyFrame, bg=Config.SCIPION_BG_COLOR)
        frame.grid(row=3, column=0, sticky='w', padx=15, pady=(0, 8))
        tk.Label(frame, text=self._field[0], bg=Config.SCIPION_BG_COLOR).grid(row=0, column=0)
        self.entry = tk.Entry(frame, width=12)
        self.entry.insert(0, str(self.proposal.values[self._field[1]]))
        self.entry.grid(row=0, column=1, padx=8)
        tk.Button(frame, text='Redraw', command=self.redraw).grid(row=0, column=2)

    def redraw(self) -> None:
        """Make and show the proposal for what stands in the field."""
        proposal = self._redraw(self.entry.get()) if self._redraw is not None else None
        if proposal is not None:
            self.proposal = proposal
            self._show()

    def _show(self) -> None:
        for old in self._pictures.winfo_children():
            old.destroy()
        self._photos = [ImageTk.PhotoImage(picture, master=self) for picture in fitPictures(self.proposal.pictures)]
        for column, photo in enumerate(self._photos):
            tk.Label(self._pictures, image=photo, bd=0).grid(row=0, column=column, padx=_GAP // 2)
        self._text.config(text=self.proposal.text, fg='black')
        self._values.config(text='   '.join(f'{label}: {self.proposal.values[name]:g}'
                                            for name, label in self._labels.items()))


def fitPictures(paths: list[str]) -> list[Image.Image]:
    """Return pictures made smaller where they would not fit side by side on a screen."""
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            pictures.append(picture.convert('RGB'))
    if not pictures:
        return []
    scale = min(1.0, (_WIDTH - _GAP * len(pictures)) / sum(one.width for one in pictures),
                _HEIGHT / max(one.height for one in pictures))
    return [one.resize((max(1, round(one.width * scale)), max(1, round(one.height * scale))), Image.Resampling.LANCZOS)
            for one in pictures]
