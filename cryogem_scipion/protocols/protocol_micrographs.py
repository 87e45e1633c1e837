"""What simulate and generate share: they end in micrographs with coordinates, CTFs and, when asked, particles."""

import json
from contextlib import contextmanager
from typing import Any

from pwem.objects import SetOfCoordinates, SetOfCTF, SetOfMicrographs, SetOfParticles
from pyworkflow.object import Pointer, Set
from pyworkflow.protocol import params

from cryogem_scipion.convert import readManifest
from cryogem_scipion.engine import CryogemJobError, runCryogem
from cryogem_scipion.outputs import appendMicrograph, copyAcquisition, fillParticles, readFinished, readOutline
from cryogem_scipion.protocols.protocol_base import ProtCryogemBase
from cryogem_scipion.streaming import repeatMeanwhile

MICROGRAPHS, COORDINATES, CTFS = 'outputMicrographs', 'outputCoordinates', 'outputCTF'
PARTICLES, CLEAN_PARTICLES = 'outputParticles', 'outputCleanParticles'
# The stack of each particle output in the engine's folder, and the choices of the form that ask for it.
_STACKS = {PARTICLES: ('particles.mrcs', ('generated', 'both')),
           CLEAN_PARTICLES: ('clean_particles.mrcs', ('clean', 'both'))}
_GROWING = (MICROGRAPHS, COORDINATES, CTFS)
FILE_KEYS = ('output_sampling', 'pixel_type', 'formats')
_INTERVAL = 5.0                             # seconds between two looks for finished micrographs
_BATCH = 500                                # micrographs that are stored at once: bounds memory and locks


