"""Wizards and viewers on real runs, without a display: what they propose and what they would show."""

import os
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import pyworkflow as pw
from pyworkflow.viewer import DESKTOP_TKINTER, MessageView

from cryogem_scipion.objects import CryogemEvaluation
from cryogem_scipion.protocols import ProtCryogemGenerate, ProtCryogemSimulate, ProtCryogemTrain
from cryogem_scipion.tests.data import makeSyntheticData
from cryogem_scipion.tests.test_chain import ChainTest
from cryogem_scipion.viewers import CryogemModelViewer
from cryogem_scipion.viewers.viewer_train import groupColumns
from cryogem_scipion.viewers.views import PageView, PictureView, TableView, flatten, moveLast
from cryogem_scipion.wizards import proposals
from cryogem_scipion.wizards.dialogs import GivenUp
from cryogem_scipion.wizards.proposals import ProposalError


class InterfaceTest(ChainTest):
    """A project with imports; not a test of its own."""

    @classmethod
    def setUpClass(cls):
        cls.prepareProject()
        cls.specimen = makeSyntheticData(Path(cls.folder), number=2, side=320)
        cls.importData()

    @classmethod
    def newSimulate(cls, **values):
        protocol = cls.newProtocol(ProtCryogemSimulate, useGpu=False, **values)
        cls.linkInput(protocol, 'inputVolumes', cls.importVolume, 'outputVolume')
        cls.linkInput(protocol, 'inputCoordinates', cls.importPicks, 'outputCoordinates')
        cls.linkInput(protocol, 'inputCTF', cls.importCtfs, 'outputCTF')
        return protocol

    @classmethod
    def runOurs(cls):
        """Simulate, train and generate, all of it small."""
        cls.simulate = cls.runSimulate(nMicrographs=2, seed=1)
        cls.train = cls.newProtocol(ProtCryogemTrain, useGpu=False, maxSteps=4, cropSize=64, batchSize=2,
                                    nPositions=32, checkpointEvery=2)
        cls.linkInput(cls.train, 'inputSimulation', cls.simulate, 'outputSimulation')
        cls.launchProtocol(cls.train)
        cls.generate = cls.newGenerate('measured', nMicrographs=2, seed=3)
        cls.launchProtocol(cls.generate)

    def makeFolder(self):
        folder = tempfile.TemporaryDirectory(prefix='cryogem_interface_')
        self.addCleanup(folder.cleanup)
        return folder.name


