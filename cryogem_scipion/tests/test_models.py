"""Models go out of a project and into another, published ones too; evaluate compares generated sets with real ones."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

from pwem.objects import SetOfCTF
from pwem.protocols import ProtImportVolumes
from pyworkflow.object import RELATION_SOURCE, Pointer
from pyworkflow.protocol import MODE_RESUME

from cryogem.io.files import read_json, write_json
from cryogem.io.star import read_tables
from cryogem_scipion import convert
from cryogem_scipion.objects import CryogemModel
from cryogem_scipion.protocols import (
    ProtCryogemEvaluate,
    ProtCryogemExportModel,
    ProtCryogemImportModel,
    ProtCryogemSimulate,
    ProtCryogemTrain,
    protocol_evaluate,
)
from cryogem_scipion.tests.in_process import InProcess
from cryogem_scipion.tests.marks import slow
from cryogem_scipion.tests.test_chain import ChainTest

# In a process of its own: nothing of the plugin, and so of its tests, imports torch.
_WRITE_PUBLISHED = """
import sys, torch
from cryogem.translation.paper import PaperGenerator
torch.save({'module.' + key: value for key, value in PaperGenerator(5, 4).state_dict().items()}, sys.argv[1])
"""


class TestCryogemModels(InProcess, ChainTest):
    """A model of a few steps, a generated micrograph, and what is done with them."""

    @classmethod
    def setUpClass(cls):
        cls.prepareSimulation()
        cls.train = cls.newTrain(maxSteps=2)
        cls.generate = cls.newGenerate('measured', nMicrographs=2, objLabel='measured noise')
        for protocol in (cls.train, cls.generate):
            cls.launchProtocol(protocol)
        cls.published = os.path.join(cls.folder, 'latest_net_G.pth')
        subprocess.run([sys.executable, '-c', _WRITE_PUBLISHED, cls.published], check=True)

    @classmethod
    def newTrain(cls, **values):
        protocol = cls.newProtocol(ProtCryogemTrain, useGpu=False, cropSize=64, batchSize=1, **values)
        cls.linkInput(protocol, 'inputSimulation', cls.simulate, 'outputSimulation')
        return protocol

    def newExport(self, folder, **values):
        protocol = self.newProtocol(ProtCryogemExportModel, exportFolder=folder, **values)
        self.linkInput(protocol, 'inputModel', self.train, 'outputModel')
        return protocol

    def newEvaluate(self, *generated):
        protocol = self.newProtocol(ProtCryogemEvaluate, useGpu=False, nSeeds=1, cropsPerMicrograph=2,
                                    controls=False)
        protocol.inputGenerated.set([Pointer(run, extended='outputMicrographs') for run in generated])
        self.linkInput(protocol, 'inputMicrographs', self.importMics, 'outputMicrographs')
        return protocol

    def test_an_exported_model_is_imported_with_its_card_and_generates(self):
        folder = os.path.join(self.folder, 'exported', 'model')
        exported = self.newExport(folder)
        self.launchProtocol(exported)
        self.assertEqual([name for name in os.listdir(folder) if name.startswith(('checkpoint', '.'))], [])
        self.assertIn(folder, exported.summary()[0])

        imported = self.newProtocol(ProtCryogemImportModel, modelFolder=folder)
        self.launchProtocol(imported)
        shutil.rmtree(folder)                           # the project does not depend on it
        self.assertEqual(imported.outputModel.getCard(), self.train.outputModel.getCard())
        self.assertEqual(str(imported.outputModel), str(self.train.outputModel))
        self.assertIn('after *2* steps', ' '.join(imported.summary()))
        made = self.newGenerate('trained model', nMicrographs=1, seed=7)
        self.linkInput(made, 'inputModel', imported, 'outputModel')
        self.launchProtocol(made)
        self.assertSetSize(made.outputMicrographs, 1)

    def test_a_model_no_better_than_its_noise_is_told_of_before_and_after(self):
        generate, model = self.newGenerate('trained model', nMicrographs=1), self.train.outputModel
        self.linkInput(generate, 'inputModel', self.train, 'outputModel')
        path = Path(model.getPath(), 'card.json')
        kept = path.read_text()
        card = json.loads(kept)
        floors = {'passed': False, 'model': 2.0, 'prior': 1.0, 'ratio_model': 1.5}
        try:
            for ratio, remedy in ((1.05, 'there was little to learn'), (1.4, 'train it longer')):
                card['description']['gates'] = {'realism': {**floors, 'ratio_prior': ratio}}
                path.write_text(json.dumps(card))
                told, = generate.warnings()
                self.assertIn(remedy, told)
                self.assertIn(f'1.50 times as far from held-out real crops as these are from each other, that noise '
                              f'{ratio:.2f} times', told)
            for isPassed, expected in ((True, ''), (False, 'that noise is used in its place')):
                card['description']['gates'] = {'realism': {'passed': isPassed, 'model': 2.0, 'prior': 1.0}}
                path.write_text(json.dumps(card))
                self.assertEqual(expected in ''.join(generate.warnings()), True)
                self.assertEqual(generate.warnings() == [], isPassed)
            generate.force.set(True)
            self.assertIn('used all the same', ''.join(generate.warnings()))
            generate.force.set(False)
            self.launchProtocol(generate)
            self.assertIn('*that noise was used in its place*', ' '.join(generate.summary()))
            self.assertIn('starts from', ' '.join(generate.methods()))
        finally:
            path.write_text(kept)

    def test_the_summary_says_by_how_much_the_signal_was_changed(self):
        model = self.train.outputModel
        path = Path(model.getPath(), 'card.json')
        kept = path.read_text()
        try:
            for change, expected in ((0.0391, True), (0.0, False)):
                card = json.loads(kept)
                card['description']['signal_change'] = change
                path.write_text(json.dumps(card))
                self.assertEqual('signal changed by +3.9%' in ' '.join(model.describe()), expected)
        finally:
            path.write_text(kept)

    def test_the_summary_says_whether_signal_is_kept_and_particles_are_made_up(self):
        model = self.train.outputModel
        path = Path(model.getPath(), 'card.json')
        kept = path.read_text()
        picks = {'picker': 'RELION LoG', 'prior': {'share': 0.03}, 'model': {'share': 0.04}}
        try:
            for signal, more, expected in (
                ({'passed': True, 'largest_loss': -0.01}, {'passed': True, **picks}, 'prior 3.0%'),
                ({'passed': False, 'largest_loss': 0.05}, {'passed': False, **picks}, '(more than chance allows)'),
                ({'passed': True, 'largest_loss': 0.0}, {'passed': None, 'note': 'not measured'}, 'not measured')):
                card = json.loads(kept)
                card['description']['gates'] = {'signal': signal, 'hallucinations': more}
                card['description']['bias_guard'] = {
                    'halves': {'disagreement': 0.25}, 'particles_on_empty_crops': {
                        'prior': 0.1, 'model': 0.2, 'decoy': 0.3, 'placed_on_full_crops': 4.0}}
                path.write_text(json.dumps(card))
                text = ' '.join(model.describe())
                self.assertIn(expected, text)
                self.assertIn('differ by 0.25 times', text)
                self.assertIn('decoy trained without particles 0.30', text)
                self.assertIn('signal kept' if signal['passed'] else 'signal lost in part', text)
        finally:
            path.write_text(kept)

    def test_nothing_is_overwritten_by_an_export_and_continue_after_it_does_nothing(self):
        folder = os.path.join(self.folder, 'occupied')
        os.mkdir(folder)
        Path(folder, 'thesis.txt').touch()
        self.assertIn('holds something already', '\n'.join(self.newExport(folder).validate()))
        self.assertIn('*Folder* is empty', '\n'.join(self.newExport('').validate()))
        again = self.newExport(os.path.join(self.folder, 'again'))
        self.launchProtocol(again)
        again.runMode.set(MODE_RESUME)
        self.launchProtocol(again)
        self.assertTrue(again.isFinished())

    def test_a_model_whose_weights_are_not_those_of_its_card_is_refused(self):
        folder = os.path.join(self.folder, 'damaged')
        shutil.copytree(self.train.outputModel.getPath(), folder)
        protocol = self.newProtocol(ProtCryogemImportModel, modelFolder=folder)
        self.assertEqual(protocol.validate(), [])
        write_json(Path(folder, 'card.json'), {**read_json(Path(folder, 'card.json'), ''), 'weights_sha256': '0'})
        self.assertIn('other weights than its card says', '\n'.join(protocol.validate()))
        for path in Path(folder).glob('weights*'):
            path.unlink()
        self.assertIn('has no weights', '\n'.join(protocol.validate()))
        os.unlink(os.path.join(folder, 'card.json'))
        self.assertIn('has no readable card.json', '\n'.join(protocol.validate()))

    def test_a_published_checkpoint_becomes_a_model_of_the_pixel_size_that_is_said(self):
        protocol = self.newProtocol(ProtCryogemImportModel, importFrom=1, checkpoint=self.published, pixelSize=3.5)
        self.launchProtocol(protocol)
        model = protocol.outputModel
        self.assertEqual((model.getPixelSize(), model.getPreset(), model.getSteps()), (3.5, 'paper', None))
        self.assertIn('latest_net_G.pth', ' '.join(protocol.summary()))
        generate = self.newGenerate('trained model')
        self.linkInput(generate, 'inputModel', protocol, 'outputModel')
        self.assertIn('was trained at 3.500 Å/px', '\n'.join(generate.validate()))

    def test_a_checkpoint_without_a_pixel_size_is_warned_of_here_and_in_generate(self):
        protocol = self.newProtocol(ProtCryogemImportModel, importFrom=1, checkpoint=self.published)
        self.assertIn('*Pixel size (Å/px)* is empty', '\n'.join(protocol.warnings()))
        self.launchProtocol(protocol)
        generate = self.newGenerate('trained model')
        self.linkInput(generate, 'inputModel', protocol, 'outputModel')
        self.assertEqual(generate.validate(), [])
        self.assertIn('for which pixel size', '\n'.join(generate.warnings()))

    def test_a_file_that_is_no_checkpoint_ends_in_one_sentence(self):
        wrong = os.path.join(self.folder, 'wrong.pth')
        Path(wrong).write_text('no weights', encoding='utf-8')
        protocol = self.newProtocol(ProtCryogemImportModel, importFrom=1, checkpoint=wrong)
        self.proj.launchProtocol(protocol, wait=True)           # a process of its own has a run.stderr
        self.assertTrue(protocol.isFailed())
        self.assertIn('is damaged or holds more than tensors', protocol.getErrorMessage())
        self.assertNotIn('exit status', protocol.getErrorMessage())

    def test_every_protocol_shows_the_last_sentence_of_the_engine_and_nothing_else(self):
        sentence = "volume 'a.mrc' is constant; give a map"

        def fail(protocol, *args, **kwargs):
            Path(protocol.getStderrLog()).write_text(f'Traceback: long\nERROR: {sentence}\n', encoding='utf-8')
            raise subprocess.CalledProcessError(2, 'a very long command')

        simulate = self.newProtocol(ProtCryogemSimulate, useGpu=False, particlesMean=5.0, particlesSd=1.0,
                                    signalToNoise=0.1)
        self.linkInput(simulate, 'inputVolumes', self.importVolume, 'outputVolume')
        self.linkInput(simulate, 'inputMicrographs', self.importMics, 'outputMicrographs')
        published = self.newProtocol(ProtCryogemImportModel, importFrom=1, checkpoint=self.published)
        for protocol in (simulate, self.newTrain(), self.newGenerate('measured'), self.newEvaluate(self.generate),
                         published):
            printed = io.StringIO()
            with mock.patch.object(type(protocol), 'runJob', fail), contextlib.redirect_stderr(printed), \
                    self.assertRaisesRegex(RuntimeError, 'Protocol failed: ' + re.escape(sentence)):
                self.launchProtocol(protocol)
            self.assertNotIn('Traceback', printed.getvalue(), type(protocol))

    def test_what_is_imported_must_be_said_and_exist(self):
        for values, expected in (({}, '*Model folder* is empty'), ({'importFrom': 1}, '*Checkpoint* is empty'),
                                 ({'modelFolder': '/nowhere'}, '/nowhere does not exist')):
            errors = '\n'.join(self.newProtocol(ProtCryogemImportModel, **values).validate())
            self.assertIn(expected, errors)

    def newLonger(self, **values):
        protocol = self.newProtocol(ProtCryogemTrain, useGpu=False, doContinue=True, **values)
        self.linkInput(protocol, 'continueRun', self.train)
        return protocol

    def test_a_previous_run_is_trained_longer_as_if_it_had_never_ended(self):
        before = read_json(Path(self.train.getModelFolder(), 'card.json'), '')
        longer = self.newLonger(maxSteps=4)
        self.launchProtocol(longer)
        self.assertEqual(longer.outputModel.getSteps(), 4)
        self.assertIn(('outputModel', 'outputModel'), self.getRelated(longer, RELATION_SOURCE))
        self.assertEqual(read_json(Path(self.train.getModelFolder(), 'card.json'), ''), before)
        whole = self.newTrain(maxSteps=4)
        self.launchProtocol(whole)
        self.assertEqual(longer.outputModel.getCard()['weights_sha256'], whole.outputModel.getCard()['weights_sha256'])
        steps = [line.split(',')[0] for line in Path(longer.getModelFolder(), 'metrics.csv').read_text().split()[1:]]
        self.assertEqual(steps, ['1', '2', '3', '4'])
        longer.maxSteps.set(5)
        longer.runMode.set(MODE_RESUME)
        self.launchProtocol(longer)
        self.assertEqual(longer.outputModel.getSteps(), 5)

    @slow
    def test_more_steps_and_continue_go_on_from_the_checkpoint_and_fewer_begin_again(self):
        protocol = self.newTrain(maxSteps=2, seed=5)
        self.launchProtocol(protocol)
        for steps, isKept in ((3, True), (2, False)):
            metrics = Path(protocol.getModelFolder(), 'metrics.csv')
            # No training takes less than no time, so this row is there afterwards only if it was kept.
            header, first, *others = metrics.read_text().splitlines()
            marked = first.rpartition(',')[0] + ',-1.0'
            metrics.write_text('\n'.join([header, marked, *others, '']))
            protocol.maxSteps.set(steps)
            protocol.runMode.set(MODE_RESUME)
            self.launchProtocol(protocol)
            self.assertEqual(protocol.outputModel.getSteps(), steps)
            rows = metrics.read_text().splitlines()[1:]
            self.assertEqual([row.split(',')[0] for row in rows], [str(step + 1) for step in range(steps)])
            self.assertEqual(rows[0] == marked, isKept)

    def test_a_run_that_cannot_be_continued_says_why(self):
        self.assertIn('*Previous run* cannot be EMPTY',
                      '\n'.join(self.newProtocol(ProtCryogemTrain, doContinue=True).validate()))
        self.assertIn('*Steps* cannot be 2 because the *Previous run* has taken 2',
                      '\n'.join(self.newLonger(maxSteps=2).validate()))
        protocol = self.newLonger(maxSteps=9)
        self.linkInput(protocol, 'continueRun', self.newTrain())
        self.assertIn('*Previous run* has no checkpoint', '\n'.join(protocol.validate()))

    def test_evaluate_compares_with_real_micrographs_and_says_numbers(self):
        protocol = self.newEvaluate(self.generate)
        self.launchProtocol(protocol)
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        self.assertTrue(os.path.exists(protocol.outputEvaluation.getGallery()))
        self.assertTrue(protocol.outputEvaluation.getReport())
        report = protocol.outputEvaluation.getReport()
        self.assertEqual(report['sets'], ['measured_noise'])            # the label of the run
        summary = ' '.join(protocol.summary())
        self.assertIn('*1* generated set against *2* real micrographs', summary)
        for sentence in (*report['verdict'], *report['warnings']):
            self.assertIn(sentence, summary)
        self.assertTrue(os.path.exists(protocol.outputEvaluation.getPage()))
        self.assertIn('Bepler', ' '.join(protocol.citations()))
        self.assertIn(('outputMicrographs', 'outputEvaluation'), self.getRelated(protocol, RELATION_SOURCE))

    def listCopies(self, protocol, name):
        return [path.name for path in Path(protocol._getExtraPath(name)).iterdir() if not path.is_symlink()]

    def test_copies_that_evaluate_needed_are_gone_when_it_is_finished_and_made_again_for_other_settings(self):
        protocol = self.newEvaluate(self.generate)
        with mock.patch.object(convert, '_READ_BY_ENGINE', ()):         # so that real micrographs are converted
            for seed in (0, 1):
                protocol.seed.set(seed)
                self.launchProtocol(protocol)
                self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
                self.assertEqual(self.listCopies(protocol, 'micrographs'), [])
                self.assertIn('Disk space: *', protocol.summary()[-1])
                protocol.runMode.set(MODE_RESUME)

    def test_copies_of_maps_are_gone_when_a_simulation_is_finished_and_made_again_for_more_micrographs(self):
        finer = self.newProtocol(ProtImportVolumes, filesPath=self.specimen.volume, samplingRate=3.9)
        self.launchProtocol(finer)
        protocol = self.newProtocol(ProtCryogemSimulate, useGpu=False, nMicrographs=1)
        for name, run, output in (('inputVolumes', finer, 'outputVolume'),
                                  ('inputCoordinates', self.importPicks, 'outputCoordinates')):
            self.linkInput(protocol, name, run, output)
        for number in (1, 2):
            protocol.nMicrographs.set(number)
            self.launchProtocol(protocol)
            self.assertSetSize(protocol.outputMicrographs, number)
            self.assertEqual(self.listCopies(protocol, 'volumes'), [])  # the header says 4 Å: it had to be copied
            self.assertRegex(protocol.summary()[-1], r'Disk space: \*[\d.]+ MB\*, of it .*micrographs')
            protocol.runMode.set(MODE_RESUME)

    def test_a_scheduled_run_is_told_of_all_runs_before_it(self):
        protocol = self.newEvaluate(self.generate)
        before = (self.importVolume, self.importMics, self.importPicks, self.importCtfs, self.simulate, self.generate)
        self.assertEqual(sorted(protocol.getProtocolsToUpdate()), sorted(run.getObjId() for run in before))

    def test_evaluate_takes_the_ctfs_that_the_project_knows_or_those_that_are_given(self):
        protocol = self.newEvaluate(self.generate)
        self.assertEqual(protocol.getCtfPointer().get().getObjId(), self.importCtfs.outputCTF.getObjId())
        self.linkInput(protocol, 'inputCTF', self.importCtfs, 'outputCTF')
        self.launchProtocol(protocol)
        sent = read_json(Path(protocol._getExtraPath('evaluate.json')), '')
        optics, table = read_tables(Path(sent['ctfs'])).values()
        self.assertEqual(list(table['rlnDefocusU']), list(self.specimen.defocus.values()))
        self.assertEqual(list(optics['rlnVoltage']), [300.0])
        self.assertIn(('outputCTF', 'outputEvaluation'), self.getRelated(protocol, RELATION_SOURCE))

    def test_evaluate_needs_the_ctf_of_every_real_micrograph(self):
        protocol = self.newEvaluate(self.generate)
        half = SetOfCTF(filename=os.path.join(self.folder, 'half.sqlite'))
        half.append(self.importCtfs.outputCTF.getFirstItem().clone())
        with mock.patch.object(protocol_evaluate, 'findCtfs', return_value=mock.Mock(get=lambda: half)):
            self.assertIsNone(protocol.getCtfPointer().get())
            self.assertIn('knows none for 1 of the 2', '\n'.join(protocol.warnings()))
        protocol.inputCTF.set(half)
        self.assertIn('have none for 1 of the 2 *Real micrographs*', '\n'.join(protocol.validate()))

    def test_evaluate_warns_of_real_micrographs_that_were_learned_from(self):
        self.assertIn('2 of 2 were used to make', '\n'.join(self.newEvaluate(self.generate).warnings()))

    def test_sets_of_one_label_are_told_apart_and_picking_asks_for_picks(self):
        other = self.newGenerate('measured', objLabel='measured/noise')
        protocol = self.newEvaluate(self.generate, other)
        self.assertEqual(protocol._nameSets(), ['measured_noise', f'measured_noise_{other.getObjId()}'])
        protocol = self.newEvaluate(self.generate)
        protocol.picking.set(True)
        self.assertEqual(len(protocol.validate()), 1)
        self.assertIn('*Picked particles* are empty; give picks', '\n'.join(protocol.validate()))
        self.linkInput(protocol, 'inputCoordinates', self.importPicks, 'outputCoordinates')
        self.assertEqual(protocol.validate(), [])

    def test_a_run_that_ended_while_scipion_looked_is_not_waited_for_as_failed(self):
        for protocol in (self.newEvaluate(self.generate), self.newGenerate('measured')):
            run = self.generate if isinstance(protocol, ProtCryogemEvaluate) else self.simulate
            run.setFailed('Process 1 not found running on the machine.')
            with mock.patch.object(self.proj, '_updateProtocol'):       # as if its own database said so, too
                self.assertIn('failed; wait until', '\n'.join(protocol.validate()))
            self.assertEqual(protocol.validate(), [])
            self.assertTrue(run.isFinished())

    def test_evaluate_refuses_micrographs_that_are_not_generated(self):
        errors = '\n'.join(self.newEvaluate(self.generate, self.importMics).validate())
        self.assertIn('number 2 are none of *cryogem - generate*', errors)


class TestCryogemModelObject(ChainTest):
    """What a model says of itself where its card says little."""

    def test_an_unknown_pixel_size_and_number_of_steps_are_said(self):
        self.assertEqual(str(CryogemModel(path='x', preset='paper')),
                         'CryogemModel (paper, steps unknown, pixel size unknown)')
