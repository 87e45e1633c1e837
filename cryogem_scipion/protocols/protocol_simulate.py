"""Simulate noise-free micrographs of a map as the microscope behind the user's real micrographs would see it."""

import json
import os
from typing import Any

from pwem.objects import SetOfClasses3D
from pyworkflow.object import Pointer

from cryogem.config import SimulateConfig
from cryogem_scipion.convert import (
    describeCalibration,
    describeVolumes,
    exportMask,
    exportVolumes,
    findCtfs,
    getPattern,
    groupCoordinates,
    linkMicrographs,
    matchCtfs,
    readCalibration,
    writeCoordinates,
    writeCtfs,
    writeParticles,
)
from cryogem_scipion.engine import tellInOneSentence
from cryogem_scipion.objects import CryogemSimulation
from cryogem_scipion.protocols.form_simulate import SimulateForm
from cryogem_scipion.protocols.protocol_base import LIBRARIES
from cryogem_scipion.protocols.protocol_micrographs import FILE_KEYS, ProtCryogemMicrographs

SIMULATION = 'outputSimulation'
_FEW_PICKS = 100
_FEW_MICROGRAPHS = 4


class ProtCryogemSimulate(SimulateForm, ProtCryogemMicrographs):
    """Make noise-free micrographs of a map, imaged as your real micrographs were.

    Density of particles, grey scale, ice and noise are measured on the real micrographs, guided by a few hundred
    picked particles. The map is put into a virtual specimen in random orientations and imaged with the CTF of the
    microscope. Every position, pose and defocus is known and registered.

    The result is the specimen for *cryogem - train* and *cryogem - generate*, which add the noise.
    """

    _label = 'simulate'
    _prefix = 'simulated'
    _possibleOutputs = {**ProtCryogemMicrographs._possibleOutputs, SIMULATION: CryogemSimulation}
    _configClass = SimulateConfig
    _settingKeys = ('n_micrographs', 'particles', 'box_size', 'particles_per_micrograph', 'signal_to_noise',
                    'minimum_distance', 'allowed_overlap', 'clustering', 'symmetry', 'preferred_view', 'view_spread',
                    'ice_thickness', 'ice_tilt', 'ice_model', 'defocus_error', 'particle_diameter', 'mask_threshold',
                    'low_pass', 'defocus_range', 'astigmatism', 'phase_shift', 'b_factor', 'working_pixel_size', 'seed',
                    *FILE_KEYS)
    _copiedInputs = ('volumes', 'mask.mrc')             # train reads the micrographs, too

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form):
        form.addSection('Input')
        self._addGpuParams(form)
        self._defineInputParams(form)
        form.addSection('Specimen')
        self._defineSpecimenParams(form)
        form.addSection('Views and optics')
        self._defineViewParams(form)
        self._defineOpticsParams(form)
        self._addParallel(form)

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self):
        inputs = self._describeInputs(self.inputVolumes, self.inputCoordinates, self._getMicrographPointer(),
                                      self.getCtfPointer(), self.inputMask, self.inputParticles)
        said = json.dumps([self.volumeWeights.get(''), self.exclusionMasks.get(''), self._getSettingsText()])
        self._insertFunctionStep(self.convertInputStep, inputs, said, needsGPU=False)
        self._insertFunctionStep(self.simulateStep, inputs, said, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, said, needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    @tellInOneSentence
    def convertInputStep(self, inputs, said):
        self.writeEngineInputs(self._getExtraPath())

    @tellInOneSentence
    def simulateStep(self, inputs, said):
        self._runMaker('simulate', self.getEngineValues(self._getExtraPath()), inputs)

    @tellInOneSentence
    def createOutputStep(self, inputs, said):
        self._createOutputs()
        micSet = self.outputMicrographs
        simulation = CryogemSimulation(path=self.getDatasetFolder(), pixelSize=micSet.getSamplingRate(),
                                       size=micSet.getSize())
        self._forgetOutputs(SIMULATION)
        self._defineOutputs(**{SIMULATION: simulation})
        for source in self._getSources():
            self._defineSourceRelation(source, Pointer(self, extended=SIMULATION))

    # --------------------------- INFO functions ------------------------------
    def _validateInputs(self):
        return (self._validateMicrographs() + self._validateWithoutPicks() + self._validateVolumes()
                + self._validateViews())

    def _validateMicrographs(self) -> list[str]:
        """Return what is wrong with the real micrographs, picks and CTFs together."""
        micSet, errors = self.getInputMicrographs(), []
        if micSet is None:
            return ['*Picked particles*, *Real micrographs* are both empty; give one of them.']
        acquisition = micSet.getAcquisition()
        known = (acquisition.getVoltage(), acquisition.getSphericalAberration(), acquisition.getAmplitudeContrast())
        if None in known:
            errors.append('*Real micrographs* have no voltage, spherical aberration or amplitude contrast; '
                          'import them with these values.')
        chosen, groups = self.chooseMicrographs()
        if not chosen and groups:
            errors.append('*CTFs of the micrographs* belong to none of the picked micrographs; choose the CTFs of '
                          'these micrographs or leave it empty.')
        elif not chosen and self.inputCoordinates.get() is not None:
            errors.append('*Picked particles* are on none of the *Real micrographs*; give micrographs with the same '
                          'names as those that were picked, or leave *Real micrographs* empty.')
        elif not chosen:
            errors.append('*CTFs of the micrographs* belong to none of the *Real micrographs*; choose the CTFs of '
                          'these micrographs or leave it empty.')
        return errors

    def _validateWithoutPicks(self) -> list[str]:
        """Return what has to be said when there are no picks to measure it."""
        if self.inputCoordinates.get() is not None:
            return []
        wanted = ((self.particlesMean, 'Particles per micrograph', 'count'),
                  (self.signalToNoise, 'Signal-to-noise ratio', 'measure it'))
        return [f'*{label}* is empty and there are no *Picked particles* to {verb}; give one of them.'
                for value, label, verb in wanted if value.get() is None]

    def _validateViews(self) -> list[str]:
        """Return what contradicts each other among views and mask."""
        errors, mask, particles = [], self.inputMask.get(), self.inputParticles.get()
        if particles is not None and self.preferredRot.get() is not None:
            errors.append('*Angular distribution*, *Preferred view* are both given; leave one of them empty.')
        if particles is not None and not particles.hasAlignmentProj():
            errors.append('*Angular distribution* has particles without poses; give those of a refinement.')
        if mask is not None and self.inputVolumes.get() is not None and mask.getDim() != self.getVolumes()[0].getDim():
            errors.append(f'*Mask of the particle* has the dimensions {mask.getDim()} and the map '
                          f'{self.getVolumes()[0].getDim()}; give a mask sampled as the map.')
        return errors

    def _validateVolumes(self) -> list[str]:
        if self.inputVolumes.get() is None:
            return []                       # Scipion itself says that it is empty
        errors = [f'*Map of the particle* {volume.getFileName()} has the dimensions {volume.getDim()}; pad or crop it '
                  'to a cube.' for volume in self.getVolumes() if len(set(volume.getDim())) > 1]
        try:
            weights = self._getWeights()
        except ValueError as error:
            return [*errors, f'*Weights of the maps* {error}.']
        if min(weights) < 0 or max(weights) == 0:
            errors.append(f'*Weights of the maps* cannot be {self.volumeWeights.get()}; give numbers that are not '
                          'negative, at least one of them positive.')
        return errors

    def _warnings(self):
        micSet, volumes = self.getInputMicrographs(), self.inputVolumes.get()
        if micSet is None or volumes is None:
            return []
        warnings, micPixelSize, mapPixelSize = [], micSet.getSamplingRate(), self.getVolumes()[0].getSamplingRate()
        if abs(mapPixelSize / micPixelSize - 1) > 0.01:
            warnings.append(f'*Map of the particle* has {mapPixelSize:.3f} Å/px, *Real micrographs* '
                            f'{micPixelSize:.3f} Å/px: the map will be resampled.')
        chosen, groups = self.chooseMicrographs()
        picks = sum(len(groups.get(mic.getObjId(), ())) for mic in chosen)
        if groups and picks < _FEW_PICKS:
            warnings.append(f'*Picked particles*: {picks} are few, density and noise will be measured roughly.')
        if self.inputCoordinates.get() is None:
            warnings.append('*Picked particles* are empty: nothing shows whether particles are dark or bright in the '
                            '*Real micrographs*, they are taken to be dark.')
        if len(chosen) < micSet.getSize():
            warnings.append(f'*Real micrographs* with all that is given, picks and CTFs, are {len(chosen)} of '
                            f'{micSet.getSize()}: only these will be used.')
        if len(chosen) < _FEW_MICROGRAPHS:
            warnings.append(f'*Real micrographs*: {len(chosen)} are few, what is made will vary less than your data.')
        return warnings

    def _methods(self):
        if not self.isFinished():
            return []
        micSet, measured = self.outputMicrographs, readCalibration(self.getDatasetFolder())
        picks = sum(one['n_picks'] for one in measured['micrographs'])
        maps, number = len(self.getVolumes()), len(measured['micrographs'])
        ice = ', multiplied by the ice of the published code' if self.getEnumText('iceModel') == 'paper' else ''
        views = ('drawn from the poses of a refinement' if self.inputParticles.get() is not None
                 else 'around a preferred view' if self.preferredRot.get() is not None else 'in uniform orientations')
        return [f'{micSet.getSize()} micrographs with {self.outputCoordinates.getSize()} particles were simulated '
                f'with CryoGEM [Zhang2024] at {micSet.getSamplingRate():.3g} Å/px. Projections of '
                f'{maps} map{"s" * (maps > 1)} {views} were placed in a virtual specimen of '
                f'{self.iceThickness.get():g} Å thick ice{ice} and imaged with the CTF at the height of each particle, '
                f'in the conventions of RELION [Scheres2012]. Particle density, crowding, grey scale, ice and noise '
                f'spectra were measured on {number} real micrographs'
                + (f' with {picks} picked particles.' if picks else '.')]

    def _citations(self):
        return ['Zhang2024', 'Scheres2012', *LIBRARIES]

    def _describeOutputs(self, micSet, coordinateSet) -> list[str]:
        return [*super()._describeOutputs(micSet, coordinateSet),
                *describeCalibration(readCalibration(self.getDatasetFolder()))]

    # --------------------------- UTILS functions -----------------------------
    def writeEngineInputs(self, folder: str, most: int | None = None) -> None:
        """Write what the engine reads into `folder`, of the first `most` micrographs only if that is given."""
        chosen, groups = self.chooseMicrographs()
        linked = linkMicrographs(chosen[:most], os.path.join(folder, 'micrographs'))
        self.info(f'{len(linked)} real micrographs')
        if groups:
            number = writeCoordinates(groups, linked, self.getPickScale(), os.path.join(folder, 'coordinates'))
            self.info(f'{number} picked particles')
        ctfs = self.getCtfPointer().get()
        if ctfs is not None:
            micSet = self.getInputMicrographs()
            number = writeCtfs(ctfs, linked, micSet.getAcquisition(), micSet.getSamplingRate(),
                               os.path.join(folder, 'ctfs.star'))
            self.info(f'{number} CTFs')
        exportVolumes(self.getVolumes(), os.path.join(folder, 'volumes'))
        if self.inputMask.get() is not None:
            exportMask(self.inputMask.get(), os.path.join(folder, 'mask.mrc'))
        particles = self.inputParticles.get()
        if particles is not None:
            writeParticles(particles, os.path.join(folder, 'views.star'))
            self.info(f'{particles.getSize()} poses')

    def getEngineValues(self, folder: str) -> dict[str, Any]:
        """Return the settings of the engine for the form and what `writeEngineInputs` left in `folder`."""
        micSet = self.getInputMicrographs()
        acquisition = micSet.getAcquisition()
        values = {
            **self._getSettings(),
            'volume': describeVolumes(self._getWeights(), os.path.join(folder, 'volumes')),
            'volume_pixel_size': self._getVolumePixelSize(),
            'micrographs': [getPattern(os.path.join(folder, 'micrographs'))],
            'pixel_size': micSet.getSamplingRate(),
            'voltage': acquisition.getVoltage(),
            'spherical_aberration': acquisition.getSphericalAberration(),
            'amplitude_contrast': acquisition.getAmplitudeContrast(),
        }
        if self.inputCoordinates.get() is not None:
            values['coordinates'] = [getPattern(os.path.join(folder, 'coordinates'))]
        if self.getCtfPointer().get() is not None:
            values['ctfs'] = os.path.join(folder, 'ctfs.star')
        if self.inputMask.get() is not None:
            values['mask'] = os.path.join(folder, 'mask.mrc')
        if self.inputParticles.get() is not None:
            values['angular_distribution'] = os.path.join(folder, 'views.star')
        if self.exclusionMasks.get(''):
            values['exclusion_masks'] = [self.exclusionMasks.get()]
        return values

    def getDatasetFolder(self) -> str:
        """Return the folder in which the engine leaves the simulation, for train and generate."""
        return self._getExtraPath('dataset')

    def getOutputFolder(self) -> str:
        """Return the folder of the engine with the micrographs, as every protocol that makes some calls it."""
        return self.getDatasetFolder()

    def getSeenMicrographNames(self) -> set[str]:
        """Return the names of the real micrographs that were measured."""
        micSet = self.getInputMicrographs()
        return set() if micSet is None else {mic.getMicName() for mic in micSet}

    def getMicrographFolder(self) -> str:
        """Return the folder with links to the real micrographs."""
        return self._getExtraPath('micrographs')

    def getInputMicrographs(self):
        """Return the real micrographs, given or those of the picks; None if there are none yet."""
        return self._getMicrographPointer().get()

    def _getAcquisition(self):
        return self.getInputMicrographs().getAcquisition()

    def _getSources(self) -> list[Pointer]:
        pointers = (self.inputVolumes, self.inputCoordinates, self._getMicrographPointer(), self.getCtfPointer())
        return [pointer for pointer in pointers if pointer.get() is not None]

    def _getMicrographPointer(self) -> Pointer:
        coordinates = self.inputCoordinates.get()
        if self.inputMicrographs.get() is None and coordinates is not None:
            return coordinates.getMicrographs(asPointer=True)
        return self.inputMicrographs

    def getCtfPointer(self) -> Pointer:
        """Return where the CTFs come from: given, else known to the project; it is empty if they are estimated."""
        if self.inputCTF.get() is not None or self.estimateCtfs:
            return self.inputCTF
        coordinates = self.inputCoordinates.get()
        micSets = [self.inputMicrographs.get(), coordinates.getMicrographs() if coordinates is not None else None]
        return findCtfs(self.getProject(), [one for one in micSets if one is not None]) or self.inputCTF

    def chooseMicrographs(self) -> tuple[list, dict]:
        """Return the real micrographs to use, those with picks and CTFs where these are given, and the picks by id."""
        chosen, groups = [mic.clone() for mic in self.getInputMicrographs()], {}
        if self.inputCoordinates.get() is not None:
            groups = groupCoordinates(self.inputCoordinates.get(), chosen)
            chosen = [mic for mic in chosen if mic.getObjId() in groups]
        ctfSet = self.getCtfPointer().get()
        if ctfSet is not None:
            ctfs = matchCtfs(ctfSet, chosen)
            chosen = [mic for mic in chosen if mic.getObjId() in ctfs]
        return chosen, groups

    def getPickScale(self) -> float:
        """Return the factor from px of the picked micrographs to px of the real ones."""
        picked = self.inputCoordinates.get().getMicrographs()
        return picked.getSamplingRate() / self.getInputMicrographs().getSamplingRate()

    def getVolumes(self) -> list:
        """Return the maps, one, those of a set or those of 3D classes, with their sampling rates."""
        volumes = self.inputVolumes.get()
        if isinstance(volumes, SetOfClasses3D):
            maps = [one.getRepresentative().clone() for one in volumes]
            for one in maps:
                one.setSamplingRate(one.getSamplingRate() or volumes.getSamplingRate())
            return maps
        return [volume.clone() for volume in volumes] if hasattr(volumes, 'getSize') else [volumes]

    def _getVolumePixelSize(self) -> float | None:
        """Return the sampling rate that all maps share: the engine takes 1 Å in a header for a blank."""
        rates = {one.getSamplingRate() for one in self.getVolumes()}
        return rates.pop() if len(rates) == 1 else None

    def _getWeights(self) -> list[float]:
        """Return one weight per map; ValueError says what is wrong with the text."""
        number, text, volumes = len(self.getVolumes()), self.volumeWeights.get('').split(), self.inputVolumes.get()
        weights = [float(word) for word in text]
        if not weights and isinstance(volumes, SetOfClasses3D):
            weights = [float(one.getSize()) for one in volumes]
        weights = weights or [1.0] * number
        if len(weights) != number:
            raise ValueError(f'are {len(weights)} for {number} maps; give one number per map')
        return weights