class TestCryogemWizards(InterfaceTest):
    """Each proposal is what was put into the synthetic data."""

    def test_scipion_finds_a_wizard_for_each_number_that_can_be_measured(self):
        domain = pw.Config.getDomain()
        found = domain.findWizards(self.newSimulate(), DESKTOP_TKINTER)
        self.assertLessEqual({'particleDiameter', 'maskThreshold', 'particlesMean', 'particlesSd', 'minimumDistance',
                              'defocusMin', 'defocusMax', 'workingPixelSize', 'boxSize', 'nMicrographs',
                              'preview'}, set(found))
        for name, wizard in found.items():
            self.assertTrue(wizard.__name__.startswith('Cryogem'), name)
        self.assertIn('nMicrographs', domain.findWizards(self.newProtocol(ProtCryogemGenerate), DESKTOP_TKINTER))

    def test_every_parameter_that_a_wizard_serves_or_fills_exists(self):
        protocol = self.newSimulate()
        for wizard in pw.Config.getDomain().findWizards(protocol, DESKTOP_TKINTER).values():
            for name in (*wizard._targets[0][1], *wizard._sets):
                self.assertIsNotNone(protocol.getParam(name), name)

    def test_the_map_gives_diameter_and_threshold_with_a_picture(self):
        proposal = proposals.proposeFromMap(self.newSimulate(), self.makeFolder())
        self.assertTrue(80 < proposal.values['particleDiameter'] < 180)     # atoms in an ellipsoid of 112 x 96 x 80 Å
        self.assertTrue(os.path.exists(proposal.pictures[0]))

    def test_a_higher_threshold_is_tried_and_makes_the_particle_smaller(self):
        protocol, folder = self.newSimulate(), self.makeFolder()
        first = proposals.proposeFromMap(protocol, folder)
        second = proposals.proposeFromMap(protocol, folder, 2 * first.values['maskThreshold'])
        self.assertLess(second.values['particleDiameter'], first.values['particleDiameter'])

    def test_picks_give_their_number_and_distance(self):
        proposal = proposals.proposeFromPicks(self.newSimulate(), self.makeFolder())
        numbers = [len(picks) for picks in self.specimen.picks.values()]
        self.assertAlmostEqual(proposal.values['particlesMean'], np.mean(numbers), delta=0.6 * np.mean(numbers))
        self.assertGreaterEqual(proposal.values['minimumDistance'], 0.74 * self.specimen.boxSize * 4)
        self.assertTrue(os.path.exists(proposal.pictures[0]))

    def test_the_ctfs_give_the_range_of_the_defocus(self):
        values = proposals.proposeDefocus(self.newSimulate(), '').values
        self.assertEqual((values['defocusMin'], values['defocusMax']),
                         (min(self.specimen.defocus.values()), max(self.specimen.defocus.values())))

    def test_the_pixel_size_is_that_of_the_micrographs_for_a_small_particle(self):
        values = proposals.proposePixelSize(self.newSimulate(), self.makeFolder()).values
        self.assertEqual(values['workingPixelSize'], 4.0)

    def test_a_large_particle_is_binned_to_a_hundred_pixels(self):
        protocol = self.newSimulate(particleDiameter=900.0)
        self.assertEqual(proposals.proposePixelSize(protocol, self.makeFolder()).values['workingPixelSize'], 12.0)

    def test_the_box_is_that_of_an_empty_field_in_pixels_of_what_is_written(self):
        protocol, folder = self.newSimulate(particleDiameter=100.0), self.makeFolder()
        self.assertEqual(proposals.proposeBoxSize(protocol, folder).values, {'boxSize': 38})       # 150 Å of 4 Å
        protocol.workingPixelSize.set(6.0)
        self.assertEqual(proposals.proposeBoxSize(protocol, folder).values, {'boxSize': 26})
        protocol.outputSampling.set(protocol.getParam('outputSampling').choices.index('original'))
        self.assertEqual(proposals.proposeBoxSize(protocol, folder).values, {'boxSize': 38})

    def test_a_wanted_number_of_particles_gives_that_of_the_micrographs(self):
        protocol = self.newSimulate(particlesMean=40.0, particlesSd=0.0)
        each = proposals.countForSimulate(protocol)
        self.assertEqual(proposals.proposeNumber(protocol, 1000, each).values['nMicrographs'], 25)
        numbers = [len(picks) for picks in self.specimen.picks.values()]
        self.assertEqual(proposals.countForSimulate(self.newSimulate()), np.mean(numbers))

    def test_what_is_missing_is_told_by_its_label(self):
        protocol = self.newProtocol(ProtCryogemSimulate)
        for propose, label in ((proposals.proposeFromMap, 'Map of the particle'),
                               (proposals.proposeFromPicks, 'Picked particles'),
                               (proposals.proposeDefocus, 'CTFs of the micrographs'),
                               (proposals.proposePixelSize, 'Real micrographs'),
                               (proposals.proposeBoxSize, 'Real micrographs'),
                               (proposals.makePreview, 'Picked particles')):
            with self.assertRaisesRegex(ProposalError, label):
                propose(protocol, self.makeFolder())
        with self.assertRaisesRegex(ProposalError, 'Simulation'):
            proposals.countForGenerate(self.newProtocol(ProtCryogemGenerate))

    def test_the_preview_shows_a_real_and_a_made_micrograph_and_changes_nothing(self):
        protocol = self.newSimulate()
        before = {name: str(value) for name, value in protocol.getObjDict(includeClass=False).items()}
        proposal = proposals.makePreview(protocol, self.makeFolder())
        self.assertEqual(len(proposal.pictures), 2)
        self.assertRegex(proposal.text, r'\d+ particles')
        after = {name: str(value) for name, value in protocol.getObjDict(includeClass=False).items()}
        self.assertEqual(before, after)

    def test_a_window_lives_on_while_the_engine_works_and_may_give_up(self):
        beats = []
        proposals.proposeFromMap(self.newSimulate(), self.makeFolder(), keepAlive=lambda: beats.append(1))
        self.assertGreater(len(beats), 2)
        others, engines = psutil.Process().children(), []          # of earlier tests in this process

        def giveUp():
            engines.extend(one for one in psutil.Process().children() if one not in others)
            raise GivenUp
        with self.assertRaises(GivenUp):
            proposals.makePreview(self.newSimulate(), self.makeFolder(), giveUp)
        self.assertTrue(engines)
        self.assertFalse(any(one.is_running() for one in engines))


