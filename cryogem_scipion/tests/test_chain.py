"""The chain in a real project: import, simulate, train a few steps, generate; every run a process of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from glob import glob
from pathlib import Path
from unittest import mock, skipUnless

import mrcfile
import numpy as np
from pwem.constants import RELATION_CTF
from pwem.protocols import ProtImportCoordinates, ProtImportCTF, ProtImportMicrographs, ProtImportVolumes
from pyworkflow.object import RELATION_SOURCE, Pointer
from pyworkflow.protocol import MODE_RESUME
from pyworkflow.tests import BaseTest, setupTestProject

from cryogem.conventions import euler_to_matrix
from cryogem.io.star import read_tables
from cryogem_scipion import convert
from cryogem_scipion.constants import CRYOGEM_ENV_ACTIVATION
from cryogem_scipion.protocols import ProtCryogemGenerate, ProtCryogemSimulate, ProtCryogemTrain
from cryogem_scipion.tests.data import Specimen, findRealData, makeSyntheticData, readRealData, writeCtfs, writePicks

_NUMBER_OF_REAL = 2                                     # micrographs that are used, to be quick


class ChainTest(BaseTest):
    """Imports, links and launches; not a test of its own."""

    specimen: Specimen

    @classmethod
    def prepareProject(cls):
        start = os.getcwd()
        cls.addClassCleanup(os.chdir, start)
        setupTestProject(cls)
        cls.folder = tempfile.mkdtemp(prefix='cryogem_chain_')
        cls.addClassCleanup(shutil.rmtree, cls.folder)

    @classmethod
    def linkInput(cls, protocol, name, source, output=None):
        """Point an input at a run, or at its output as the form does."""
        getattr(protocol, name).set(source)
        if output:
            getattr(protocol, name).setExtended(output)

    @classmethod
    def importData(cls):
        specimen, pattern = cls.specimen, os.path.join(cls.folder, 'few')
        os.mkdir(pattern)
        for path in sorted(glob(specimen.micrographs))[:_NUMBER_OF_REAL]:
            os.symlink(path, os.path.join(pattern, os.path.basename(path)))
        cls.importVolume = cls.newProtocol(ProtImportVolumes, filesPath=specimen.volume,
                                           samplingRate=specimen.volumePixelSize)
        cls.launchProtocol(cls.importVolume)
        cls.importMics = cls.newProtocol(ProtImportMicrographs, filesPath=os.path.join(pattern, '*.mrc'),
                                         samplingRate=specimen.pixelSize, **specimen.acquisition)
        cls.launchProtocol(cls.importMics)
        mics = [mic.clone() for mic in cls.importMics.outputMicrographs]
        picks, ctfs = os.path.join(cls.folder, 'picks.sqlite'), os.path.join(cls.folder, 'ctfs.sqlite')
        writePicks(picks, specimen.picks, mics, specimen.boxSize)
        writeCtfs(ctfs, specimen.defocus, mics)
        cls.importPicks = cls.newProtocol(ProtImportCoordinates, filesPath=picks, boxSize=specimen.boxSize,
                                          importFrom=ProtImportCoordinates.IMPORT_FROM_SCIPION)
        cls.importCtfs = cls.newProtocol(ProtImportCTF, filesPath=ctfs,
                                         importFrom=ProtImportCTF.IMPORT_FROM_SCIPION)
        for protocol in (cls.importPicks, cls.importCtfs):
            cls.linkInput(protocol, 'inputMicrographs', cls.importMics, 'outputMicrographs')
            cls.launchProtocol(protocol)

    @classmethod
    def runSimulate(cls, **values):
        protocol = cls.newProtocol(ProtCryogemSimulate, useGpu=False, **values)
        cls.linkInput(protocol, 'inputVolumes', cls.importVolume, 'outputVolume')
        cls.linkInput(protocol, 'inputCoordinates', cls.importPicks, 'outputCoordinates')
        cls.linkInput(protocol, 'inputCTF', cls.importCtfs, 'outputCTF')
        cls.launchProtocol(protocol)
        return protocol

    @classmethod
    def newGenerate(cls, noise, **values):
        protocol = cls.newProtocol(ProtCryogemGenerate, useGpu=False, **values)
        protocol.noise.set(protocol.getParam('noise').choices.index(noise))
        cls.linkInput(protocol, 'inputSimulation', cls.simulate, 'outputSimulation')
        return protocol

    # ------------------------------ checks ---------------------------------
    def checkCleanEnd(self, protocol):
        """A status of finished alone proves little."""
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        stderr = Path(protocol.getStderrLog()).read_text(encoding='utf-8')
        self.assertNotIn('Traceback', stderr)
        lines = [line for line in Path(protocol.getStdoutLog()).read_text(encoding='utf-8').split('\n') if line.strip()]
        self.assertIn('PROTOCOL FINISHED', lines[-1])
        for name, output in protocol.iterOutputAttributes():
            self.assertFalse(hasattr(output, 'isStreamOpen') and output.isStreamOpen(), name)

    def checkMicrographs(self, protocol, number):
        mics, coordinates, ctfs = protocol.outputMicrographs, protocol.outputCoordinates, protocol.outputCTF
        self.assertSetSize(mics, number)
        self.assertSetSize(ctfs, number)
        self.assertGreater(coordinates.getSize(), number)
        self.assertEqual(mics.getAcquisition().getVoltage(), self.specimen.acquisition['voltage'])
        self.assertEqual(coordinates.getBoxSize() % 2, 0)
        real = self.importMics.outputMicrographs
        width, height, _ = mics.getDim()
        scale = real.getSamplingRate() / mics.getSamplingRate()
        self.assertAlmostEqual(width, real.getDim()[0] * scale, delta=1)
        self.assertAlmostEqual(height, real.getDim()[1] * scale, delta=1)
        for mic in mics:
            with mrcfile.open(mic.getFileName()) as file:
                self.assertEqual(file.data.shape, (height, width))
                self.assertTrue(np.isfinite(file.data).all())
                self.assertAlmostEqual(float(file.voxel_size.x), mics.getSamplingRate(), places=3)
            self.assertIn(f'{protocol.getObjId():06d}', mic.getMicName())

    def checkCoordinates(self, protocol, folder):
        """Every coordinate is inside its micrograph, and the particles are darker than what is between them."""
        onParticles, between = [], []
        width, height, _ = protocol.outputMicrographs.getDim()
        for mic in [mic.clone() for mic in protocol.outputMicrographs]:
            positions = [one.getPosition() for one in protocol.outputCoordinates.iterCoordinates(mic)]
            clean = mrcfile.read(os.path.join(folder, 'clean', mic.getMicName()))
            mask = mrcfile.read(os.path.join(folder, 'masks', mic.getMicName())) > 0
            for x, y in positions:
                self.assertTrue(0 <= x < width and 0 <= y < height, (x, y))
                self.assertTrue(mask[y, x], f'{mic.getMicName()}: nothing was painted at {(x, y)}')
            radius = protocol.outputCoordinates.getBoxSize() // 6
            onParticles += [clean[max(0, y - radius):y + radius, max(0, x - radius):x + radius].mean()
                            for x, y in positions]
            between.append(clean[~mask].mean())
        self.assertLess(np.mean(onParticles), np.mean(between))

    def checkParticles(self, protocol, folder, name, starName):
        """Poses and CTFs of the set are those of the engine's table."""
        particles = getattr(protocol, name)
        tables = read_tables(Path(folder, starName))
        rows = tables['particles'].to_dict('records')
        self.assertSetSize(particles, len(rows))
        self.assertSetSize(particles, protocol.outputCoordinates.getSize())
        self.assertTrue(particles.hasAlignmentProj())
        self.assertTrue(particles.hasCTF())
        box = protocol.outputCoordinates.getBoxSize()
        self.assertEqual(particles.getDim()[:2], (box, box))
        for particle, row in zip(particles, rows, strict=True):
            forward = np.linalg.inv(particle.getTransform().getMatrix())
            angles = [row[f'rlnAngle{key}'] for key in ('Rot', 'Tilt', 'Psi')]
            np.testing.assert_allclose(forward[:3, :3], euler_to_matrix(np.array(angles)), atol=1e-5)
            np.testing.assert_allclose(forward[:2, 3] * particles.getSamplingRate(),
                                       [-row['rlnOriginXAngst'], -row['rlnOriginYAngst']], atol=1e-4)
            found = particle.getCTF().getDefocus()
            np.testing.assert_allclose(found, [row[f'rlnDefocus{key}'] for key in ('U', 'V', 'Angle')], atol=0.01)
            self.assertEqual(particle.getCoordinate().getPosition(), (row['rlnCoordinateX'], row['rlnCoordinateY']))
            self.assertTrue(os.path.exists(particle.getFileName()))

    def getRelated(self, protocol, relation):
        """Return the names of what a run relates, as (parent, child) of output names."""
        rows = protocol.mapper.getRelationsByCreator(protocol)
        return {(row['object_parent_extended'], row['object_child_extended']) for row in rows
                if row['name'] == relation}


