"""Generate micrographs that look like the user's, with every particle known."""

import json
import os

from pyworkflow.object import Pointer
from pyworkflow.protocol import params

from cryogem.config import NOISE_MODELS, GenerateConfig
from cryogem_scipion.constants import TRAINED_MODEL
from cryogem_scipion.convert import computeDigest
from cryogem_scipion.engine import tellInOneSentence
from cryogem_scipion.protocols.protocol_base import LIBRARIES
from cryogem_scipion.protocols.protocol_micrographs import FILE_KEYS, ProtCryogemMicrographs
from cryogem_scipion.protocols.protocol_simulate import SIMULATION
from cryogem_scipion.protocols.protocol_train import ProtCryogemTrain

_CHOICES = (TRAINED_MODEL, *NOISE_MODELS)


class ProtCryogemGenerate(ProtCryogemMicrographs):
    """Make micrographs that look like your real ones, with coordinates, CTFs and poses of all particles.

    The specimen is that of a finished *cryogem - simulate*; the noise comes from a model of *cryogem - train*, or
    from a noise model that needs no training: *measured* has the noise spectrum, ice and grey scale of your
    micrographs, the others are simple baselines.

    Use the result to train pickers and pose estimators, or to test a workflow with known truth. A run that was
    stopped goes on with *Continue*: finished micrographs are kept.
    """

    _label = 'generate'
    _prefix = 'generated'
    _configClass = GenerateConfig
    _settingKeys = ('n_micrographs', 'particles', 'box_size', 'snr', 'dose', 'force', 'seed', *FILE_KEYS)

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form):
        form.addSection('Input')
        self._addGpuParams(form)
        self._addSimulationParam(
            form, 'The result of *cryogem - simulate*: its maps and its measurements are used. New particles in new '
                  'poses are made, as many as you want.')
        form.addParam('noise', params.EnumParam, choices=list(_CHOICES), default=_CHOICES.index(TRAINED_MODEL),
                      label='Noise',
                      help='A trained model looks most like your micrographs. *measured* needs no training and comes '
                           'close: it has their noise spectrum, ice and grey scale. gaussian, poisson and '
                           'poisson_gaussian are the baselines of the literature.')
        form.addParam('inputModel', params.PointerParam, pointerClass='CryogemModel', important=True,
                      condition=f'noise == {_CHOICES.index(TRAINED_MODEL)}', label='Model',
                      help='A model from *cryogem - train*, trained at the pixel size of the simulation.')
        self._addSetting(form, 'force', 'Use the model in any case?', condition=_conditionOn(TRAINED_MODEL),
                         expertLevel=params.LEVEL_ADVANCED,
                         more='No: with such a model you get the noise it starts from.')
        self._addSetting(form, 'snr', 'Signal-to-noise ratio',
                         condition=_conditionOn('gaussian', 'poisson_gaussian'))
        self._addSetting(form, 'dose', 'Dose (e/Å²)', condition=_conditionOn('poisson', 'poisson_gaussian'))
        self._addSetting(form, 'n_micrographs', 'Number of micrographs')
        self._addSetting(form, 'particles', 'Particle stacks', display=params.EnumParam.DISPLAY_HLIST,
                         more='generated: cut from the micrographs; clean: the same particles alone and without '
                              'noise. All carry their true poses and CTFs.')
        self._addSetting(form, 'box_size', 'Box size (px)', allowsPointers=True, expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'seed', 'Random seed', expertLevel=params.LEVEL_ADVANCED)
        self._addFileParams(form)
        self._addParallel(form)

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self):
        inputs, settings = self._describeGenerateInputs(), self._getSettingsText()
        self._insertFunctionStep(self.generateStep, inputs, settings, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, settings, needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    @tellInOneSentence
    def generateStep(self, inputs, settings):
        self._runMaker('generate', {
            **json.loads(settings),
            'dataset': self._getSimulation().getDatasetFolder(),
            'model': self._getModelText(),
        }, inputs)

    @tellInOneSentence
    def createOutputStep(self, inputs, settings):
        self._createOutputs()

    # --------------------------- INFO functions ------------------------------
    def _validateInputs(self):
        simulation, model = self._getSimulation(), self.inputModel.get()
        errors = self._validateSimulation()
        if errors or simulation is None or model is None or not self._usesModel():
            return errors
        pixelSize = simulation.outputMicrographs.getSamplingRate()
        if model.getPixelSize() and abs(model.getPixelSize() / pixelSize - 1) > 0.01:
            errors.append(f'*Model* was trained at {model.getPixelSize():.3f} Å/px, the *Simulation* has '
                          f'{pixelSize:.3f} Å/px; choose a model of this simulation.')
        return errors

    def _warnings(self):
        model, warnings = self.inputModel.get(), []
        if not self._usesModel() or model is None:
            return warnings
        if not model.getPixelSize():
            warnings.append('*Model* does not say for which pixel size it was trained; make sure that it was that of '
                            'the *Simulation*.')
        if not model.isGood():
            remedy = ('that noise is as near as real micrographs are to each other, so there was little to learn'
                      if model.isPriorGood() else 'train it longer, or on more micrographs')
            warnings.append(f'*Model* was found no better than the noise it starts from ({model.compareWithPrior()}): '
                            + ('it is used all the same, as *Use the model in any case?* says.' if self.force
                               else f'that noise is used in its place; {remedy}.'))
        return warnings

    def _methods(self):
        if not self.isFinished():
            return []
        micSet, name = self.outputMicrographs, self.getEnumText('noise')
        noise = {TRAINED_MODEL: 'Noise was added by a model trained on real micrographs' if self._isModelApplied()
                 else 'Noise is what a model trained on real micrographs starts from',
                 'measured': 'Noise was drawn from the spectra measured on real micrographs'}.get(
                     name, f'Noise was drawn from the {name} model')
        return [f'{micSet.getSize()} micrographs with {self.outputCoordinates.getSize()} particles of known position, '
                f'pose and defocus were generated by CryoGEM [Zhang2024] at {micSet.getSamplingRate():.3g} Å/px, in '
                f'the conventions of RELION [Scheres2012], from the specimen of a simulation. {noise}.']

    def _citations(self):
        return ['Zhang2024', *(['Park2020'] if self._usesModel() else []), 'Scheres2012', *LIBRARIES]

    # --------------------------- UTILS functions -----------------------------
    def _describeOutputs(self, micSet, coordinateSet) -> list[str]:
        lines = [*super()._describeOutputs(micSet, coordinateSet), f'Noise: *{self.getEnumText("noise")}*']
        if self._usesModel() and not self._isModelApplied():
            lines.append('The model is no better than the noise it starts from: *that noise was used in its place*')
        return lines

    def getGeneratedFolder(self) -> str:
        """Return the folder in which the engine leaves the micrographs."""
        return self._getExtraPath('generated')

    def _getAcquisition(self):
        return self._getSimulation().outputMicrographs.getAcquisition()

    def _getSources(self) -> list[Pointer]:
        simulation = Pointer(self._getSimulation(), extended=SIMULATION)
        return [simulation, self.inputModel] if self._usesModel() else [simulation]

    def getOutputFolder(self) -> str:
        """Return the folder of the engine with the micrographs, as every protocol that makes some calls it."""
        return self.getGeneratedFolder()

    def getSeenMicrographNames(self) -> set[str]:
        """Return the names of the real micrographs that something was learned from on the way to this run."""
        simulation, training = self._getSimulation(), self.inputModel.getObjValue()
        names = simulation.getSeenMicrographNames() if simulation is not None else set()
        return names | (training.getSeenMicrographNames() if isinstance(training, ProtCryogemTrain) else set())

    def _usesModel(self) -> bool:
        return self.getEnumText('noise') == TRAINED_MODEL

    def _isModelApplied(self) -> bool:
        """Say whether the network itself is used: the engine leaves out one that is no better than its noise."""
        return self._usesModel() and (self.force.get() or self.inputModel.get().isGood())

    def _getModelText(self) -> str:
        """Return the model folder or the name of the noise model, as the engine wants it."""
        return self.inputModel.get().getPath() if self._usesModel() else self.getEnumText('noise')

    def _describeGenerateInputs(self) -> str:
        """Return the inputs and their content: a simulation or model made anew is another input."""
        text = self._describeInputs(self.inputSimulation) + self._getModelText()
        text += computeDigest(os.path.join(self._getSimulation().getDatasetFolder(), 'manifest.json'))
        return text + (computeDigest(os.path.join(self._getModelText(), 'card.json')) if self._usesModel() else '')


def _conditionOn(*names: str) -> str:
    """Return the condition of a parameter that only the noise models `names` use."""
    return f'noise in {[_CHOICES.index(name) for name in names]}'
