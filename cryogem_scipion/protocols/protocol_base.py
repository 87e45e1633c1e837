"""What all protocols of the plugin share: forms made from the engine's settings, compute options, resuming."""

import dataclasses
import json
import os
from typing import Any

import pyworkflow.utils as pwutils
from pwem.protocols import EMProtocol
from pyworkflow import BETA
from pyworkflow.protocol import STEPS_SERIAL, params

from cryogem.config import Config, default_of, help_of, key_of
from cryogem_scipion.convert import (
    collectSettings,
    computeDigest,
    describeDiskUse,
    findSettingErrors,
    getParamNames,
    listChoices,
    removeCopies,
)

LIBRARIES = ('Paszke2019', 'Harris2020', 'Virtanen2020', 'Burnley2017')     # citations of what the engine rests on


class ProtCryogemBase(EMProtocol):
    """Base class; not a protocol of its own."""

    _label: str | None = None
    _devStatus = BETA
    # Every step needs the one before it, and the engine itself shares its work among processes: steps side by side
    # would gain nothing, and the form would ask for threads of Scipion beside those of the engine.
    stepsExecutionMode = STEPS_SERIAL
    _configClass: type[Config] = Config
    _settingKeys: tuple[str, ...] = ()      # settings of the engine that are parameters of the form
    _assumedSettings: dict[str, Any] = {}   # that follow from inputs, whose lack is told elsewhere
    _settingLabels: dict[str, str] = {}     # of each setting, as its errors call it
    _copiedInputs: tuple[str, ...] = ()     # in extra: copies of inputs that nothing needs once the run is finished

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if kwargs.get('objLabel'):          # Scipion drops the labels of templates
            self.setObjLabel(kwargs['objLabel'])

    def makePathsAndClean(self):
        """Before a run, forget also the outputs of an earlier one that the form no longer asks for."""
        super().makePathsAndClean()
        asked, known = self.getPossibleOutputs() or {}, self._possibleOutputs or {}
        self._forgetOutputs(*[name for name in known if name not in asked and hasattr(self, name)])

    def getProtocolsToUpdate(self):
        """Return the ids of all runs before this one: a scheduled run knows outputs only of those named here.

        Scipion's own answer ends at the inputs, but we look behind them: at the micrographs of a simulation.
        """
        pending, found = list(super().getProtocolsToUpdate()), []
        while pending:
            objId = pending.pop(0)
            run = self.getProject().getProtocol(objId) if objId not in found else None
            if run is not None:
                found.append(objId)
                pending += run.getProtocolsToUpdate()
        return found

    # --------------------------- DEFINE param functions ----------------------
    def _addSetting(self, parent, key: str, *labels: str, more: str = '', **kwargs) -> None:
        """Add a setting of the engine to a form, a line or a group: kind, default and help come from the engine.

        Parameters
        ----------
        labels : of each parameter; a pair of numbers is a line of two after the label of the line.
        more : sentences to append to the help.
        """
        setting = next(one for one in dataclasses.fields(self._configClass) if key_of(one) == key)
        default, text = default_of(self._configClass, key), _toSentence(help_of(self._configClass, key))
        text = f'{text} {more}'.strip()
        names = getParamNames(key)
        self._settingLabels = {**self._settingLabels, key: ': '.join(filter(None, (
            labels[0], ', '.join(labels[1:]))))}
        if len(names) > 1:
            parent, labels = parent.addLine(labels[0], help=text, **kwargs), labels[1:]
            kwargs = {}
        for number, (name, label) in enumerate(zip(names, labels, strict=True)):
            part = default[number] if len(names) > 1 and default else default
            kind, options = _getParamKind(setting, ' '.join(part) if isinstance(part, tuple) else part)
            parent.addParam(name, kind, label=label, help=text, **options, **kwargs)

    def _addSimulationParam(self, form, text: str, **kwargs) -> None:
        """Add the input of what follows a simulation."""
        form.addParam('inputSimulation', params.PointerParam, pointerClass='CryogemSimulation', important=True,
                      label='Simulation', help=text, **kwargs)

    def _addCtfParam(self, form, use: str, lack: str) -> None:
        """Add the CTFs of real micrographs; they are found where none are given.

        Parameters
        ----------
        use : what they are for, as the end of a sentence.
        lack : what happens where the project knows none either, as the end of a sentence.
        """
        form.addParam('inputCTF', params.PointerParam, pointerClass='SetOfCTF', allowsNull=True,
                      label='CTFs of the micrographs',
                      help=f'CTFs estimated on the real micrographs: {use}. Empty: those that the project knows of '
                           f'these micrographs are taken, the latest if there are several; {lack}.')

    def _addGpuParams(self, form, text: str = 'Id of the GPU to use, counted from 0.') -> None:
        """Add the hidden parameters from which Scipion makes the row of GPUs on top of the form."""
        form.addHidden(params.USE_GPU, params.BooleanParam, default=True, label='Use a GPU?',
                       help='A GPU is used when there is one; without, everything runs on the CPU.')
        form.addHidden(params.GPU_LIST, params.StringParam, default='0', label='GPU ids',
                       help=text)

    def _addParallel(self, form) -> None:
        """Add what closes every form."""
        form.addParallelSection(threads=default_of(self._configClass, 'workers'), mpi=0,
                                binThreadsHelp=_toSentence(help_of(self._configClass, 'workers')))

    # --------------------------- STEPS functions -----------------------------
    def _getComputeSettings(self) -> dict[str, Any]:
        """Return the settings that change the speed only: they are no arguments of steps."""
        return {'device': 'auto' if self.usesGpu() else 'cpu', 'workers': max(1, self.numberOfThreads.get())}

    def _startOrContinue(self, folder: str, *stepArgs: str) -> bool:
        """Say whether `folder` holds the beginning of this very run; what another run left there is removed."""
        stamp, text = folder + '.stamp', json.dumps(stepArgs)
        if os.path.exists(stamp) and os.path.isdir(folder):
            with open(stamp, encoding='utf-8') as file:
                if file.read() == text:
                    return True
        pwutils.cleanPath(folder)
        with open(stamp, 'w', encoding='utf-8') as file:
            file.write(text)
        return False

    def _forgetOutputs(self, *names: str) -> None:
        """Remove the outputs `names` of an earlier run and what they were related to."""
        for name, output in list(self.iterOutputAttributes()):
            if name in names:
                self.deleteOutput(output)
        relations = [dict(row) for row in self.getRelations()]
        self.mapper.deleteRelations(self)
        for one in relations:
            isOwn = one['object_parent_id'] == self.getObjId() and one['object_parent_extended'] in names
            if not isOwn and one['object_child_extended'] not in names:
                self.mapper.insertRelationData(one['name'], one['parent_id'], one['object_parent_id'],
                                               one['object_child_id'], one['object_parent_extended'],
                                               one['object_child_extended'])

    def _forgetAllOutputs(self) -> None:
        """Remove all outputs of an earlier run, which are about to be made anew."""
        self._forgetOutputs(*[name for name, _ in self.iterOutputAttributes()])

    def _cleanExtraFiles(self):
        """Remove copies of inputs when the run is finished; a step that reads them has the same arguments as theirs."""
        if self.isFinished():               # Scipion also cleans before a restart
            freed = removeCopies(self._getCopiedPaths())
            self.info(f'Copies of inputs were removed: {pwutils.prettySize(freed)}')

    # --------------------------- INFO functions ------------------------------
    def _validate(self):
        errors = findSettingErrors(self, self._configClass, self._getSettings())
        return errors + self._validateGpus() + self._validateInputs()

    def _validateGpus(self) -> list[str]:
        """Return what is wrong with the GPU ids: Scipion's own message would be that the process was not found."""
        ids = self._listGpus()
        if not self.allowsGpu() or (ids and all(one.isdigit() for one in ids)):
            return []
        return [f'*GPU ids* cannot be {self.gpuList.get("")!r}; give numbers from 0, as 0 or 0,1, and to compute '
                'without a GPU say No to *Use GPU*.']

    def _validateInputs(self) -> list[str]:
        """Return what is wrong with the inputs, all of it, each as label, value and remedy."""
        return []

    def _validateSimulation(self) -> list[str]:
        run = self._getSimulation()
        if run is None or self._isFinished(run):
            return []                       # Scipion itself says that it is empty
        return [f'*Simulation* is {run.getStatus()}; wait until it is finished.']

    def _isFinished(self, run) -> bool:
        """Say whether a run is finished; by its own database where the project holds it for failed.

        A run whose process ends while Scipion looks at it is taken for killed, and the project keeps to that: what is
        scheduled behind it would wait for ever.
        """
        project = self.getProject()
        if run.isFailed() and project is not None and os.path.exists(run.getDbPath()):
            run.lastUpdateTimeStamp.set(None)           # else it is not read again
            project._updateProtocol(run)
        return run.isFinished()

    def _summary(self):
        return self.summaryVar.get('Not finished yet.').split('\n')

    def _citations(self):
        return ['Zhang2024', *LIBRARIES]

    # --------------------------- UTILS functions -----------------------------
    def _getSimulation(self):
        """Return the run of the simulate protocol that is linked, itself or by its output; None if there is none."""
        return self.inputSimulation.getObjValue()

    def _listGpus(self) -> list[str]:
        """Return the ids of the GPUs of the form, as they were written."""
        return self.gpuList.get('').replace(',', ' ').split() if self.allowsGpu() else []

    def _getSettings(self) -> dict[str, Any]:
        """Return the settings of the form."""
        return collectSettings(self, self._configClass, self._settingKeys)

    def _getSettingsText(self) -> str:
        """Return the settings as text: an argument of every step that depends on them."""
        return json.dumps(self._getSettings(), sort_keys=True)

    def getSettingLabel(self, key: str) -> str:
        """Return what the form calls a setting of the engine."""
        return self._settingLabels[key]

    def _describeInputs(self, *pointers) -> str:
        """Return what is linked to inputs as text: an argument of every step that depends on them.

        Their content counts, too: what was made anew under the same name is another input.
        """
        described = []
        for pointer in pointers:
            target = pointer.get()
            path = target.getFileName() if hasattr(target, 'getFileName') else None
            digest = computeDigest(path.removesuffix(':mrc')) if path else ''
            described.append([pointer.getUniqueId() if target is not None else None, digest])
        return json.dumps(described)

    def _getCopiedPaths(self) -> list[str]:
        return [self._getExtraPath(name) for name in self._copiedInputs]

    def _keepSummary(self, *lines: str) -> None:
        """Store the summary, from the last step, with what the run takes on disk."""
        self.summaryVar.set('\n'.join([*lines, describeDiskUse(self._getExtraPath(), self._getCopiedPaths())]))
        self._store(self.summaryVar)


def _getParamKind(setting: dataclasses.Field, default: Any) -> tuple[type, dict[str, Any]]:
    """Return the class of form parameter for a setting, and its default and choices as keywords."""
    choices = setting.metadata.get('choices')
    if choices:
        shown = listChoices(setting)
        return params.EnumParam, {'choices': shown, 'default': 0 if default is None else shown.index(default)}
    if isinstance(default, bool):
        return params.BooleanParam, {'default': default}
    if str(setting.type) == 'str' or str(setting.type).startswith('tuple[str'):
        return params.StringParam, {'default': default}
    kind = params.IntParam if str(setting.type).startswith('int') else params.FloatParam
    return kind, {'default': default, 'allowsNull': default is None}


def _toSentence(text: str) -> str:
    return text[0].upper() + text[1:] + '.'
