"""Objects of this plugin that live in a Scipion project."""

from pwem.objects import EMObject
from pyworkflow.object import Float, Integer, String


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
    """A trained model of what the noise of one set of micrographs looks like."""

    def __init__(self, path=None, pixelSize=None, preset=None, steps=None, **kwargs):
        super().__init__(**kwargs)
        self._path = String(path)
        self._pixelSize = Float(pixelSize)              # Å/px
        self._preset = String(preset)
        self._steps = Integer(steps)

    def getPath(self) -> str:
        """Return the model folder, relative to the project."""
        return self._path.get()

    def getPixelSize(self) -> float:
        """Return the pixel size it was trained at, Å/px."""
        return self._pixelSize.get()

    def getPreset(self) -> str:
        """Return the preset it was trained with."""
        return self._preset.get()

    def getSteps(self) -> int:
        """Return the number of training steps."""
        return self._steps.get()

    def getFiles(self) -> set:
        """Return what has to be copied with the object."""
        return {self.getPath()}

    def __str__(self):
        return (f'{self.getClassName()} ({self._preset.get("")}, {self._steps.get(0)} steps, '
                f'{self._pixelSize.get(0.0):0.2f} Å/px)')
