"""Viewer of train; it works while the training goes on."""

from pathlib import Path

from cryogem_scipion.protocols import ProtCryogemTrain
from cryogem_scipion.viewers.base import CryogemViewer
from cryogem_scipion.viewers.plots import plotColumns
from cryogem_scipion.viewers.views import readTable

_STEP, _SECONDS = 'step', 'seconds'
_JUDGED = 'Realism on held-out micrographs (distance: less is better)'
# Beginnings of the columns that say how real it looks.
_REALISM = ('realism', 'held', 'frechet', 'spectrum', 'variance', 'distance', 'prior', 'auc', 'score')


class CryogemTrainViewer(CryogemViewer):
    """Losses, realism and samples, up to the present step; press again for what has come since."""

    _label = 'viewer train'
    _targets = [ProtCryogemTrain]
    _buttons = {
        'losses': ('Losses and realism', 'Of each step so far, while the training runs too.'),
        'samples': ('Samples', 'What the network was given, what it made of it, and a real crop, at each checkpoint.'),
        'card': ('Model card', 'Data, settings, versions and checks of the model.'),
    }

    def _getFolder(self) -> Path:
        return Path(self.protocol.getModelFolder())

    def _viewLosses(self) -> list:
        path = self._getFolder() / 'metrics.csv'
        names, rows = readTable(path) if path.exists() else ([], [])
        if not rows:
            return self._say(f'No step is finished yet: {path}')
        columns = {name: [_toNumber(row[index]) for row in rows] for index, name in enumerate(names)}
        # a preset without a discriminator, say, has losses that are always zero
        used = [name for name in names if any(abs(value) > 0 for value in columns[name])]
        return [plotColumns(columns, groupColumns(used), _STEP, 'Training', (_JUDGED,))]

    def _viewSamples(self) -> list:
        paths = sorted((self._getFolder() / 'samples').glob('*.png'))
        return self._pictures(paths, 'Samples: clean, with measured noise, generated, and a real crop')

    def _viewCard(self) -> list:
        return self._table(self._getFolder() / 'card.json', 'Model card')


def groupColumns(names: list[str]) -> dict[str, list[str]]:
    """Return the columns of the metrics by the subplot they belong to."""
    groups: dict[str, list[str]] = {'Losses': [], _JUDGED: [], 'Gradients and residual': []}
    for name in names:
        if name in (_STEP, _SECONDS):
            continue
        if name.startswith(_REALISM):
            groups[_JUDGED].append(name)
        elif name.endswith(('loss', 'penalty')):
            groups['Losses'].append(name)
        else:                               # of another order of magnitude than the losses
            groups['Gradients and residual'].append(name)
    return {title: members for title, members in groups.items() if members}


def _toNumber(text: str) -> float:
    """Return a number, nan for an empty cell or a word."""
    try:
        return float(text)
    except ValueError:
        return float('nan')
