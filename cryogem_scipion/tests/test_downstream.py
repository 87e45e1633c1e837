"""The chain behind us, for real: the example scripts run Relion and Topaz on what was generated, and Topaz picks real
micrographs afterwards."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import TestCase, skipIf

import mrcfile
import numpy as np
from pwem.objects import SetOfClasses2D, SetOfCoordinates, SetOfCTF, SetOfMicrographs, SetOfParticles

from cryogem_scipion.tests.data import Specimen, findRealData, makeSyntheticData, readRealData
from cryogem_scipion.tests.downstream import findExamples, findMissing, makeEnvironment
from cryogem_scipion.tests.marks import slow

_EXAMPLES = findExamples()
_NUMBER_OF_REAL = 3                                     # micrographs that are used, to be quick
_WITHOUT_EXAMPLES = ('the example scripts are part of a checkout, not of an installation; CRYOGEM_TEST_EXAMPLES names '
                     'their folder' if _EXAMPLES is None else '')


def runExample(script: str, specimen: Specimen, folder: Path, options: list[str], environment: dict[str, str]) -> str:
    """Run an example on a few micrographs of a specimen and return what it wrote."""
    few, picks = folder / 'few', folder / 'picks'
    few.mkdir()
    picks.mkdir()
    paths = sorted(Path(specimen.micrographs).parent.glob(Path(specimen.micrographs).name))[:_NUMBER_OF_REAL]
    for path in paths:
        (few / path.name).symlink_to(path)
        rows = '\n'.join(f'{x},{y}' for x, y in specimen.picks[path.stem])
        (picks / f'{path.stem}.csv').write_text(f'x,y\n{rows}\n')
    command = [sys.executable, str(Path(str(_EXAMPLES), script)), '--map', specimen.volume, '--map-pixel-size',
               str(specimen.volumePixelSize), '--micrographs', str(few / '*.mrc'), '--pixel-size',
               str(specimen.pixelSize), '--picks', str(picks / '*.csv'), '--box', str(specimen.boxSize), '--cpu',
               '--project', 'Example', *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False, stdin=subprocess.DEVNULL,
                          env={**environment, 'SCIPION_USER_DATA': str(folder / 'data')})
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return done.stdout


def readScores(written: str, what: str) -> tuple[int, float, float]:
    """Return number, recall and precision of a line of the example."""
    found = re.search(rf'{what}: (\d+); recall ([\d.]+), precision ([\d.]+)', written)
    if found is None:
        raise AssertionError(f'no scores of {what} in:\n{written}')
    return int(found[1]), float(found[2]), float(found[3])


@slow
@skipIf(_WITHOUT_EXAMPLES, _WITHOUT_EXAMPLES)
class TestCryogemExample(TestCase):
    """The example without other programs."""

    def test_the_batch_script_makes_micrographs_from_a_map_and_picks(self):
        folder = tempfile.TemporaryDirectory(prefix='cryogem_example_')
        self.addCleanup(folder.cleanup)
        specimen = makeSyntheticData(Path(folder.name) / 'data_set', number=2, side=320)
        written = runExample('imitate_micrographs.py', specimen, Path(folder.name),
                             ['--simulated', '2', '--steps', '2', '--generated', '2', '--repetitions', '1',
                              '--no-controls'],
                             dict(os.environ))
        made, = Path(folder.name, 'data', 'projects', 'Example').glob('Runs/*_ProtCryogemGenerate/micrographs.sqlite')
        self.assertEqual(SetOfMicrographs(filename=str(made)).getSize(), 2)
        self.assertIn('python -m scipion project Example', written)


@slow
@skipIf(_WITHOUT_EXAMPLES or findMissing(), _WITHOUT_EXAMPLES or findMissing())
class TestCryogemDownstream(TestCase):
    """Relion picks, extracts and classifies generated micrographs; Topaz learns on them and picks real ones."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix='cryogem_downstream_')
        cls.addClassCleanup(folder.cleanup)
        real = findRealData()
        root = Path(folder.name)
        specimen = makeSyntheticData(root / 'data_set', side=512) if real is None else readRealData(real)
        diameter = 100 if real is None else 130
        cls.written = runExample('train_picker.py', specimen, root, [
            '--simulated', '3', '--steps', '4', '--generated', '4', '--diameter', str(diameter),
            '--epochs', '1', '--topaz-options', '--epoch-size 120 --minibatch-size 64', '--threshold', '0',
            '--classes', '2', '--iterations', '1', '--threads', '2', '--check', '--no-evaluation'],
            makeEnvironment(root))
        cls.project = root / 'data' / 'projects' / 'Example'
        cls.start = os.getcwd()
        cls.addClassCleanup(os.chdir, cls.start)
        os.chdir(cls.project)                           # paths in sets are relative to it

    def readSet(self, kind, protocol, name, number=0):
        """Return a set of the `number`-th run of a protocol."""
        path = sorted(Path('Runs').glob(f'*_{protocol}/{name}.sqlite'))[number]
        return kind(filename=str(path))

    def test_relion_extracts_at_our_coordinates_what_we_would_cut_there(self):
        mics = {mic.getMicName(): mrcfile.read(mic.getFileName()).astype(float)
                for mic in self.readSet(SetOfMicrographs, 'ProtCryogemGenerate', 'micrographs')}
        correlations = []
        for particle in self.readSet(SetOfParticles, 'ProtRelionExtractParticles', 'particles'):
            index, stack = particle.getLocation()
            image = mrcfile.read(stack)[index - 1]
            x, y = particle.getCoordinate().getPosition()
            half = len(image) // 2
            crop = mics[particle.getCoordinate().getMicName()][y - half:y + half, x - half:x + half]
            if crop.shape == image.shape:
                correlations.append(np.corrcoef(-crop.ravel(), image.ravel())[0, 1])
        self.assertGreater(len(correlations), 100)
        self.assertGreater(np.mean(correlations), 0.99)

    def test_extracted_particles_carry_our_ctfs(self):
        ctfs = self.readSet(SetOfCTF, 'ProtCryogemGenerate', 'ctf')     # a set that nobody holds is closed
        made = {ctf.getMicrograph().getMicName(): ctf.getDefocus() for ctf in ctfs}
        for particle in self.readSet(SetOfParticles, 'ProtRelionExtractParticles', 'particles'):
            expected = made[particle.getCoordinate().getMicName()]
            np.testing.assert_allclose(particle.getCTF().getDefocus(), expected, atol=0.02)

    def test_relion_finds_the_generated_particles(self):
        _, recall, _ = readScores(self.written, 'picks of Relion on the generated micrographs')
        self.assertGreater(recall, 0.4)

    def test_topaz_trained_on_generated_micrographs_picks_real_ones(self):
        number, recall, precision = readScores(self.written, 'picks of Topaz on the real micrographs')
        self.assertGreater(number, 50)
        # at random a pick is within a third of a diameter of one of ~150 particles in a quarter of the cases
        self.assertGreater(precision, 0.6)
        self.assertGreater(recall, 0.3)

    def test_both_sets_of_particles_are_classified(self):
        for number in (0, 1):
            classes = self.readSet(SetOfClasses2D, 'ProtRelionClassify2D', 'classes2D', number)
            self.assertIn(classes.getSize(), (1, 2))        # a class that got no particle is none
            self.assertGreater(sum(one.getSize() for one in classes), 50)

    def test_topaz_picks_lie_on_the_real_micrographs_that_were_imported(self):
        names = {mic.getMicName() for mic in self.readSet(SetOfMicrographs, 'ProtImportMicrographs', 'micrographs')}
        picks = self.readSet(SetOfCoordinates, 'TopazProtPicking', 'coordinates')
        self.assertLessEqual({one.getMicName() for one in picks}, names)
