"""Viewer of generate."""

import os
from pathlib import Path

from cryogem.io.files import read_json
from cryogem_scipion.protocols import ProtCryogemGenerate
from cryogem_scipion.viewers.base import LABEL_BUTTONS, CryogemMicrographsViewer
from cryogem_scipion.viewers.plots import Panel, plotMicrographs


class CryogemGenerateViewer(CryogemMicrographsViewer):
    """Generated micrographs beside the real ones that they imitate, and their labels."""

    _label = 'viewer generate'
    _targets = [ProtCryogemGenerate]
    _made = 'generated'
    _buttons = {
        'gallery': ('Real and generated at equal grey', 'Above the real micrographs whose ice, noise and grey scale '
                    'were taken, below those generated; all at one grey scale.'),
        'coordinates': ('Coordinates over the micrographs', 'Each particle that a picker should find in a circle.'),
        **LABEL_BUTTONS,
    }

    def _getFolder(self) -> Path:
        return Path(self.protocol.getGeneratedFolder())

    def _getSimulation(self):
        return self.protocol.inputSimulation.getObjValue()

    def _getRealCtfs(self):
        simulation = self._getSimulation()
        return simulation.getCtfPointer().get() if simulation is not None else None

    def _viewGallery(self) -> list:
        made = self._getMicrographs()
        real = [path for path in (self._findSource(mic) for mic in made) if path]
        panels = [Panel(f'real: {Path(path).stem}', path) for path in real]
        panels += [Panel(f'generated: {Path(mic.getFileName()).stem}', mic.getFileName()) for mic in made]
        return [plotMicrographs(panels, 'Real and generated', len(made))] if made else self._nothing()

    def _viewCoordinates(self) -> list:
        panels = [Panel(mic.getMicName(), mic.getFileName(), *self._getPositions(mic))
                  for mic in self._getMicrographs()]
        return [plotMicrographs(panels, 'Coordinates')] if panels else self._nothing()

    def _findSource(self, mic) -> str:
        """Return the file of the real micrograph that a generated one imitates, '' if it is gone."""
        folder = self._getFolder()
        record = folder / 'records' / (Path(mic.getFileName()).stem + '.json')
        simulation = self._getSimulation()
        if simulation is None or not record.exists():
            return ''
        source = read_json(record, 'output')['record']['source']
        name = read_json(folder / 'calibration.json', 'output')['micrographs'][source]['name']
        links = Path(simulation.getMicrographFolder())
        return next((str(path) for path in sorted(links.glob('*')) if path.stem == name and os.path.exists(path)), '')
