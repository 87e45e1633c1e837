"""Scipion's real window on a virtual display: forms, a run by its Execute button, viewers, wizards."""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import TestCase, skipUnless

from PIL import Image
from pwem.objects import SetOfCoordinates
from pyworkflow.object import Pointer

from cryogem_scipion.protocols import ProtCryogemEvaluate
from cryogem_scipion.tests.data import describeMicrographs, makeSyntheticData, writePicks
from cryogem_scipion.tests.downstream import findMissing, makeEnvironment
from cryogem_scipion.tests.marks import gui, slow
from cryogem_scipion.tests.test_interface import InterfaceTest
from cryogem_scipion.tests.walk import planRealData, planTutorial
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
        cls.runOurs()

    def tell(self, *stories):
        """Let the driver tell stories; return its pictures by name, and what it wrote."""
        folder = tempfile.TemporaryDirectory(prefix='cryogem_pictures_')
        self.addCleanup(folder.cleanup)
        done = subprocess.run([*_XVFB, sys.executable, '-m', 'cryogem_scipion.tests.window', self.proj.getShortName(),
                               folder.name, *stories], capture_output=True, text=True, timeout=1800, check=False,
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


class TestCryogemPlan(TestCase):
    """What the walk makes of a folder of real data."""

    def test_the_last_three_micrographs_judge_and_topaz_is_told_the_share_of_its_labels(self):
        with tempfile.TemporaryDirectory(prefix='cryogem_plan_') as folder:
            source, made = Path(folder, 'source'), Path(folder, 'made')
            specimen = makeSyntheticData(source, number=5, side=256)
            (source / 'coordinates').mkdir()
            for name, picks in specimen.picks.items():
                rows = ''.join(f'{x},{y}\n' for x, y in picks)
                (source / 'coordinates' / f'{name}.csv').write_text('x,y\n' + rows)
            (source / 'micrographs.csv').write_text('micrograph,defocus_A_approx\n')
            (source / 'dataset.json').write_text(json.dumps({
                'specimen': 'atoms', 'map': 'map.mrc', 'apix': 4.0, 'voltage_kV': 300, 'cs_mm': 2.7,
                'amplitude_contrast': 0.1, 'particle_diameter_A': 120}))
            steps = {step['label']: step['values'] for step in planRealData(source, made)}
            links = {name: sorted(path.stem for path in (made / name).iterdir())
                     for name in ('micrographs', 'held_out')}
            picked = SetOfCoordinates(filename=steps['import picks']['filesPath']).getSize()
        self.assertEqual(links['micrographs'], ['synthetic_01', 'synthetic_02'])
        self.assertEqual(links['held_out'], ['synthetic_03', 'synthetic_04', 'synthetic_05'])
        self.assertEqual(picked, sum(len(specimen.picks[name]) for name in links['micrographs']))
        share = round(picked / 2) * math.pi * 4 ** 2 / 256 ** 2         # 0.3 of the radius of 15 px
        self.assertIn(f'--method PN --pi {share:.4f}', steps['topaz training']['trainExtra'])


@gui
@slow
@skipUnless(shutil.which('xvfb-run'), 'xvfb-run is not installed')
class TestCryogemTutorial(TestCase):
    """The tutorial in the window, from the imports on, each form filled in and executed by its button."""

    def test_a_new_user_gets_from_the_imports_to_picks_on_real_micrographs(self):
        folder = tempfile.TemporaryDirectory(prefix='cryogem_walk_')
        self.addCleanup(folder.cleanup)
        root = Path(folder.name)
        withPicker = not findMissing()
        plan = planTutorial(self.makeData(root), {
            'simulated': 2, 'generated': 5, 'steps': 2, 'controls': False, 'epochs': 1, 'particles': 15,
            'threshold': -6, 'topaz_options': '--epoch-size 60 --minibatch-size 32', 'classes': 2, 'iterations': 1},
            withPicker)
        (root / 'plan.json').write_text(json.dumps(plan), encoding='utf-8')
        environment = makeEnvironment(root) if withPicker else dict(os.environ)
        path = os.pathsep.join(filter(None, (*sys.path, environment.get('PYTHONPATH'))))
        done = subprocess.run([*_XVFB, sys.executable, '-m', 'cryogem_scipion.tests.walk', type(self).__name__,
                               str(root / 'pictures'), str(root / 'plan.json')], capture_output=True, text=True,
                              timeout=3600, check=False, env={**environment, 'PYTHONPATH': path})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        walked = [line.split(',')[0].removeprefix('walked: ') for line in done.stdout.splitlines()
                  if line.startswith('walked: ')]
        self.assertEqual(walked, [step['label'] for step in plan])
        self.assertIn('outputEvaluation: CryogemEvaluation', done.stdout)
        forms = [path for path in (root / 'pictures').iterdir() if not path.stem.endswith('_asks')]
        self.assertEqual(len(forms), len(plan))

    def makeData(self, root: Path) -> dict:
        """Return what the plan wants to know of four synthetic micrographs, two of them held out."""
        specimen = makeSyntheticData(root, number=4, side=320)
        (root / 'held_out').mkdir()
        for number in (3, 4):
            name = f'synthetic_{number:02d}.mrc'
            (root / 'micrographs' / name).rename(root / 'held_out' / name)
        writePicks(str(root / 'picks.sqlite'), specimen.picks, describeMicrographs(specimen.micrographs),
                   specimen.boxSize)
        return {'map': specimen.volume, 'map_pixel_size': 4.0, 'micrographs': specimen.micrographs,
                'held_out': str(root / 'held_out' / '*.mrc'), 'pixel_size': 4.0, 'acquisition': specimen.acquisition,
                'picks': str(root / 'picks.sqlite'), 'box_size': specimen.boxSize, 'diameter': 112,
                'area': 320 ** 2}
