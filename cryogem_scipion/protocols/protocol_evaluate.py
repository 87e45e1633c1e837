"""Compare generated micrographs with real ones that nothing was learned from."""

import dataclasses
import json
import os

import pyworkflow.utils as pwutils
from pyworkflow.object import Pointer
from pyworkflow.protocol import params

from cryogem.config import EvaluateConfig, key_of
from cryogem_scipion.convert import (
    computeDigest,
    getPattern,
    groupCoordinates,
    linkMicrographs,
    writeCoordinates,
    writeCtfs,
)
from cryogem_scipion.engine import runCryogem, tellInOneSentence
from cryogem_scipion.objects import CryogemEvaluation
from cryogem_scipion.protocols.protocol_base import ProtCryogemBase
from cryogem_scipion.protocols.protocol_micrographs import ProtCryogemMicrographs

EVALUATION = 'outputEvaluation'
_FEW_MICROGRAPHS = 4


class ProtCryogemEvaluate(ProtCryogemBase):
    """Measure how much generated micrographs are like real ones.

    Give one or more runs of *cryogem - generate*, a trained model beside the baselines for instance, and real
    micrographs that were used neither in simulate nor in train: a model may know those by heart. The result is a
    report with numbers and pictures.
    """

    _label = 'evaluate'
    _configClass = EvaluateConfig
    _possibleOutputs = {EVALUATION: CryogemEvaluation}
    _settingKeys: tuple[str, ...] = ()

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form):
        form.addSection('Input')
        self._addGpuParams(form)
        form.addParam('inputGenerated', params.MultiPointerParam, pointerClass='SetOfMicrographs, ProtCryogemGenerate',
                      minNumObjects=1, important=True, label='Generated micrographs',
                      help='The micrographs of one or more runs of *cryogem - generate*: their order is that of the '
                           'report.')
        form.addParam('inputMicrographs', params.PointerParam, pointerClass='SetOfMicrographs', important=True,
                      label='Real micrographs',
                      help='What the generated ones are compared with. Take micrographs that neither simulate nor '
                           'train has seen, of the same session.')
        form.addParam('inputCoordinates', params.PointerParam, pointerClass='SetOfCoordinates', allowsNull=True,
                      label='Picked particles',
                      help='Particles picked on the real micrographs. Empty: what needs them is left out.')
        form.addParam('inputCTF', params.PointerParam, pointerClass='SetOfCTF', allowsNull=True,
                      label='CTFs of the micrographs',
                      help='CTFs estimated on the real micrographs. Empty: what needs them is left out.')
        self._addParallel(form)

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self):
        inputs, settings = self._describeEvaluateInputs(), self._getSettingsText()
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.evaluateStep, inputs, settings, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, settings, needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    @tellInOneSentence
    def convertInputStep(self, inputs):
        micSet = self.inputMicrographs.get()
        linked = linkMicrographs(micSet, self._getExtraPath('micrographs'))
        self.info(f'{len(linked)} real micrographs')
        coordinates = self.inputCoordinates.get()
        if coordinates is not None:
            scale = coordinates.getMicrographs().getSamplingRate() / micSet.getSamplingRate()
            number = writeCoordinates(groupCoordinates(coordinates, micSet), linked, scale,
                                      self._getExtraPath('coordinates'))
            self.info(f'{number} picked particles')
        if self.inputCTF.get() is not None:
            number = writeCtfs(self.inputCTF.get(), linked, micSet.getAcquisition(), micSet.getSamplingRate(),
                               self._getExtraPath('ctfs.star'))
            self.info(f'{number} CTFs')

    @tellInOneSentence
    def evaluateStep(self, inputs, settings):
        pwutils.cleanPath(self.getReportFolder())
        folders = [run.getOutputFolder() for run in self._getRuns()]
        known = {key_of(one): str(one.type) for one in dataclasses.fields(EvaluateConfig)}
        values = {
            **json.loads(settings), **self._getComputeSettings(),
            'output': self.getReportFolder(),
            'generated': folders if known['generated'].startswith('tuple') else folders[0],
            'real': [getPattern(self._getExtraPath('micrographs'))],
            'pixel_size': self.inputMicrographs.get().getSamplingRate(),
        }
        if self.inputCoordinates.get() is not None:
            values['coordinates'] = [getPattern(self._getExtraPath('coordinates'))]
        if self.inputCTF.get() is not None and 'ctfs' in known:
            values['ctfs'] = self._getExtraPath('ctfs.star')
        runCryogem(self, 'evaluate', values)

    @tellInOneSentence
    def createOutputStep(self, inputs, settings):
        evaluation = CryogemEvaluation(path=self.getReportFolder())
        self._forgetAllOutputs()
        self._defineOutputs(**{EVALUATION: evaluation})
        for source in (*self.inputGenerated, self.inputMicrographs, self.inputCoordinates, self.inputCTF):
            if source.get() is not None:
                self._defineSourceRelation(source, Pointer(self, extended=EVALUATION))
        self._keepSummary(*self._describeReport(evaluation))

    # --------------------------- INFO functions ------------------------------
    def _validateInputs(self):
        errors = [f'*Generated micrographs* number {number} are none of *cryogem - generate*; give the micrographs '
                  'that a generate run has made.' for number, run in enumerate(self._getRuns(), 1) if run is None]
        runs = [run for run in self._getRuns() if run is not None]
        errors += [f'*Generated micrographs* of {run.getObjLabel() or run.getObjId()} are {run.getStatus()}; wait '
                   'until the run is finished.' for run in runs if not run.isFinished()]
        micSet, coordinates = self.inputMicrographs.get(), self.inputCoordinates.get()
        if micSet is not None and coordinates is not None and not groupCoordinates(coordinates, micSet):
            errors.append('*Picked particles* are on none of the *Real micrographs*; give picks of micrographs with '
                          'the same names, or leave it empty.')
        return errors

    def _warnings(self):
        micSet, warnings = self.inputMicrographs.get(), []
        if micSet is None:
            return warnings
        if micSet.getSize() < _FEW_MICROGRAPHS:
            warnings.append(f'*Real micrographs* are only {micSet.getSize()}: how much they differ among themselves '
                            'is measured roughly.')
        names = {mic.getMicName() for mic in micSet}
        for run in self._getRuns():
            seen = names & run.getSeenMicrographNames() if run is not None else set()
            if seen:
                warnings.append(f'*Real micrographs*: {len(seen)} of {len(names)} were used to make '
                                f'{run.getObjLabel() or run.getObjId()}; a comparison with them flatters it.')
        return warnings

    def _methods(self):
        if not self.isFinished():
            return []
        return [f'{self.inputMicrographs.get().getSize()} real micrographs were compared with those of '
                f'{len(self.inputGenerated)} generated set(s) by radial power spectra [Zhang2024].']

    # --------------------------- UTILS functions -----------------------------
    def getReportFolder(self) -> str:
        """Return the folder of the report."""
        return self._getExtraPath('report')

    def _getRuns(self) -> list:
        """Return the run behind each generated set, None for what is no output of ours."""
        runs = [pointer.getObjValue() for pointer in self.inputGenerated]
        return [run if isinstance(run, ProtCryogemMicrographs) else None for run in runs]

    def _describeEvaluateInputs(self) -> str:
        """Return the inputs and the content of the generated sets: made anew they are other inputs."""
        manifests = [os.path.join(run.getOutputFolder(), 'manifest.json') for run in self._getRuns()]
        text = self._describeInputs(self.inputMicrographs, self.inputCoordinates, self.inputCTF)
        return text + json.dumps([[path, computeDigest(path)] for path in manifests])

    def _describeReport(self, evaluation: CryogemEvaluation) -> list[str]:
        report = evaluation.getReport()
        spectrum = report['radial_power_spectrum']
        floor = spectrum.get('floor')
        return [f'*{report["n_generated"]}* generated against *{report["n_real"]}* real micrographs at '
                f'*{report["pixel_size"]:.3g} Å/px*',
                f'Logarithms of the power spectra differ by *{spectrum["log_rms"]:.3f}* rms'
                + ('' if floor is None else f' (real against real: {floor:.3f})'),
                f'Report: {evaluation.getPage() or evaluation.getPath()}']