class ProtCryogemMicrographs(ProtCryogemBase):
    """Base class of protocols that make micrographs; not a protocol of its own.

    Micrographs, coordinates and CTFs are registered while the engine runs, in the order of their numbers, and stay
    open sets until all are there; particles follow at the end, when their stack is whole.
    """

    _label: str | None = None
    _prefix = ''                            # of the names of micrographs
    # A dict, because members of an Enum with the same class would be one member.
    _possibleOutputs = {MICROGRAPHS: SetOfMicrographs, COORDINATES: SetOfCoordinates, CTFS: SetOfCTF,
                        PARTICLES: SetOfParticles, CLEAN_PARTICLES: SetOfParticles}

    def getOutputFolder(self) -> str:
        """Return the folder of the engine with the micrographs."""
        raise NotImplementedError

    def getSeenMicrographNames(self) -> set[str]:
        """Return the names of the real micrographs that something was learned from on the way to this run."""
        raise NotImplementedError

    def getPossibleOutputs(self):
        """Return the outputs of a run with the current parameters, by name."""
        missing = set(_STACKS) - set(self._getStacks())
        return {name: kind for name, kind in self._possibleOutputs.items() if name not in missing}

    # --------------------------- DEFINE param functions ----------------------
    def _addFileParams(self, form) -> None:
        """Add what says which files are written and how: for experts."""
        self._addSetting(form, 'output_sampling', 'Pixels of the output', expertLevel=params.LEVEL_ADVANCED,
                         more='The outputs have this pixel size.')
        self._addSetting(form, 'pixel_type', 'Type of pixels', expertLevel=params.LEVEL_ADVANCED,
                         more='float16 halves the disk space, int8 takes a quarter of it.')
        self._addSetting(form, 'formats', 'Files besides micrographs', expertLevel=params.LEVEL_ADVANCED,
                         more='Names separated by blanks. Viewers show clean and masks; with none a large run takes a '
                              'fraction of the disk space.')

    # --------------------------- STEPS functions -----------------------------
    def _runMaker(self, command: str, values: dict[str, Any], inputs: str) -> None:
        """Run a command of the engine that makes micrographs, and register them meanwhile.

        With nothing but their number changed it continues: what is there is kept, what is too much is forgotten.
        """
        fixed = json.dumps({key: value for key, value in values.items() if key != 'n_micrographs'}, sort_keys=True)
        isContinued = self._startOrContinue(self.getOutputFolder(), inputs, fixed)
        self._forgetOutputs(*_STACKS)                           # their stack is written anew
        if not (isContinued and self._areOutputsSound(values['n_micrographs'])):
            self._forgetAllOutputs()
        with repeatMeanwhile(self._registerFinished, _INTERVAL):
            runCryogem(self, command, {
                **values, **self._getComputeSettings(),
                'output': self.getOutputFolder(),
                'prefix': self._getPrefix(),
                'continue': isContinued,
            })

    def _registerFinished(self) -> int:
        """Register, in order, the micrographs that were finished since the last time; return how many there are."""
        with self._lock:                                        # called by a thread beside the engine, too
            number = self._countRegistered()
            while batch := list(readFinished(self.getOutputFolder(), self._getPrefix(), number,
                                             min(number + _BATCH, self.nMicrographs.get()))):
                with self._openSets(batch[0].pixel_size) as sets:
                    for record in batch:
                        appendMicrograph(record, self.getOutputFolder(), *sets)
                number += len(batch)
        return number

    @contextmanager
    def _openSets(self, pixelSize: float):
        """Give the three growing sets, new or to be continued; store them if the block ends well.

        The CTFs come last: where there are as many as micrographs, everything of these is there (see
        `_areOutputsSound`).
        """
        isNew = not hasattr(self, MICROGRAPHS)
        sets = self._createSets(pixelSize) if isNew else tuple(getattr(self, name) for name in _GROWING)
        try:
            for one in sets if not isNew else ():
                one.enableAppend()
            yield sets
            for name, one in zip(_GROWING, sets, strict=True):
                self._updateOutputSet(name, one, state=Set.STREAM_OPEN)
        except BaseException:
            for one in sets:                                    # what was not stored is forgotten
                one.close()
                one.load()
                one.close()
            raise
        if isNew:
            self._relateOutputs(*_GROWING)
            self._defineCtfRelation(Pointer(self, extended=MICROGRAPHS), Pointer(self, extended=CTFS))

    def _createSets(self, pixelSize: float) -> tuple[SetOfMicrographs, SetOfCoordinates, SetOfCTF]:
        """Return empty sets of micrographs, coordinates and CTFs."""
        micSet = SetOfMicrographs.create(self._getPath())
        micSet.setAcquisition(copyAcquisition(self._getAcquisition()))      # first: the sampling rate needs it
        micSet.setSamplingRate(pixelSize)
        coordinateSet, ctfSet = SetOfCoordinates.create(self._getPath()), SetOfCTF.create(self._getPath())
        coordinateSet.setBoxSize(readOutline(self.getOutputFolder())['box_size'])
        for one in (coordinateSet, ctfSet):
            one.setMicrographs(Pointer(self, extended=MICROGRAPHS))
        return micSet, coordinateSet, ctfSet

    def _createOutputs(self) -> None:
        """Register what is missing, close the sets, and register the particles that are asked for."""
        number = self._registerFinished()
        if number != self.nMicrographs.get():
            raise CryogemJobError(f'{self.getOutputFolder()} holds {number} of {self.nMicrographs.get()} micrographs; '
                                  'choose Continue to make the others')
        self._closeOutputSet()
        self._forgetOutputs(*_STACKS)
        stacks = {name: self._createParticles(name, stack) for name, stack in self._getStacks().items()}
        self._defineOutputs(**stacks)
        self._relateOutputs(*stacks)
        self._keepSummary(*self._describeOutputs(self.outputMicrographs, self.outputCoordinates))

    def _createParticles(self, name: str, stack: str) -> SetOfParticles:
        folder = self.getOutputFolder()
        particleSet = SetOfParticles.create(self._getPath(), prefix=name.removeprefix('output').lower())
        particleSet.setAcquisition(copyAcquisition(self._getAcquisition()))
        particleSet.setSamplingRate(readManifest(folder)['pixel_size'])
        particleSet.setHasCTF(True)
        particleSet.setAlignmentProj()
        particleSet.setCoordinates(Pointer(self, extended=COORDINATES))
        fillParticles(particleSet, readFinished(folder, self._getPrefix(), 0, self.nMicrographs.get()), folder, stack)
        return particleSet

    def _relateOutputs(self, *names: str) -> None:
        """Say what outputs were made from."""
        for name in names:
            output = Pointer(self, extended=name)
            for source in self._getSources():
                self._defineSourceRelation(source, output)
            if name not in (MICROGRAPHS, CTFS):
                self._defineSourceRelation(Pointer(self, extended=MICROGRAPHS), output)

    # --------------------------- INFO functions ------------------------------
    def _summary(self):
        if self.isActive() and self._countRegistered():
            return [f'*{self._countRegistered()}* of {self.nMicrographs.get()} micrographs so far']
        return super()._summary()

    # --------------------------- UTILS functions -----------------------------
    def _getAcquisition(self):
        """Return the acquisition of the real micrographs."""
        raise NotImplementedError

    def _getSources(self) -> list[Pointer]:
        """Return pointers to what the micrographs are made from."""
        raise NotImplementedError

    def _getPrefix(self) -> str:
        """Return the beginning of the names of micrographs: pickers need names that no other run has."""
        return f'{self._prefix}_{self.getObjId():06d}'

    def _countRegistered(self) -> int:
        return getattr(self, MICROGRAPHS).getSize() if hasattr(self, MICROGRAPHS) else 0

    def _areOutputsSound(self, number: int) -> bool:
        """Say whether the outputs of an earlier run can be continued up to `number` micrographs.

        A run that was killed may have stored one set and not the next.
        """
        if not all(hasattr(self, name) for name in _GROWING):
            return False
        sizes = []
        for one in (getattr(self, name) for name in _GROWING):
            one.load()                                          # counts what is there
            sizes.append(one.getSize())
            one.close()
        return sizes[0] == sizes[2] <= number

    def _getStacks(self) -> dict[str, str]:
        """Return the particle outputs that the form asks for, and the stack of each."""
        asked = self.getEnumText('particles')
        return {name: stack for name, (stack, choices) in _STACKS.items() if asked in choices}

    def _describeOutputs(self, micSet: SetOfMicrographs, coordinateSet: SetOfCoordinates) -> list[str]:
        number, particles = micSet.getSize(), coordinateSet.getSize()
        width, height, _ = micSet.getDim()
        return [f'*{number}* micrographs of {width} x {height} px, *{micSet.getSamplingRate():.3g} Å/px*',
                f'*{particles}* particles, {particles / number:.0f} per micrograph, '
                f'box {coordinateSet.getBoxSize()} px']
