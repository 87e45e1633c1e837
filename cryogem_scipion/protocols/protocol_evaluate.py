"""Compare generated micrographs with real ones that nothing was learned from."""

import json
import os
import re

import pyworkflow.utils as pwutils
from pyworkflow.object import Pointer
from pyworkflow.protocol import params

from cryogem.config import EvaluateConfig
from cryogem_scipion.convert import (
    computeDigest,
    findCtfs,
    getPattern,
    groupCoordinates,
    linkMicrographs,
    matchCtfs,
    writeCoordinates,
    writeCtfs,
)
from cryogem_scipion.engine import runCryogem, tellInOneSentence
from cryogem_scipion.objects import CryogemEvaluation
from cryogem_scipion.protocols.protocol_base import LIBRARIES, ProtCryogemBase
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
    _settingKeys = ('controls', 'n_seeds', 'crop_size', 'crops_per_micrograph', 'topaz_weights', 'picking',
                    'picking_iterations', 'picking_seeds', 'picking_scratch', 'topaz', 'poses', 'pose_particles',
                    'reconstruction', 'export', 'box_size', 'symmetry', 'seed')

    _assumedSettings = {'coordinates': ('x',)}
    _copiedInputs = ('micrographs',)

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
        self._addCtfParam(form, 'how far the rings of real and of generated micrographs are from their labels is '
                                'compared, so that every real micrograph needs one',
                          'without any, those that simulate found, where it measured these micrographs')
        self._addSetting(form, 'controls', 'Make controls?',
                         more='They show what a distance means: the same specimens under simpler noise.')
        for key, label, more in (('n_seeds', 'Repetitions', ''), ('crop_size', 'Crop size (px)', ''),
                                 ('crops_per_micrograph', 'Crops per micrograph', ''),
                                 ('topaz_weights', "Weights of Topaz's detector", 'Its features are a measure of '
                                  'likeness; where there are none, that measure is left out.')):
            self._addSetting(form, key, label, more=more, expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'seed', 'Random seed', expertLevel=params.LEVEL_ADVANCED)
        form.addSection('Proofs')
        self._defineProofParams(form)
        self._addParallel(form)

    def _defineProofParams(self, form):
        self._addSetting(form, 'picking', 'Prove by picking?',
                         more='It needs *Picked particles* on the *Real micrographs*, which are the judge.')
        for key, label in (('picking_iterations', 'Iterations'), ('picking_seeds', 'Repetitions of trainings'),
                           ('picking_scratch', 'From random weights too?'), ('topaz', 'Topaz program')):
            self._addSetting(form, key, label, condition='picking', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'poses', 'Prove by poses?', more='RELION must be installed.')
        self._addSetting(form, 'pose_particles', 'Particles to align', condition='poses',
                         expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'reconstruction', 'Prove by reconstruction?', more='RELION must be installed.')
        self._addSetting(form, 'export', 'Export particles?', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'box_size', 'Box size (px)', allowsPointers=True, expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'symmetry', 'Symmetry', expertLevel=params.LEVEL_ADVANCED)

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self):
        inputs, settings = self._describeEvaluateInputs(), self._getSettingsText()
        self._insertFunctionStep(self.convertInputStep, inputs, settings, needsGPU=False)
        self._insertFunctionStep(self.evaluateStep, inputs, settings, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, settings, needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    @tellInOneSentence
    def convertInputStep(self, inputs, settings):
        micSet = self.inputMicrographs.get()
        linked = linkMicrographs(micSet, self._getExtraPath('micrographs'))
        self.info(f'{len(linked)} real micrographs')
        coordinates = self.inputCoordinates.get()
        if coordinates is not None:
            scale = coordinates.getMicrographs().getSamplingRate() / micSet.getSamplingRate()
            number = writeCoordinates(groupCoordinates(coordinates, micSet), linked, scale,
                                      self._getExtraPath('coordinates'))
            self.info(f'{number} picked particles')
        ctfs = self.getCtfPointer().get()
        if ctfs is not None:
            number = writeCtfs(ctfs, linked, micSet.getAcquisition(), micSet.getSamplingRate(), self._getCtfPath())
            self.info(f'{number} CTFs')
        self._linkSets()

    @tellInOneSentence
    def evaluateStep(self, inputs, settings):
        pwutils.cleanPath(self.getReportFolder())
        values = {
            **json.loads(settings), **self._getComputeSettings(),
            'output': self.getReportFolder(),
            'generated': [os.path.join(self._getExtraPath('sets'), name) for name in self._nameSets()],
            'real': [getPattern(self._getExtraPath('micrographs'))],
            'pixel_size': self.inputMicrographs.get().getSamplingRate(),
        }
        if self.inputCoordinates.get() is not None:
            values['coordinates'] = [getPattern(self._getExtraPath('coordinates'))]
        if self.getCtfPointer().get() is not None:
            values['ctfs'] = self._getCtfPath()
        runCryogem(self, 'evaluate', values)

    @tellInOneSentence
    def createOutputStep(self, inputs, settings):
        evaluation = CryogemEvaluation(path=self.getReportFolder())
        self._forgetAllOutputs()
        self._defineOutputs(**{EVALUATION: evaluation})
        for source in (*self.inputGenerated, self.inputMicrographs, self.inputCoordinates, self.getCtfPointer()):
            if source.get() is not None:
                self._defineSourceRelation(source, Pointer(self, extended=EVALUATION))
        self._keepSummary(*self._describeReport(evaluation))

    # --------------------------- INFO functions ------------------------------
    def _validateInputs(self):
        errors = [f'*Generated micrographs* number {number} are none of *cryogem - generate*; give the micrographs '
                  'that a generate run has made.' for number, run in enumerate(self._getRuns(), 1) if run is None]
        runs = [run for run in self._getRuns() if run is not None]
        errors += [f'*Generated micrographs* of {run.getObjLabel() or run.getObjId()} are {run.getStatus()}; wait '
                   'until the run is finished.' for run in runs if not self._isFinished(run)]
        micSet, coordinates = self.inputMicrographs.get(), self.inputCoordinates.get()
        if micSet is not None and coordinates is not None and not groupCoordinates(coordinates, micSet):
            errors.append('*Picked particles* are on none of the *Real micrographs*; give picks of micrographs with '
                          'the same names, or leave it empty.')
        if micSet is not None and self.inputCTF.get() is not None:
            missing = self._countWithoutCtf(self.inputCTF.get())
            if missing:
                errors.append(f'*CTFs of the micrographs* have none for {missing} of the {micSet.getSize()} *Real '
                              'micrographs*; give micrographs that all have one, or leave it empty.')
        if self.picking and coordinates is None:
            errors.append('*Prove by picking?* is Yes but *Picked particles* are empty; give picks to judge by.')
        return errors

    def _warnings(self):
        micSet, warnings = self.inputMicrographs.get(), []
        if micSet is None:
            return warnings
        if micSet.getSize() < _FEW_MICROGRAPHS:
            warnings.append(f'*Real micrographs*: {micSet.getSize()} are few, how much they differ among themselves is '
                            'measured roughly.')
        known = findCtfs(self.getProject(), [micSet]) if self.inputCTF.get() is None else None
        missing = self._countWithoutCtf(known.get()) if known is not None else 0
        if missing:
            warnings.append(f'*CTFs of the micrographs*: the project knows none for {missing} of the '
                            f'{micSet.getSize()} *Real micrographs*, so that its CTFs will not be used.')
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
        report = self.outputEvaluation.getReport()
        return [f'{report["n_real"]} real micrographs were compared with {len(report["sets"])} generated set(s) '
                'made by CryoGEM [Zhang2024]: radial power spectra, distances between features of networks, among '
                'them the detector of Topaz [Bepler2019], defocus found against defocus labelled, and what is left of '
                'the signal; halves of the real micrographs against each other are the floor of every distance.']

    def _citations(self):
        return ['Zhang2024', 'Bepler2019', 'Scheres2012', *LIBRARIES]

    # --------------------------- UTILS functions -----------------------------
    def getReportFolder(self) -> str:
        """Return the folder of the report."""
        return self._getExtraPath('report')

    def getCtfPointer(self) -> Pointer:
        """Return where the CTFs come from: given, else known to the project for all real micrographs; else empty."""
        micSet = self.inputMicrographs.get()
        if self.inputCTF.get() is not None or micSet is None:
            return self.inputCTF
        found = findCtfs(self.getProject(), [micSet])
        return self.inputCTF if found is None or self._countWithoutCtf(found.get()) else found

    def _countWithoutCtf(self, ctfSet) -> int:
        """Return how many real micrographs a set has no CTF for."""
        micSet = self.inputMicrographs.get()
        return micSet.getSize() - len(matchCtfs(ctfSet, [mic.clone() for mic in micSet]))

    def _getCtfPath(self) -> str:
        return self._getExtraPath('ctfs.star')

    def _getRuns(self) -> list:
        """Return the run behind each generated set, None for what is no output of ours."""
        runs = [pointer.getObjValue() for pointer in self.inputGenerated]
        return [run if isinstance(run, ProtCryogemMicrographs) else None for run in runs]

    def _nameSets(self) -> list[str]:
        """Return a name for each generated set: that of its run, as the columns of the report are called."""
        names: list[str] = []
        for run in self._getRuns():
            name = re.sub(r'[^\w.+]+', '_', run.getObjLabel() or f'run_{run.getObjId()}').strip('_')
            names.append(name if name not in names else f'{name}_{run.getObjId()}')
        return names

    def _linkSets(self) -> None:
        """Link the folders of the generated sets under their names."""
        folder = self._getExtraPath('sets')
        pwutils.cleanPath(folder)
        pwutils.makePath(folder)
        for name, run in zip(self._nameSets(), self._getRuns(), strict=True):
            pwutils.createAbsLink(os.path.abspath(run.getOutputFolder()), os.path.join(folder, name))

    def _describeEvaluateInputs(self) -> str:
        """Return the inputs and the content of the generated sets: made anew they are other inputs."""
        manifests = [os.path.join(run.getOutputFolder(), 'manifest.json') for run in self._getRuns()]
        names = self._nameSets()
        text = self._describeInputs(self.inputMicrographs, self.inputCoordinates, self.getCtfPointer())
        return text + json.dumps([names, *([path, computeDigest(path)] for path in manifests)])

    def _describeReport(self, evaluation: CryogemEvaluation) -> list[str]:
        report = evaluation.getReport()
        number = len(report['sets'])
        lines = [f'*{number}* generated set{"s" * (number > 1)} against *{report["n_real"]}* real micrographs at '
                 f'*{report["pixel_size"]:.3g} Å/px*', *report['verdict']]
        return [*lines, *(f'*Warning*: {one}' for one in report['warnings']),
                f'Report: {evaluation.getPage()}']