class TestCryogemChain(ChainTest):
    """Simulate, train, generate, on real micrographs where they are found, else on synthetic ones."""

    @classmethod
    def setUpClass(cls):
        cls.prepareProject()
        real = findRealData()
        cls.specimen = makeSyntheticData(Path(cls.folder)) if real is None else readRealData(real)
        cls.importData()
        cls.simulate = cls.runSimulate(nMicrographs=3, particles=3, seed=1)
        cls.train = cls.newProtocol(ProtCryogemTrain, useGpu=False, maxSteps=4, cropSize=64, batchSize=2,
                                    nPositions=32, checkpointEvery=2)
        cls.linkInput(cls.train, 'inputSimulation', cls.simulate)       # the run itself, as scripts may do
        cls.launchProtocol(cls.train)
        cls.generate = cls.newGenerate('trained model', nMicrographs=2, particles=2, seed=2)
        cls.linkInput(cls.generate, 'inputModel', cls.train, 'outputModel')
        cls.launchProtocol(cls.generate)
        cls.measured = cls.newGenerate('measured', nMicrographs=1, seed=3)
        cls.launchProtocol(cls.measured)

    def test_simulate_registers_micrographs_coordinates_and_ctfs(self):
        self.checkCleanEnd(self.simulate)
        self.checkMicrographs(self.simulate, 3)
        self.checkCoordinates(self.simulate, self.simulate.getDatasetFolder())

    def test_simulate_registers_both_stacks_with_poses_and_ctfs(self):
        folder = self.simulate.getDatasetFolder()
        self.checkParticles(self.simulate, folder, 'outputParticles', 'particles.star')
        self.checkParticles(self.simulate, folder, 'outputCleanParticles', 'clean_particles.star')

    def test_defocus_of_the_micrographs_is_like_that_of_the_real_ones(self):
        real = [ctf.getDefocusU() for ctf in self.importCtfs.outputCTF]
        for ctf in self.simulate.outputCTF:
            self.assertGreater(ctf.getDefocusU(), 0.8 * min(real))
            self.assertLess(ctf.getDefocusU(), 1.2 * max(real))

    def test_train_registers_a_model_of_the_steps_asked_for(self):
        self.checkCleanEnd(self.train)
        model = self.train.outputModel
        self.assertEqual((model.getSteps(), model.getPreset()), (4, 'fast'))
        self.assertEqual(model.getPixelSize(), self.simulate.outputMicrographs.getSamplingRate())
        self.assertTrue(glob(os.path.join(model.getPath(), '*.safetensors')))

    def test_generate_with_a_model_registers_all_that_was_asked_for(self):
        self.checkCleanEnd(self.generate)
        folder = self.generate.getGeneratedFolder()
        self.checkMicrographs(self.generate, 2)
        self.checkCoordinates(self.generate, folder)
        self.checkParticles(self.generate, folder, 'outputParticles', 'particles.star')
        self.assertFalse(hasattr(self.generate, 'outputCleanParticles'))

    def test_generate_needs_no_training_for_measured_noise(self):
        self.checkCleanEnd(self.measured)
        self.checkMicrographs(self.measured, 1)
        self.checkCoordinates(self.measured, self.measured.getGeneratedFolder())

    def test_generated_micrographs_have_the_grey_scale_of_the_real_ones(self):
        def measure(mics):
            images = [mrcfile.read(mic.getFileName()).astype(float) for mic in mics]
            return np.mean([image.mean() for image in images]), np.mean([image.std() for image in images])
        realMean, realSd = measure(self.importMics.outputMicrographs)
        for protocol in (self.generate, self.measured):
            mean, sd = measure(protocol.outputMicrographs)
            self.assertLess(abs(mean - realMean), 2 * realSd)
            self.assertTrue(0.5 * realSd < sd < 2 * realSd, (sd, realSd))

    def test_the_ctf_relation_lets_extraction_find_our_ctfs(self):
        for protocol in (self.simulate, self.generate):
            self.assertIn(('outputMicrographs', 'outputCTF'), self.getRelated(protocol, RELATION_CTF))

    def test_outputs_are_related_to_what_they_were_made_from(self):
        related = self.getRelated(self.simulate, RELATION_SOURCE)
        for source in ('outputVolume', 'outputCoordinates', 'outputMicrographs', 'outputCTF'):
            self.assertIn((source, 'outputMicrographs'), related)
        self.assertIn(('outputModel', 'outputMicrographs'), self.getRelated(self.generate, RELATION_SOURCE))

    def test_summary_and_methods_tell_numbers(self):
        for protocol in (self.simulate, self.generate):
            self.assertIn(f'*{protocol.outputMicrographs.getSize()}* micrographs', ' '.join(protocol.summary()))
            self.assertIn('CryoGEM', ' '.join(protocol.methods()))
        self.assertIn('after *4* steps', ' '.join(self.train.summary()))
        picks = sum(len(self.specimen.picks[Path(mic.getMicName()).stem]) for mic in self.importMics.outputMicrographs)
        self.assertIn(f'*2* real micrographs with *{picks}* picked', ' '.join(self.simulate.summary()))
        self.assertIn(f'with {picks} picked particles', ' '.join(self.simulate.methods()))
        self.assertIn('for 4 steps', ' '.join(self.train.methods()))

    def test_continue_with_nothing_changed_does_nothing(self):
        before = os.path.getmtime(os.path.join(self.measured.getGeneratedFolder(), 'manifest.json'))
        self.measured.runMode.set(MODE_RESUME)
        self.launchProtocol(self.measured)
        self.checkCleanEnd(self.measured)
        self.assertEqual(os.path.getmtime(os.path.join(self.measured.getGeneratedFolder(), 'manifest.json')), before)

    def test_more_micrographs_and_continue_keeps_those_that_are_there(self):
        protocol = self.newGenerate('gaussian', nMicrographs=1, seed=5)
        self.launchProtocol(protocol)
        first = protocol.outputMicrographs.getFirstItem().getFileName()
        before = os.stat(first)
        protocol.nMicrographs.set(2)
        protocol.runMode.set(MODE_RESUME)
        self.launchProtocol(protocol)
        self.checkCleanEnd(protocol)
        self.checkMicrographs(protocol, 2)
        self.assertEqual(os.stat(first), before)

    def test_generate_runs_in_an_environment_that_is_activated_with_workers_of_its_own(self):
        activate = os.path.join(sys.prefix, 'bin', 'activate')
        if not os.path.exists(activate):
            self.skipTest('this Python is no virtual environment')
        protocol = self.newGenerate('gaussian', nMicrographs=2, seed=6, numberOfThreads=2)
        with mock.patch.dict(os.environ, {CRYOGEM_ENV_ACTIVATION: f'. {activate}'}):
            self.launchProtocol(protocol)
        self.checkCleanEnd(protocol)
        self.checkMicrographs(protocol, 2)
        self.assertIn('launcher.py generate', Path(protocol.getStdoutLog()).read_text(encoding='utf-8'))

    def test_a_failure_of_the_engine_is_one_sentence(self):
        protocol = self.newProtocol(ProtCryogemTrain, useGpu=False, maxSteps=1, cropSize=16384)
        self.linkInput(protocol, 'inputSimulation', self.simulate)
        with self.assertRaisesRegex(Exception, 'execution failed'):
            self.launchProtocol(protocol)
        message = protocol.getErrorMessage()
        self.assertIn('crop_size 16384 is larger than', message)
        self.assertNotIn('non-zero exit status', message)
        self.assertNotIn('Traceback', Path(protocol.getStderrLog()).read_text(encoding='utf-8'))


