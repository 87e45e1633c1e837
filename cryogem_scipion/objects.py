"""Objects of this plugin that live in a Scipion project."""

import os
from pathlib import Path
from typing import Any

from pwem.objects import EMObject
from pyworkflow.object import Float, Integer, String

from cryogem.io.files import read_json

CARD = 'card.json'
_AT_THE_FLOOR = 1.1                        # times the distance of real crops to each other: no farther


class CryogemSimulation(EMObject):
    """A finished simulation: the specimen and what was measured on the real micrographs, for train and generate."""

    def __init__(self, path=None, pixelSize=None, size=None, **kwargs):
        super().__init__(**kwargs)
        self._path = String(path)
        self._pixelSize = Float(pixelSize)              # Å/px
        self._size = Integer(size)                      # micrographs

    def getPath(self) -> str:
        """Return the folder of the engine, relative to the project."""
        return self._path.get()

    def getPixelSize(self) -> float:
        """Return the pixel size of its micrographs, Å/px."""
        return self._pixelSize.get()

    def getFiles(self) -> set:
        """Return what has to be copied with the object."""
        return {self.getPath()}

    def __str__(self):
        return f'{self.getClassName()} ({self._size.get(0)} micrographs, {self._pixelSize.get(0.0):0.2f} Å/px)'


class CryogemModel(EMObject):
    """A trained model of what the noise of one set of micrographs looks like; its folder holds a card about it."""

    def __init__(self, path=None, pixelSize=None, preset=None, steps=None, **kwargs):
        super().__init__(**kwargs)
        self._path = String(path)
        self._pixelSize = Float(pixelSize)              # Å/px, None where nobody knows
        self._preset = String(preset)
        self._steps = Integer(steps)                    # None where nobody knows

    @classmethod
    def fromFolder(cls, path: str, pixelSize: float | None = None) -> 'CryogemModel':
        """Return the model of a folder with what its card says; `pixelSize` (Å/px) is used where the card is silent.

        Raises
        ------
        InputError : the folder has no readable card.
        """
        about = readCard(path).get('description', {})
        return cls(path=path, pixelSize=about.get('pixel_size') or pixelSize, preset=about.get('preset'),
                   steps=about.get('steps'))

    def getPath(self) -> str:
        """Return the model folder, relative to the project."""
        return self._path.get()

    def getPixelSize(self) -> float | None:
        """Return the pixel size it was trained at, Å/px; None for a published checkpoint of which nobody said it."""
        return self._pixelSize.get()

    def getPreset(self) -> str:
        """Return the preset it was trained with."""
        return self._preset.get()

    def getSteps(self) -> int | None:
        """Return the number of training steps; None for a published checkpoint, which does not tell."""
        return self._steps.get()

    def getCard(self) -> dict[str, Any]:
        """Return what the engine wrote about the model: architecture, sizes, version, checksum, description."""
        return readCard(self.getPath())

    def isGood(self) -> bool:
        """Say whether it was not found to be worse than the noise it starts from; one that was never judged is good.

        As the engine does, which generates with that noise instead unless forced.
        """
        return bool(self._getRealism().get('passed', True))

    def compareWithPrior(self) -> str:
        """Return how near to held-out real crops it is, and the noise that it starts from, '' if unknown."""
        found = self._getRealism()
        if 'ratio_model' in found:
            return (f'{found["ratio_model"]:.2f} times as far from held-out real crops as these are from each other, '
                    f'that noise {found["ratio_prior"]:.2f} times')
        if 'model' in found:
            return f'distance to held-out real crops {found["model"]:.3g}, of that noise {found["prior"]:.3g}'
        return ''

    def isPriorGood(self) -> bool:
        """Say whether the noise that it starts from is as near to the real crops as these are to each other."""
        return self._getRealism().get('ratio_prior', float('inf')) <= _AT_THE_FLOOR

    def _getRealism(self) -> dict[str, Any]:
        """Return what the training found of its realism on held-out crops, empty if it was not judged."""
        return self.getCard().get('description', {}).get('gates', {}).get('realism', {})

    def getFiles(self) -> set:
        """Return what has to be copied with the object."""
        return {self.getPath()}

    def describe(self) -> list[str]:
        """Return the card as lines for a summary."""
        card = self.getCard()
        about = card.get('description', {})
        origin = (f'imported from {about["imported_from"]}' if 'imported_from' in about
                  else f'after *{about.get("steps", "?")}* steps')
        lines = [f'*{self.getPreset() or "unknown"}* preset ({card["architecture"]} network), {origin}',
                 f'for micrographs of *{self.getPixelSize():.3g} Å/px*' if self.getPixelSize()
                 else 'for micrographs of an unknown pixel size']
        if 'n_real_micrographs' in about:
            lines.append(f'learned from {about["n_real_micrographs"]} real and {about["n_simulated_micrographs"]} '
                         f'simulated micrographs in {about.get("seconds", 0) / 60:.1f} min on {about.get("device")}')
        if self.compareWithPrior():
            verdict = ('better than' if self.isGood() else 'no better than') + ' the noise it starts from'
            lines.append(f'*{verdict}*: {self.compareWithPrior()}'
                         + ('' if self.isGood() else '; *generate* uses that noise unless forced'))
        if about.get('signal_change'):
            lines.append(f'signal changed by {about["signal_change"]:+.1%} at the end, which is nearer to the real '
                         'particles')
        lines += [*self._describeSignal(about.get('gates', {})), *self._describeGuard(about.get('bias_guard'))]
        return [*lines, f'cryogem {card["version"]}, weights SHA-256 {card["weights_sha256"][:12]}']

    @staticmethod
    def _describeSignal(gates: dict[str, Any]) -> list[str]:
        """Return what the card says of the signal that is kept and of particles where none was placed."""
        lines = []
        if 'signal' in gates:
            loss = max(gates['signal']['largest_loss'], 0.0)
            verdict = 'kept' if gates['signal']['passed'] else 'lost in part'
            lines.append(f'signal {verdict}: correlation with the clean picture at most {loss:.3f} below that of the '
                         'prior')
        picks = gates.get('hallucinations')
        if picks and picks['passed'] is None:
            lines.append(f'picks away from every particle: {picks["note"]}')
        elif picks:
            verdict = '' if picks['passed'] else ' (more than chance allows)'
            lines.append(f'picks of {picks["picker"]} away from every particle: {picks["model"]["share"]:.1%}, on the '
                         f'prior {picks["prior"]["share"]:.1%}{verdict}')
        return lines

    @staticmethod
    def _describeGuard(guard: dict[str, Any] | None) -> list[str]:
        """Return what the guard against bias found."""
        if not guard:
            return []
        counts = guard['particles_on_empty_crops']
        return [f'models of two halves of the micrographs differ by {guard["halves"]["disagreement"]:.2f} times what '
                'they change',
                f'blobs like particles on a crop without any: prior {counts["prior"]:.2f}, model '
                f'{counts["model"]:.2f}, decoy trained without particles {counts["decoy"]:.2f}; on crops with '
                f'particles {counts["placed_on_full_crops"]:.2f}']

    def __str__(self):
        steps = 'steps unknown' if self.getSteps() is None else f'{self.getSteps()} steps'
        pixelSize = 'pixel size unknown' if self.getPixelSize() is None else f'{self.getPixelSize():0.2f} Å/px'
        return f'{self.getClassName()} ({self._preset.get("")}, {steps}, {pixelSize})'


