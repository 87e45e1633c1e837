"""What simulate and generate share: they end in micrographs with coordinates, CTFs and, when asked, particles."""

import json
from typing import Any

from pwem.objects import SetOfCoordinates, SetOfCTF, SetOfMicrographs, SetOfParticles
from pyworkflow.object import Pointer

from cryogem_scipion.convert import (
    copyAcquisition,
    fillCoordinates,
    fillCtfs,
    fillMicrographs,
    fillParticles,
    readManifest,
)
from cryogem_scipion.engine import runCryogem
from cryogem_scipion.protocols.protocol_base import ProtCryogemBase

MICROGRAPHS, COORDINATES, CTFS = 'outputMicrographs', 'outputCoordinates', 'outputCTF'
PARTICLES, CLEAN_PARTICLES = 'outputParticles', 'outputCleanParticles'
# STAR file of each particle output in the engine's folder, and the choices of the form that ask for it.
_STACKS = {PARTICLES: ('particles.star', ('generated', 'both')),
           CLEAN_PARTICLES: ('clean_particles.star', ('clean', 'both'))}


class ProtCryogemMicrographs(ProtCryogemBase):
    """Base class of protocols that make micrographs; not a protocol of its own."""

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

    # --------------------------- STEPS functions -----------------------------
    def _runMaker(self, command: str, folder: str, values: dict[str, Any], inputs: str) -> None:
        """Run a command of the engine that makes micrographs; with nothing but their number changed it continues."""
        fixed = json.dumps({key: value for key, value in values.items() if key != 'n_micrographs'}, sort_keys=True)
        runCryogem(self, command, {
            **values, **self._getComputeSettings(),
            'output': folder,
            'prefix': f'{self._prefix}_{self.getObjId():06d}',          # pickers need names that no other run has
            'continue': self._startOrContinue(folder, inputs, fixed),
        })

    def _createOutputs(self, folder: str, acquisition, sources: list[Pointer]) -> None:
        """Register what the engine wrote into `folder`; `sources` are pointers to what it was made from."""
        manifest = readManifest(folder)
        micSet = SetOfMicrographs.create(self._getPath())
        micSet.setAcquisition(copyAcquisition(acquisition))     # first: the sampling rate needs its magnification
        micSet.setSamplingRate(manifest['pixel_size'])
        mics = fillMicrographs(micSet, folder)
        self._defineOutputs(**{MICROGRAPHS: micSet})
        micPointer = Pointer(self, extended=MICROGRAPHS)

        coordinateSet = SetOfCoordinates.create(self._getPath())
        coordinateSet.setMicrographs(micPointer)
        coordinateSet.setBoxSize(manifest['box_size'])
        fillCoordinates(coordinateSet, mics, folder)
        ctfSet = SetOfCTF.create(self._getPath())
        ctfSet.setMicrographs(micPointer)
        fillCtfs(ctfSet, mics, folder)
        outputs = {COORDINATES: coordinateSet, CTFS: ctfSet}
        for name, starName in self._getStacks().items():
            outputs[name] = self._createParticles(name, starName, mics, folder, acquisition)
        self._defineOutputs(**outputs)

        for name in (MICROGRAPHS, *outputs):
            output = Pointer(self, extended=name)
            for source in sources:
                self._defineSourceRelation(source, output)
            if name not in (MICROGRAPHS, CTFS):
                self._defineSourceRelation(micPointer, output)
        self._defineCtfRelation(micPointer, Pointer(self, extended=CTFS))
        self._keepSummary(*self._describeOutputs(micSet, coordinateSet))

    def _createParticles(self, name: str, starName: str, mics: dict, folder: str, acquisition) -> SetOfParticles:
        particleSet = SetOfParticles.create(self._getPath(), prefix=name.removeprefix('output').lower())
        particleSet.setAcquisition(copyAcquisition(acquisition))
        particleSet.setSamplingRate(readManifest(folder)['pixel_size'])
        particleSet.setHasCTF(True)
        particleSet.setAlignmentProj()
        particleSet.setCoordinates(Pointer(self, extended=COORDINATES))
        fillParticles(particleSet, mics, folder, starName)
        return particleSet

    # --------------------------- UTILS functions -----------------------------
    def _getStacks(self) -> dict[str, str]:
        """Return the particle outputs that the form asks for, and the STAR file of each."""
        asked = self.getEnumText('particles')
        return {name: starName for name, (starName, choices) in _STACKS.items() if asked in choices}

    def _describeOutputs(self, micSet: SetOfMicrographs, coordinateSet: SetOfCoordinates) -> list[str]:
        number, particles = micSet.getSize(), coordinateSet.getSize()
        width, height, _ = micSet.getDim()
        return [f'*{number}* micrographs of {width} x {height} px, *{micSet.getSamplingRate():.3g} Å/px*',
                f'*{particles}* particles, {particles / number:.0f} per micrograph, '
                f'box {coordinateSet.getBoxSize()} px']