class TestCryogemOtherInputs(ChainTest):
    """Synthetic micrographs: without picks and CTFs, and with a set of two maps with weights."""

    @classmethod
    def setUpClass(cls):
        cls.prepareProject()
        cls.specimen = makeSyntheticData(Path(cls.folder), number=2)
        cls.importData()

    def test_simulate_works_with_what_is_said_in_place_of_picks(self):
        protocol = self.newProtocol(ProtCryogemSimulate, useGpu=False, nMicrographs=1, particlesMean=12.0,
                                    particlesSd=0.0, signalToNoise=0.2, estimateCtfs=True)
        self.linkInput(protocol, 'inputVolumes', self.importVolume, 'outputVolume')
        self.linkInput(protocol, 'inputMicrographs', self.importMics, 'outputMicrographs')
        self.launchProtocol(protocol)
        self.checkCleanEnd(protocol)
        self.checkMicrographs(protocol, 1)
        self.assertTrue(6 <= protocol.outputCoordinates.getSize() <= 18)     # 12 in the frame, give or take its border
        ctf = protocol.outputCTF.getFirstItem()
        nearest = min(abs((ctf.getDefocusU() + ctf.getDefocusV()) / 2 / value - 1)
                      for value in self.specimen.defocus.values())
        self.assertLess(nearest, 0.05)                  # estimated, as no CTFs are given

    def test_a_set_of_maps_is_mixed_by_its_weights(self):
        folder = os.path.join(self.folder, 'maps')
        os.mkdir(folder)
        for number in (1, 2):
            shutil.copy(self.specimen.volume, os.path.join(folder, f'map_{number}.mrc'))
        volumes = self.newProtocol(ProtImportVolumes, filesPath=os.path.join(folder, '*.mrc'),
                                   samplingRate=self.specimen.volumePixelSize)
        self.launchProtocol(volumes)
        protocol = self.newProtocol(ProtCryogemSimulate, useGpu=False, nMicrographs=2, particles=2,
                                    volumeWeights='0 1')
        self.linkInput(protocol, 'inputVolumes', volumes, 'outputVolumes')
        self.linkInput(protocol, 'inputCoordinates', self.importPicks, 'outputCoordinates')
        self.linkInput(protocol, 'inputCTF', self.importCtfs, 'outputCTF')
        self.launchProtocol(protocol)
        self.checkCleanEnd(protocol)
        self.assertEqual({particle.getClassId() for particle in protocol.outputParticles}, {2})

    def test_ctfs_that_the_project_knows_of_the_micrographs_are_found(self):
        protocol = self.newUnpicked(nMicrographs=1)
        self.assertEqual(protocol.getCtfPointer().getUniqueId(),
                         Pointer(self.importCtfs, extended='outputCTF').getUniqueId())
        self.launchProtocol(protocol)
        self.checkCleanEnd(protocol)
        used = read_tables(Path(protocol._getExtraPath('ctfs.star')))['micrographs']
        self.assertEqual(sorted(used['rlnDefocusU']), sorted(self.specimen.defocus.values()))
        self.assertIn(('outputCTF', 'outputMicrographs'), self.getRelated(protocol, RELATION_SOURCE))
        low, high = (bound(self.specimen.defocus.values()) / 1e4 for bound in (min, max))
        self.assertIn(f'*{low:.2f} to {high:.2f} µm*', ' '.join(protocol.summary()))
        anew = self.newUnpicked(estimateCtfs=True)
        self.assertIsNone(anew.getCtfPointer().get())

    def newUnpicked(self, **values):
        """Return a simulate run without picks."""
        protocol = self.newProtocol(ProtCryogemSimulate, useGpu=False, particlesMean=12.0, particlesSd=0.0,
                                    signalToNoise=0.5, particles=1, **values)
        self.linkInput(protocol, 'inputVolumes', self.importVolume, 'outputVolume')
        self.linkInput(protocol, 'inputMicrographs', self.importMics, 'outputMicrographs')
        return protocol

    def test_views_follow_a_preferred_one_and_then_the_distribution_of_its_particles(self):
        first = self.newUnpicked(nMicrographs=2, preferredRot=40.0, preferredTilt=30.0, viewSpread=3.0, symmetry='C2')
        self.launchProtocol(first)
        second = self.newUnpicked(nMicrographs=2, viewSpread=3.0, seed=4)
        self.linkInput(second, 'inputParticles', first, 'outputCleanParticles')
        self.launchProtocol(second)
        for protocol in (first, second):
            self.checkCleanEnd(protocol)
            rows = read_tables(Path(protocol.getDatasetFolder(), 'clean_particles.star'))['particles']
            self.assertLess(abs(rows['rlnAngleTilt'] - 30).max(), 30)
            self.assertLess(abs(rows['rlnAngleTilt'] - 30).mean(), 10)

    @skipUnless(shutil.which('relion_reconstruct'), 'relion_reconstruct is not installed')
    def test_relion_rebuilds_the_map_from_the_registered_particles(self):
        protocol = self.newUnpicked(nMicrographs=40, boxSize=64)
        self.launchProtocol(protocol)
        particles = protocol.outputCleanParticles
        star, rebuilt = os.path.join(self.folder, 'registered.star'), os.path.join(self.folder, 'rebuilt.mrc')
        convert.writeParticles(particles, star)
        subprocess.run(['relion_reconstruct', '--i', star, '--o', rebuilt, '--ctf', '--angpix',
                        str(particles.getSamplingRate())], check=True, capture_output=True, timeout=1800)
        found = mrcfile.read(rebuilt)
        truth = mrcfile.read(self.specimen.volume)
        truth = np.pad(truth, (len(found) - len(truth)) // 2)
        self.assertGreater(len(particles), 300)
        self.assertGreaterEqual(np.corrcoef(truth.ravel(), found.ravel())[0, 1], 0.98)
        self.assertLess(np.corrcoef(truth[:, :, ::-1].ravel(), found.ravel())[0, 1], 0.9)
        projected = mrcfile.read(os.path.join(protocol.getDatasetFolder(), 'specimen', 'volume_01.mrc'))
        projected = np.pad(projected, (len(found) - len(projected)) // 2)
        # 8 Å is the Nyquist frequency of the synthetic specimen
        self.assertGreaterEqual(self.correlateShells(projected, found)[1:len(found) // 2].min(), 0.95)

    def correlateShells(self, first, second):
        """Return the Fourier shell correlation of two (n, n, n) maps, one value per shell."""
        grid = np.fft.fftfreq(len(first), 1 / len(first))
        radius = np.sqrt(grid[:, None, None] ** 2 + grid[:, None] ** 2 + grid ** 2).round().astype(int).ravel()
        a, b = np.fft.fftn(first).ravel(), np.fft.fftn(second).ravel()
        cross = np.bincount(radius, (a * b.conj()).real)
        return cross / np.sqrt(np.bincount(radius, abs(a) ** 2) * np.bincount(radius, abs(b) ** 2))
