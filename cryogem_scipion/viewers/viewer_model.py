"""Viewer of a model."""

from pathlib import Path

from pyworkflow.viewer import DESKTOP_TKINTER, Viewer

from cryogem_scipion.objects import CryogemModel
from cryogem_scipion.viewers.views import TableView, readSettings


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
