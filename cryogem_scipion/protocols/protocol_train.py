"""Learn what the noise of the user's micrographs looks like."""

import json
import os
import shutil
from glob import glob
from pathlib import Path
from typing import Any

import pyworkflow.utils as pwutils
from pyworkflow.object import Pointer
from pyworkflow.protocol import params

from cryogem.config import TRAINING_PRESETS, TrainConfig
from cryogem.io.files import read_json
from cryogem.progress import MetricsLog
from cryogem_scipion.convert import computeDigest, findSettingErrors, getPattern, linkMicrographs
from cryogem_scipion.engine import runCryogem, tellInOneSentence
from cryogem_scipion.objects import CARD, CryogemModel
from cryogem_scipion.protocols.protocol_base import LIBRARIES, ProtCryogemBase
from cryogem_scipion.protocols.protocol_simulate import SIMULATION

MODEL = 'outputModel'
# Settings that say how long to train: with more of them a run goes on from its checkpoint.
_BUDGET = ('max_steps', 'max_minutes', 'checkpoint_every', 'patience', 'tensorboard')


class ProtCryogemTrain(ProtCryogemBase):
    """Train a network that turns simulated micrographs into such that look like your real ones.

    The real and the simulated micrographs need not show the same particles: the network learns from unpaired crops,
    guided by the known positions of the simulated particles. The result is a model for *cryogem - generate*.

    Minutes on a GPU, an hour or two on a CPU. After Stop, or with more steps, *Continue* goes on from the last
    checkpoint. To keep a model and train a copy of it longer, make a new run and choose *Continue a previous run*.
    """

    _label = 'train'
    _configClass = TrainConfig
    _possibleOutputs = {MODEL: CryogemModel}
    _settingKeys = ('preset', 'max_steps', 'max_minutes', 'crop_size', 'batch_size', 'learning_rate',
                    'contrastive_weight', 'sampling', 'temperature', 'n_positions', 'input_noise', 'snr', 'held_out',
                    'patience', 'checkpoint_every', 'bias_guard', 'mixed_precision', 'tensorboard', 'seed')

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form):
        form.addSection('Input')
        self._addGpuParams(form, 'Ids of the GPUs to train on, counted from 0: one, as 0, or several that train '
                                 'together, as 0,1.')
        form.addParam('doContinue', params.BooleanParam, default=False, label='Continue a previous run?',
                      help='Yes: a copy of the model of another run is trained longer, with its inputs and settings. '
                           'That run and its model stay as they are.')
        form.addParam('continueRun', params.PointerParam, pointerClass='ProtCryogemTrain', condition='doContinue',
                      important=True, label='Previous run',
                      help='A run of *cryogem - train* that finished, was stopped or failed after its first '
                           'checkpoint.')
        self._addSimulationParam(
            form, 'The result of *cryogem - simulate*: its micrographs are what the network gets to see, its '
                  'measurements of ice and noise are where the network starts from.', condition='not doContinue')
        form.addParam('inputMicrographs', params.PointerParam, pointerClass='SetOfMicrographs', allowsNull=True,
                      condition='not doContinue', label='Real micrographs',
                      help='The micrographs to learn from. Empty: those of the simulation. Give more if you have '
                           'them: no picks are needed here.')
        self._addSetting(form, 'preset', 'Preset', display=params.EnumParam.DISPLAY_HLIST, condition='not doContinue')
        self._addSetting(form, 'max_steps', 'Steps',
                         more='Those of a previous run count. To train longer, raise it and choose Continue: training '
                              'goes on where it ended.')
        self._addSetting(form, 'max_minutes', 'Time limit (min)')
        for key, label in (('crop_size', 'Crop size (px)'), ('batch_size', 'Crops per step'),
                           ('learning_rate', 'Learning rate'), ('contrastive_weight', 'Contrastive weight'),
                           ('sampling', 'Sampling of positions'), ('temperature', 'Temperature'),
                           ('n_positions', 'Positions per region'), ('input_noise', 'Input noise'),
                           ('snr', 'Signal-to-noise ratio'), ('held_out', 'Held-out share'),
                           ('bias_guard', 'Guard against bias?'), ('mixed_precision', 'Mixed precision?')):
            self._addSetting(form, key, label, expertLevel=params.LEVEL_ADVANCED, condition='not doContinue')
        for key, label in (('patience', 'Patience (checkpoints)'), ('checkpoint_every', 'Steps per checkpoint'),
                           ('tensorboard', 'Write TensorBoard events?')):
            self._addSetting(form, key, label, expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'seed', 'Random seed', expertLevel=params.LEVEL_ADVANCED, condition='not doContinue')
        self._addParallel(form)

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self):
        inputs, settings = self._describeTrainingInputs(), self._getSettingsText()
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.trainStep, inputs, settings, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, settings, needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    def _getComputeSettings(self):
        return {**super()._getComputeSettings(), 'devices': len(self._listGpus()) if self.usesGpu() else 1}

    @tellInOneSentence
    def convertInputStep(self, inputs):
        if not self.doContinue and self.inputMicrographs.get() is not None:
            linked = linkMicrographs(self.inputMicrographs.get(), self._getExtraPath('micrographs'))
            self.info(f'{len(linked)} real micrographs')

    @tellInOneSentence
    def trainStep(self, inputs, settings):
        values = json.loads(settings)
        budget = {**{key: values[key] for key in _BUDGET if key in values}, 'max_steps': self.getStepLimit()}
        fixed = json.dumps({key: value for key, value in values.items() if key not in _BUDGET})
        if self.countSteps() > self.getStepLimit():
            pwutils.cleanPath(self.getModelFolder())    # steps cannot be taken back
        isContinued = self._startOrContinue(self.getModelFolder(), inputs, fixed)
        if self.doContinue and not isContinued:
            shutil.copytree(self.continueRun.get().getModelFolder(), self.getModelFolder())
        runCryogem(self, 'train', {
            **(self._readPreviousValues() if self.doContinue else {**values, **self._getInputValues()}),
            **budget, **self._getComputeSettings(),
            'output': self.getModelFolder(),
            'continue': isContinued or self.doContinue.get(),
        })

    @tellInOneSentence
    def createOutputStep(self, inputs, settings):
        model = CryogemModel.fromFolder(self.getModelFolder())
        self._forgetAllOutputs()
        self._defineOutputs(**{MODEL: model})
        for source in self._getSources():
            self._defineSourceRelation(source, Pointer(self, extended=MODEL))
        self._keepSummary(*model.describe(), f'Losses and samples: {self.getModelFolder()}')

    # --------------------------- INFO functions ------------------------------
    def _validateInputs(self):
        if self.doContinue:
            return self._validatePrevious()
        values = {**self._getSettings(), 'devices': self._getComputeSettings()['devices']}
        alone = findSettingErrors(self, self._configClass, self._getSettings())
        together = [] if alone else findSettingErrors(self, self._configClass, values)
        return [*together, *self._validateSimulation()]

    def _validatePrevious(self) -> list[str]:
        """Return what keeps the previous run from being continued."""
        previous = self.continueRun.get()
        if previous is None:
            return []                       # Scipion itself says that it is empty
        if previous.isActive():
            return [f'*Previous run* is {previous.getStatus()}; wait until it ends, or stop it.']
        if not glob(os.path.join(previous.getModelFolder(), 'checkpoint*')):
            return ['*Previous run* has no checkpoint; choose a run that trained for some steps.']
        done, steps = previous.countSteps(), self.getStepLimit()
        if steps <= done:
            return [f'*Steps* cannot be {steps} because the *Previous run* has taken {done}; give more.']
        return []

    def _warnings(self):
        simulation, micSet = self._getSimulation(), self.inputMicrographs.get()
        used = simulation.getInputMicrographs() if simulation is not None else None
        if self.doContinue or used is None or micSet is None:
            return []
        if abs(micSet.getSamplingRate() / used.getSamplingRate() - 1) < 0.01:
            return []
        return [f'*Real micrographs* have {micSet.getSamplingRate():.3f} Å/px, those of the *Simulation* '
                f'{used.getSamplingRate():.3f} Å/px: they will be resampled.']

    def _methods(self):
        if not self.isFinished():
            return []
        model, about = self.outputModel, self.outputModel.getCard()['description']
        return [f'A CryoGEM model [Zhang2024] ({model.getPreset()} preset) was trained with PyTorch [Paszke2019] for '
                f'{model.getSteps()} steps of mask-guided contrastive translation [Park2020] between '
                f'{about["n_simulated_micrographs"]} simulated and {about["n_real_micrographs"]} real micrographs at '
                f'{model.getPixelSize():.3g} Å/px.']

    def _citations(self):
        return ['Zhang2024', 'Park2020', *LIBRARIES]

    # --------------------------- UTILS functions -----------------------------
    def getModelFolder(self) -> str:
        """Return the folder of the model."""
        return self._getExtraPath('model')

    def getSeenMicrographNames(self) -> set[str]:
        """Return the names of the real micrographs that were learned from."""
        if self.doContinue and self.continueRun.get() is not None:
            return self.continueRun.get().getSeenMicrographNames()
        micSet, simulation = self.inputMicrographs.get(), self._getSimulation()
        names = simulation.getSeenMicrographNames() if simulation is not None else set()
        return names if micSet is None else names | {mic.getMicName() for mic in micSet}

    def countSteps(self) -> int:
        """Return the steps that were taken; the model may be an earlier one that was better."""
        rows = MetricsLog(Path(self.getModelFolder(), 'metrics.csv'), ()).read()
        return int(rows[-1]['step']) if rows else 0

    def getStepLimit(self) -> int:
        """Return the steps to end after: those of the form, else those of the preset."""
        preset = self._readPreviousValues()['preset'] if self.doContinue else self.getEnumText('preset')
        return self.maxSteps.get() or TRAINING_PRESETS[preset]['max_steps']

    def _getInputValues(self) -> dict[str, Any]:
        """Return the settings of the engine that follow from the inputs."""
        simulation, ownMicrographs = self._getSimulation(), self.inputMicrographs.get()
        micSet = simulation.getInputMicrographs() if ownMicrographs is None else ownMicrographs
        folder = simulation.getMicrographFolder() if ownMicrographs is None else self._getExtraPath('micrographs')
        return {'dataset': simulation.getDatasetFolder(), 'micrographs': [getPattern(folder)],
                'pixel_size': micSet.getSamplingRate()}

    def _readPreviousValues(self) -> dict[str, Any]:
        """Return the settings that the previous run gave to the engine: a training is continued with its own."""
        return read_json(Path(self.continueRun.get()._getExtraPath('train.json')), 'Previous run')

    def _describeTrainingInputs(self) -> str:
        """Return the inputs and their content: a simulation or a previous run made anew is another input."""
        if self.doContinue:
            card = os.path.join(self.continueRun.get().getModelFolder(), CARD)
            return self._describeInputs(self.continueRun) + computeDigest(card)
        manifest = os.path.join(self._getSimulation().getDatasetFolder(), 'manifest.json')
        return self._describeInputs(self.inputSimulation, self.inputMicrographs) + computeDigest(manifest)

    def _getSources(self) -> list[Pointer]:
        if self.doContinue:
            previous = self.continueRun.get()
            return [Pointer(previous, extended=MODEL)] if hasattr(previous, MODEL) else previous._getSources()
        simulation = Pointer(self._getSimulation(), extended=SIMULATION)
        return [simulation] + ([self.inputMicrographs] if self.inputMicrographs.get() is not None else [])
