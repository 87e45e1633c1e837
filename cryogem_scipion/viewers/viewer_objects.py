"""Viewers of our own objects, opened from the list of outputs of a run."""

from pathlib import Path

from pyworkflow.viewer import DESKTOP_TKINTER, Viewer

from cryogem_scipion.objects import CryogemEvaluation, CryogemModel, CryogemSimulation
from cryogem_scipion.viewers.views import PageView, TableView, readSettings


class CryogemModelViewer(Viewer):
    """The card of a model, trained here or imported."""

    _name = 'Model card'
    _targets = [CryogemModel]
    _environments = [DESKTOP_TKINTER]

    def _visualize(self, obj, **kwargs):
        path = Path(obj.getPath(), 'card.json')
        if not path.exists():
            return [self.infoMessage(f'The model has no card: {path}', 'Not there')]
        return [TableView(['name', 'value'], readSettings(path), 'Model card', self.getTkRoot())]


class CryogemSimulationViewer(Viewer):
    """What a simulation measured on the real micrographs."""

    _name = 'Calibration'
    _targets = [CryogemSimulation]
    _environments = [DESKTOP_TKINTER]

    def _visualize(self, obj, **kwargs):
        path = Path(obj.getPath(), 'calibration.json')
        if not path.exists():
            return [self.infoMessage(f'The simulation has no calibration: {path}', 'Not there')]
        return [TableView(['name', 'value'], readSettings(path), 'Calibration', self.getTkRoot())]


class CryogemEvaluationViewer(Viewer):
    """The report of an evaluation, in the browser; its figures where it has no page."""

    _name = 'Report'
    _targets = [CryogemEvaluation]
    _environments = [DESKTOP_TKINTER]

    def _visualize(self, obj, **kwargs):
        page, figures = Path(obj.getPath(), 'report.html'), Path(obj.getPath(), 'report.json')
        if page.exists():
            return [PageView(page)]
        if figures.exists():
            return [TableView(['name', 'value'], readSettings(figures), 'Report', self.getTkRoot())]
        return [self.infoMessage(f'The evaluation has no report: {page}', 'Not there')]
