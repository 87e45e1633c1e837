"""What the viewers of all protocols share."""

from pathlib import Path

from pwem.viewers import EmProtocolViewer
from pwem.viewers.viewer_coordinates import CoordinateView
from pyworkflow.protocol import params
from pyworkflow.viewer import DESKTOP_TKINTER

from cryogem_scipion.viewers.plots import plotDefoci, plotViews
from cryogem_scipion.viewers.views import PageView, PictureView, TableView, readSettings, readTable

_FEW = 3
# Buttons of all runs that make micrographs.
LABEL_BUTTONS = {
    'views': ('Angular distribution', 'Directions of view of all particles that a picker should find.'),
    'defoci': ('Defocus', 'Of the micrographs that were made and, when CTFs were given, of the real ones.'),
    'picker': ("Coordinates in Scipion's own viewer", 'One micrograph after another, with zoom.'),
}


class CryogemViewer(EmProtocolViewer):
    """Base class: buttons that open what a run has left so far, or say that it is not there yet."""

    _environments = [DESKTOP_TKINTER]
    _buttons: dict[str, tuple[str, str]] = {}               # name -> label and help

    def _defineParams(self, form):
        form.addSection(label='Results')
        for name, (label, text) in self._buttons.items():
            form.addParam(name, params.LabelParam, label=label, help=text)

    def _getVisualizeDict(self):
        return dict.fromkeys(self._buttons, self._open)

    def _open(self, name=None):
        """Return the views of a button."""
        method = getattr(self, '_view' + str(name)[0].upper() + str(name)[1:])
        return method()

    def _say(self, text: str) -> list:
        """Return a message in place of a view."""
        return [self.infoMessage(text, 'Not there yet')]

    def _page(self, path: Path, what: str) -> list:
        return [PageView(path)] if path.exists() else self._say(f'{what} is not written yet: {path}')

    def _pictures(self, paths: list[Path], what: str) -> list:
        """Return a view of the pictures that exist."""
        found = [path for path in paths if path.exists()]
        if not found:
            return self._say(f'{what}: no picture is written yet ({", ".join(map(str, paths)) or "none is expected"}).')
        return [PictureView(found, what, self.getTkRoot())]

    def _table(self, path: Path, what: str) -> list:
        """Return a view of a CSV or JSON file."""
        if not path.exists():
            return self._say(f'{what} is not written yet: {path}')
        columns, rows = readTable(path) if path.suffix == '.csv' else (['name', 'value'], readSettings(path))
        return [TableView(columns, rows, what, self.getTkRoot())]


class CryogemMicrographsViewer(CryogemViewer):
    """Base class of viewers of runs that make micrographs."""

    _made = ''                              # what the micrographs are called in a legend

    def _getFolder(self) -> Path:
        """Return the engine's output folder."""
        raise NotImplementedError

    def _getRealCtfs(self):
        """Return the CTFs of the real micrographs, None if none were given."""
        raise NotImplementedError

    def _defineParams(self, form):
        super()._defineParams(form)
        form.addParam('first', params.IntParam, default=1, label='First micrograph to show',
                      help='Its number in the set, from 1.')
        form.addParam('count', params.IntParam, default=_FEW, label='How many', help='Side by side in one window.')

    def _getMicrographs(self) -> list:
        """Return the micrographs that were asked for; those that are there while the run goes on."""
        micSet = getattr(self.protocol, 'outputMicrographs', None)
        if micSet is None:
            return []
        first, last = max(1, self.first.get()), max(1, self.first.get()) + max(1, self.count.get()) - 1
        return [mic.clone() for number, mic in enumerate(micSet, 1) if first <= number <= last]

    def _getPositions(self, mic) -> tuple[list, float]:
        """Return the particles on a micrograph, x and y in px, and the radius of a circle around one."""
        coordinates = getattr(self.protocol, 'outputCoordinates', None)
        if coordinates is None:
            return [], 0.0
        return [one.getPosition() for one in coordinates.iterCoordinates(mic)], coordinates.getBoxSize() / 3

    def _viewViews(self) -> list:
        path = self._getFolder() / 'particles.star'
        if not path.exists():
            return self._say(f'The table of particles is not written yet: {path}')
        return [plotViews(path, 'Angular distribution')]

    def _viewDefoci(self) -> list:
        sets = {self._made: getattr(self.protocol, 'outputCTF', None), 'real': self._getRealCtfs()}
        groups = {name: [(ctf.getDefocusU() + ctf.getDefocusV()) / 2 for ctf in ctfs]
                  for name, ctfs in sets.items() if ctfs is not None}
        return [plotDefoci(groups, 'Defocus')] if self._made in groups else self._nothing()

    def _viewPicker(self) -> list:
        coordinates = getattr(self.protocol, 'outputCoordinates', None)
        if coordinates is None:
            return self._nothing()
        return [CoordinateView(self.getTkRoot(), coordinates, self.protocol)]

    def _nothing(self) -> list:
        return self._say('No such micrograph is made yet.')