class CryogemEvaluation(EMObject):
    """What a comparison of generated with real micrographs found; its folder holds the report."""

    REPORT, PAGE, GALLERY = 'report.json', 'report.html', 'gallery.png'

    def __init__(self, path=None, **kwargs):
        super().__init__(**kwargs)
        self._path = String(path)

    def getPath(self) -> str:
        """Return the folder of the report, relative to the project."""
        return self._path.get()

    def getReport(self) -> dict[str, Any]:
        """Return the numbers of the report."""
        return read_json(Path(self.getPath(), self.REPORT), 'evaluation')

    def getPage(self) -> str:
        """Return the report as a page for a browser, '' if there is none."""
        page = os.path.join(self.getPath(), self.PAGE)
        return page if os.path.exists(page) else ''

    def getGallery(self) -> str:
        """Return the picture of real beside generated micrographs."""
        return os.path.join(self.getPath(), self.GALLERY)

    def getFiles(self) -> set:
        """Return what has to be copied with the object."""
        return {self.getPath()}

    def __str__(self):
        return f'{self.getClassName()} ({self.getPath()})'


def readCard(folder: str) -> dict[str, Any]:
    """Return the card of a model folder.

    Raises
    ------
    InputError : it is missing or damaged.
    """
    return read_json(Path(folder, CARD), 'model')
