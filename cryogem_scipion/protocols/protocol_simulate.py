"""Simulate noise-free micrographs of a map as the microscope behind the user's real micrographs would see it."""

import json
import os
from typing import Any

from pyworkflow.object import Pointer
from pyworkflow.protocol import params

from cryogem.config import SimulateConfig
from cryogem_scipion.convert import (
    describeVolumes,
    exportMask,
    exportVolumes,
    getPattern,
    groupCoordinates,
    linkMicrographs,
    matchCtfs,
    writeCoordinates,
    writeCtfs,
    writeParticles,
)
from cryogem_scipion.engine import tellInOneSentence
from cryogem_scipion.objects import CryogemSimulation
from cryogem_scipion.protocols.protocol_micrographs import ProtCryogemMicrographs

SIMULATION = 'outputSimulation'
_FEW_PICKS = 100
_FEW_MICROGRAPHS = 4


class ProtCryogemSimulate(ProtCryogemMicrographs):
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
                    'ice_thickness', 'ice_tilt', 'defocus_error', 'particle_diameter', 'mask_threshold', 'low_pass',
                    'defocus_range', 'astigmatism', 'phase_shift', 'b_factor', 'working_pixel_size', 'seed')

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

    def _defineInputParams(self, form):
        form.addParam('inputVolumes', params.PointerParam, pointerClass='Volume, SetOfVolumes', important=True,
                      label='Map of the particle',
                      help='A map of your particle, a coarse one will do, or a set of maps if the sample is a mixture '
                           'of conformations. Any box and pixel size; protein is bright. It is resampled to the '
                           'pixel size of the simulation.')
        form.addParam('volumeWeights', params.NumericListParam, default='', allowsNull=True,
                      expertLevel=params.LEVEL_ADVANCED, label='Weights of the maps',
                      help='One number for each map of a set, separated by blanks: how often it occurs. Empty: all '
                           'maps are equally frequent.')
        form.addParam('inputCoordinates', params.PointerParam, pointerClass='SetOfCoordinates', allowsNull=True,
                      important=True, label='Picked particles',
                      help='Particles picked on real micrographs; a few hundred are enough. Their number gives the '
                           'density of particles, what lies between them gives ice and noise. Only micrographs with '
                           'picks are used: pick all particles of a few micrographs rather than a few of all.')
        form.addParam('inputMicrographs', params.PointerParam, pointerClass='SetOfMicrographs', allowsNull=True,
                      important=True, label='Real micrographs',
                      help='The micrographs to imitate; particles must be dark in them. Needed when there are no '
                           'picks. With picks leave it empty to use the picked micrographs themselves, or give '
                           'another version of them with the same names, for instance a binned one.')
        form.addParam('inputCTF', params.PointerParam, pointerClass='SetOfCTF', allowsNull=True,
                      label='CTFs of the micrographs',
                      help='CTFs estimated on the real micrographs; what is made has a defocus like theirs. Empty: '
                           'they are estimated here, which takes a few seconds per micrograph.')
        self._addSetting(form, 'n_micrographs', 'Number of micrographs',
                         more='20 are enough to train on; generate makes any number later.')
        self._addSetting(form, 'particles', 'Particle stacks', display=params.EnumParam.DISPLAY_HLIST,
                         more='generated: cut from the micrographs; clean: the same particles alone and without '
                              'noise. All carry their true poses and CTFs.')
        form.addParam('preview', params.LabelParam, label='Preview: one micrograph with these settings',
                      help='The magic wand makes one micrograph with the present values, puts the measured noise of '
                           'the first micrographs on it and shows it beside a real one. It takes about half a minute '
                           'and changes nothing.')
        self._addSetting(form, 'box_size', 'Box size (px)', allowsPointers=True, expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'seed', 'Random seed', expertLevel=params.LEVEL_ADVANCED)

    def _defineSpecimenParams(self, form):
        self._addSetting(form, 'particles_per_micrograph', 'Particles per micrograph', 'Mean', 'Standard deviation')
        self._addSetting(form, 'signal_to_noise', 'Signal-to-noise ratio', more='0.1 is common.')
        self._addSetting(form, 'minimum_distance', 'Least distance (Å)')
        self._addSetting(form, 'allowed_overlap', 'Allowed overlap', expertLevel=params.LEVEL_ADVANCED,
                         more='0.2 lets a particle cover a fifth of the diameter of another.')
        self._addSetting(form, 'clustering', 'Clustering', expertLevel=params.LEVEL_ADVANCED)
        form.addParam('exclusionMasks', params.PathParam, default='', allowsNull=True,
                      expertLevel=params.LEVEL_ADVANCED, label='Exclusion masks',
                      help='A mask or a pattern of masks (MRC, TIFF, PNG), not 0 where no particle may lie, as carbon '
                           'or dirt: one for all, or named like the micrographs. Empty: particles lie anywhere.')
        self._addSetting(form, 'particle_diameter', 'Particle diameter (Å)')
        self._addSetting(form, 'ice_thickness', 'Ice thickness (Å)',
                         more='400 Å is thin ice as aimed at in single-particle work.')
        self._addSetting(form, 'working_pixel_size', 'Pixel size (Å/px)', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'mask_threshold', 'Mask threshold', expertLevel=params.LEVEL_ADVANCED)
        form.addParam('inputMask', params.PointerParam, pointerClass='VolumeMask', allowsNull=True,
                      expertLevel=params.LEVEL_ADVANCED, label='Mask of the particle',
                      help='What of the maps is particle, 1, and what is solvent, 0; sampled as the first map. Empty: '
                           'made from the map, low-passed and cut at the mask threshold.')
        self._addSetting(form, 'low_pass', 'Low-pass (Å)', expertLevel=params.LEVEL_ADVANCED)

    def _defineViewParams(self, form):
        self._addSetting(form, 'symmetry', 'Symmetry')
        form.addParam('inputParticles', params.PointerParam, pointerClass='SetOfParticles', allowsNull=True,
                      pointerCondition='hasAlignmentProj', label='Angular distribution',
                      help='Particles with poses, of a refinement of your data: the views are drawn from theirs, so '
                           'that preferred orientations are those of your sample. Empty: all views are equally '
                           'frequent.')
        self._addSetting(form, 'preferred_view', 'Preferred view (degrees)', 'Rot', 'Tilt',
                         expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'view_spread', 'Spread of the views (degrees)', expertLevel=params.LEVEL_ADVANCED)

    def _defineOpticsParams(self, form):
        self._addSetting(form, 'defocus_range', 'Defocus (Å)', 'Min', 'Max')
        self._addSetting(form, 'astigmatism', 'Astigmatism (Å)', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'phase_shift', 'Phase shift (degrees)', 'From', 'To', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'b_factor', 'B-factor (Å²)', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'ice_tilt', 'Tilt of the ice (degrees)', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'defocus_error', 'Largest defocus error (Å)', expertLevel=params.LEVEL_ADVANCED,
                         more='A smaller one takes more time.')

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self):
        inputs = self._describeInputs('inputVolumes', 'inputCoordinates', 'inputMicrographs', 'inputCTF', 'inputMask',
                                      'inputParticles')
        said = json.dumps([self.volumeWeights.get(''), self.exclusionMasks.get(''), self._getSettingsText()])
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.simulateStep, inputs, said, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, said, needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    @tellInOneSentence
    def convertInputStep(self, inputs):
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
        errors = []
        micPointer = self._getMicrographPointer()
        if micPointer.get() is None:
            return ['*Picked particles*, *Real micrographs* are both empty; give one of them.']
        acquisition = micPointer.get().getAcquisition()
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
        return errors + self._validateWithoutPicks() + self._validateVolumes() + self._validateViews()

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
        warnings = []
        micSet, volumes = self._getMicrographPointer().get(), self.inputVolumes.get()
        if micSet is None or volumes is None:
            return warnings
        micPixelSize, mapPixelSize = micSet.getSamplingRate(), volumes.getSamplingRate()
        if abs(mapPixelSize / micPixelSize - 1) > 0.01:
            warnings.append(f'*Map of the particle* has {mapPixelSize:.3f} Å/px, *Real micrographs* '
                            f'{micPixelSize:.3f} Å/px: the map will be resampled.')
        chosen, groups = self.chooseMicrographs()
        picks = sum(len(groups.get(mic.getObjId(), ())) for mic in chosen)
        if groups and picks < _FEW_PICKS:
            warnings.append(f'*Picked particles* are only {picks}: density and noise will be measured roughly.')
        if len(chosen) < micSet.getSize():
            warnings.append(f'*Real micrographs* with all that is given, picks and CTFs, are {len(chosen)} of '
                            f'{micSet.getSize()}: only these will be used.')
        if len(chosen) < _FEW_MICROGRAPHS:
            warnings.append(f'*Real micrographs* are only {len(chosen)}: what is made will vary less than your data.')
        return warnings

    def _methods(self):
        if not self.isFinished():
            return []
        micSet = self.outputMicrographs
        return [f'{micSet.getSize()} noise-free micrographs with {self.outputCoordinates.getSize()} particles were '
                f'simulated at {micSet.getSamplingRate():.3g} Å/px from {len(self.getVolumes())} map(s) with '
                'CryoGEM [Zhang2024], after measuring particle density, ice and noise on '
                f'{len(self.chooseMicrographs()[0])} real micrographs.']

    # --------------------------- UTILS functions -----------------------------
    def writeEngineInputs(self, folder: str, most: int | None = None) -> None:
        """Write what the engine reads into `folder`, of the first `most` micrographs only if that is given."""
        chosen, groups = self.chooseMicrographs()
        linked = linkMicrographs(chosen[:most], os.path.join(folder, 'micrographs'))
        self.info(f'{len(linked)} real micrographs')
        if groups:
            number = writeCoordinates(groups, linked, self.getPickScale(), os.path.join(folder, 'coordinates'))
            self.info(f'{number} picked particles')
        ctfs = self.inputCTF.get()
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
            'micrographs': [getPattern(os.path.join(folder, 'micrographs'))],
            'pixel_size': micSet.getSamplingRate(),
            'voltage': acquisition.getVoltage(),
            'spherical_aberration': acquisition.getSphericalAberration(),
            'amplitude_contrast': acquisition.getAmplitudeContrast(),
        }
        if self.inputCoordinates.get() is not None:
            values['coordinates'] = [getPattern(os.path.join(folder, 'coordinates'))]
        if self.inputCTF.get() is not None:
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
        pointers = (self.inputVolumes, self.inputCoordinates, self._getMicrographPointer(), self.inputCTF)
        return [pointer for pointer in pointers if pointer.get() is not None]

    def _getMicrographPointer(self) -> Pointer:
        coordinates = self.inputCoordinates.get()
        if self.inputMicrographs.get() is None and coordinates is not None:
            return coordinates.getMicrographs(asPointer=True)
        return self.inputMicrographs

    def chooseMicrographs(self) -> tuple[list, dict]:
        """Return the real micrographs to use, those with picks and CTFs where these are given, and the picks by id."""
        chosen, groups = [mic.clone() for mic in self.getInputMicrographs()], {}
        if self.inputCoordinates.get() is not None:
            groups = groupCoordinates(self.inputCoordinates.get(), chosen)
            chosen = [mic for mic in chosen if mic.getObjId() in groups]
        if self.inputCTF.get() is not None:
            ctfs = matchCtfs(self.inputCTF.get(), chosen)
            chosen = [mic for mic in chosen if mic.getObjId() in ctfs]
        return chosen, groups

    def getPickScale(self) -> float:
        """Return the factor from px of the picked micrographs to px of the real ones."""
        picked = self.inputCoordinates.get().getMicrographs()
        return picked.getSamplingRate() / self.getInputMicrographs().getSamplingRate()

    def getVolumes(self) -> list:
        """Return the maps, one or those of a set, with their sampling rates."""
        volumes = self.inputVolumes.get()
        return [volume.clone() for volume in volumes] if hasattr(volumes, 'getSize') else [volumes]

    def _getWeights(self) -> list[float]:
        """Return one weight per map; ValueError says what is wrong with the text."""
        number, text = len(self.getVolumes()), self.volumeWeights.get('').split()
        weights = [float(word) for word in text] or [1.0] * number
        if len(weights) != number:
            raise ValueError(f'are {len(weights)} for {number} maps; give one number per map')
        return weights
