"""Scipion's real window on a virtual display: forms, a run by its Execute button, viewers, wizards."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import skipUnless

from PIL import Image
from pyworkflow.object import Pointer

from cryogem_scipion.protocols import ProtCryogemEvaluate, ProtCryogemTrain
from cryogem_scipion.tests.marks import gui, slow
from cryogem_scipion.tests.test_interface import InterfaceTest
from cryogem_scipion.tests.window import listOurProtocols

_XVFB = ['xvfb-run', '-a', '-s', '-screen 0 1600x1200x24']
_SMALL = 150_000                                        # bytes: pictures like these stand in the manual


@gui
@slow
@skipUnless(shutil.which('xvfb-run'), 'xvfb-run is not installed')
class TestCryogemWindow(InterfaceTest):
    """What a user sees and presses; each picture is drawn, and nothing fails inside Tk."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.simulate = cls.runSimulate(nMicrographs=2, seed=1)
        cls.train = cls.newProtocol(ProtCryogemTrain, useGpu=False, maxSteps=4, cropSize=64, batchSize=2,
                                    nPositions=32, checkpointEvery=2)
        cls.linkInput(cls.train, 'inputSimulation', cls.simulate, 'outputSimulation')
        cls.launchProtocol(cls.train)
        cls.generate = cls.newGenerate('measured', nMicrographs=2, seed=3)
        cls.launchProtocol(cls.generate)

    def tell(self, *stories):
        """Let the driver tell stories; return its pictures by name, and what it wrote."""
        folder = tempfile.TemporaryDirectory(prefix='cryogem_pictures_')
        self.addCleanup(folder.cleanup)
        done = subprocess.run([*_XVFB, sys.executable, '-m', 'cryogem_scipion.tests.window', self.proj.getShortName(),
                               folder.name, *stories], capture_output=True, text=True, timeout=400, check=False,
                              env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        pictures = {path.stem: path for path in Path(folder.name).iterdir()}
        for name, path in pictures.items():
            self.assertLessEqual(path.stat().st_size, _SMALL, name)
            with Image.open(path) as picture:
                darkest, brightest = picture.convert('L').getextrema()
                self.assertLess(darkest, brightest, name)
        return pictures, done.stdout

    def test_the_form_of_each_protocol_opens_at_both_levels(self):
        pictures, _ = self.tell('window', 'forms')
        for name in listOurProtocols():
            word = name.removeprefix('ProtCryogem').lower()
            for level in ('normal', 'expert'):
                self.assertTrue(any(one.startswith(f'form_{word}_') and one.endswith(level) for one in pictures), word)
        self.assertIn('window', pictures)

    def test_execute_runs_generate_until_it_is_finished(self):
        _, written = self.tell('execute')
        self.assertIn('executed: finished, 2 micrographs', written)

    def test_every_button_of_every_viewer_opens_something(self):
        evaluate = self.newProtocol(ProtCryogemEvaluate, useGpu=False, nSeeds=1, cropsPerMicrograph=2, controls=False)
        evaluate.inputGenerated.append(Pointer(self.generate, extended='outputMicrographs'))
        self.linkInput(evaluate, 'inputMicrographs', self.importMics, 'outputMicrographs')
        self.launchProtocol(evaluate)
        pictures, _ = self.tell('viewers')
        self.assertLessEqual({'viewer_simulate', 'viewer_simulate_clean', 'viewer_simulate_masks',
                              'viewer_train_losses', 'viewer_train_samples', 'viewer_generate_gallery',
                              'viewer_generate_defoci', 'viewer_evaluate_gallery'}, set(pictures))

    def test_every_wizard_shows_and_fills_in_its_proposal(self):
        pictures, _ = self.tell('wizards')
        self.assertLessEqual({'wizard_particleDiameter', 'wizard_maskThreshold', 'wizard_particlesMean',
                              'wizard_defocusMin', 'wizard_workingPixelSize', 'wizard_nMicrographs', 'wizard_preview'},
                             set(pictures))