class TestCryogemViewers(InterfaceTest):
    """Every button of every viewer, on finished runs and on runs that have made nothing yet."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.runOurs()

    def openAll(self, protocol):
        """Return the views of each button of the viewer of a protocol."""
        viewers = pw.Config.getDomain().findViewers(protocol, DESKTOP_TKINTER)
        self.assertTrue(viewers[0].__name__.startswith('Cryogem'))
        viewer = viewers[0](project=self.proj, protocol=protocol)
        viewer.setProtocol(protocol)
        opened = {name: function(name) for name, function in viewer._getVisualizeDict().items()}
        for views in opened.values():
            self.assertTrue(views)
        return opened

    def countCircles(self, plotter):
        return [sum(len(one.get_paths()) for one in axes.collections) for axes in plotter.getFigure().axes]

    def test_simulate_shows_numbers_pictures_masks_and_plots(self):
        opened = self.openAll(self.simulate)
        self.assertIn('pixel_size', [row[0] for row in opened['numbers'][0].rows])
        self.assertEqual(len(opened['gallery'][0].getFigure().axes), 2)
        self.assertEqual([len(axes.images) for axes in opened['masks'][0].getFigure().axes], [2, 2])
        self.assertIsInstance(opened['calibration'][0], (PageView, MessageView))
        numbers = [len(list(self.simulate.outputCoordinates.iterCoordinates(mic.clone())))
                   for mic in self.simulate.outputMicrographs]
        self.assertEqual(self.countCircles(opened['clean'][0]), numbers)

    def test_circles_lie_on_dark_particles_of_the_clean_image(self):
        axes = self.openAll(self.simulate)['clean'][0].getFigure().axes[0]
        image = np.asarray(axes.images[0].get_array())
        centers = [path.vertices.mean(axis=0) for path in axes.collections[0].get_paths()]
        inside = [image[round(y), round(x)] for x, y in centers
                  if 0 <= y < image.shape[0] - 0.5 and 0 <= x < image.shape[1] - 0.5]
        self.assertLess(np.mean(inside), np.median(image))

    def test_generate_shows_real_above_generated_at_one_grey_scale(self):
        opened = self.openAll(self.generate)
        axes = opened['gallery'][0].getFigure().axes
        self.assertEqual([one.get_title().split(':')[0] for one in axes], ['real', 'real', 'generated', 'generated'])
        self.assertEqual(len({one.images[0].get_clim() for one in axes}), 1)
        self.assertTrue(all(number > 0 for number in self.countCircles(opened['coordinates'][0])))

    def test_defoci_of_generated_micrographs_stand_beside_the_real_ones(self):
        legend = self.openAll(self.generate)['defoci'][0].getFigure().axes[0].get_legend()
        self.assertEqual([text.get_text() for text in legend.get_texts()], ['generated (2)', 'real (2)'])

    def test_train_shows_losses_samples_and_card(self):
        opened = self.openAll(self.train)
        lines = [line for axes in opened['losses'][0].getFigure().axes for line in axes.lines]
        self.assertTrue(all(len(line.get_xdata()) == 4 for line in lines if 'loss' in line.get_label().lower()))
        self.assertIsInstance(opened['samples'][0], PictureView)
        self.assertIsInstance(opened['card'][0], TableView)

    def test_a_model_shows_its_card(self):
        viewer = pw.Config.getDomain().findViewers(self.train.outputModel, DESKTOP_TKINTER)[0]
        self.assertIs(viewer, CryogemModelViewer)
        view, = viewer(project=self.proj, protocol=self.train)._visualize(self.train.outputModel)
        rows = dict(view.rows)
        self.assertEqual(rows['description.steps'], '4')

    def test_a_simulation_shows_what_was_measured_for_it(self):
        viewer = pw.Config.getDomain().findViewers(self.simulate.outputSimulation, DESKTOP_TKINTER)[0]
        view, = viewer(project=self.proj, protocol=self.simulate)._visualize(self.simulate.outputSimulation)
        self.assertEqual(dict(view.rows)['pixel_size'], '4')

    def test_an_evaluation_shows_its_page_else_its_figures_else_says_that_there_are_none(self):
        folder = Path(self.makeFolder())
        evaluation = CryogemEvaluation(path=str(folder))
        viewer = pw.Config.getDomain().findViewers(evaluation, DESKTOP_TKINTER)[0](project=self.proj)
        self.assertIsInstance(viewer._visualize(evaluation)[0], MessageView)
        (folder / 'report.json').write_text('{"a": 1}')
        self.assertEqual(viewer._visualize(evaluation)[0].rows, [['a', '1']])
        (folder / 'report.html').write_text('<html></html>')
        self.assertIsInstance(viewer._visualize(evaluation)[0], PageView)

    def test_a_run_that_has_made_nothing_says_so(self):
        empty = self.newGenerate('measured')
        for protocol in (self.newSimulate(), self.newProtocol(ProtCryogemTrain), empty):
            self.saveProtocol(protocol)
            for name, views in self.openAll(protocol).items():
                self.assertIsInstance(views[0], MessageView, f'{protocol.getClassName()}: {name}')

    @classmethod
    def saveProtocol(cls, protocol):
        cls.proj.saveProtocol(protocol)

    def test_a_page_is_opened_in_the_browser_by_its_address(self):
        with mock.patch('webbrowser.open') as opened:
            PageView(Path(self.folder, 'report.html')).show()
        self.assertTrue(opened.call_args.args[0].startswith('file:///'))

    def test_columns_of_the_metrics_are_losses_realism_or_gradients(self):
        groups = groupColumns(['step', 'g_loss', 'gradient_penalty', 'd_gradient', 'realism_frechet', 'seconds'])
        self.assertEqual(list(groups.values()), [['g_loss', 'gradient_penalty'], ['realism_frechet'], ['d_gradient']])

    def test_losses_that_are_always_zero_are_not_shown(self):
        figure = self.openAll(self.train)['losses'][0].getFigure()
        shown = {line.get_label() for axes in figure.axes for line in axes.lines}
        self.assertIn('statistics loss', shown)
        self.assertNotIn('d loss', shown)                       # the preset has no discriminator

    def test_the_long_notes_of_a_table_come_last(self):
        columns, rows = moveLast('note', ['measure', 'note', 'real'], [['power', 'long', '1']])
        self.assertEqual((columns, rows), (['measure', 'real', 'note'], [['power', '1', 'long']]))
        self.assertEqual(moveLast('note', ['a', 'b'], [['1', '2']]), (['a', 'b'], [['1', '2']]))

    def test_leaves_of_settings_become_rows(self):
        rows = flatten({'a': {'b': 1.5, 'c': [1, 2]}, 'd': [{'e': True}], 'f': list(range(9))})
        self.assertEqual(rows, [['a.b', '1.5'], ['a.c', '1, 2'], ['d.1.e', 'yes'],
                                ['f', '0, 1, 2, 3, 4, 5, ... (9 values)']])
