"""Viewer of simulate."""

import os
from pathlib import Path

from cryogem_scipion.protocols import ProtCryogemSimulate
from cryogem_scipion.viewers.base import LABEL_BUTTONS, CryogemMicrographsViewer
from cryogem_scipion.viewers.plots import Panel, plotMicrographs


class CryogemSimulateViewer(CryogemMicrographsViewer):
    """What was measured on the real micrographs, and what was made."""

    _label = 'viewer simulate'
    _targets = [ProtCryogemSimulate]
    _made = 'simulated'
    _buttons = {
        'calibration': ('Calibration: page in the browser', 'What was measured on the real micrographs: density, '
                        'grey scale, ice, noise and signal, with pictures.'),
        'numbers': ('Calibration: numbers', 'The same as a table.'),
        'gallery': ('Micrographs', 'The simulated micrographs, as train gets to see them.'),
        'clean': ('Coordinates over clean images', 'Particles alone, without ice and noise, circled where the set of '
                  'coordinates says that they are.'),
        'masks': ('Masks', 'Each particle in a colour of its own.'),
        **LABEL_BUTTONS,
    }

    def _getFolder(self) -> Path:
        return Path(self.protocol.getDatasetFolder())

    def _getRealCtfs(self):
        return self.protocol.getCtfPointer().get()

    def _viewCalibration(self) -> list:
        return self._page(self._getFolder() / 'calibration' / 'report.html', 'The page of the calibration')

    def _viewNumbers(self) -> list:
        return self._table(self._getFolder() / 'calibration.json', 'Calibration')

    def _viewGallery(self) -> list:
        panels = [Panel(mic.getMicName(), mic.getFileName()) for mic in self._getMicrographs()]
        return [plotMicrographs(panels, 'Simulated micrographs')] if panels else self._nothing()

    def _viewClean(self) -> list:
        panels = [Panel(mic.getMicName(), self._find('clean', mic), *self._getPositions(mic))
                  for mic in self._getMicrographs()]
        return self._plot(panels, 'Coordinates over clean images')

    def _viewMasks(self) -> list:
        panels = [Panel(mic.getMicName(), self._find('clean', mic), mask=self._find('masks', mic))
                  for mic in self._getMicrographs()]
        return self._plot(panels, 'Masks')

    def _plot(self, panels: list[Panel], title: str) -> list:
        """Return a plot of files beside the micrographs, or say that the form left them out."""
        missing = [path for panel in panels for path in (panel.path, panel.mask) if path and not os.path.exists(path)]
        if missing:
            return self._say(f'{missing[0]} is not there: *Files besides micrographs* of the run does not name it.')
        return [plotMicrographs(panels, title)] if panels else self._nothing()

    def _find(self, kind: str, mic) -> str:
        return os.path.join(self._getFolder(), kind, os.path.basename(mic.getFileName()))
