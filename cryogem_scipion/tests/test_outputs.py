"""What the engine has written becomes items of Scipion's sets without losing a number."""

import os
import shutil
import tempfile
import unittest
from pathlib import Path

import mrcfile
import numpy as np
from pwem.objects import Acquisition, SetOfCoordinates, SetOfCTF, SetOfMicrographs, SetOfParticles

from cryogem.io.files import write_json
from cryogem.records import Ctf, Micrograph, Particle
from cryogem_scipion import outputs


def readItems(setClass, path: str) -> list:
    """Return copies of the items of a set on disk, in order."""
    itemSet = setClass(filename=path)                   # named: it closes its file when it is collected
    return [item.clone() for item in itemSet]


class TestPoses(unittest.TestCase):
    """Scipion keeps inv([R | t]) with x_image = R x_volume + t."""

    def makeMatrix(self, rot=0.0, tilt=0.0, psi=0.0, originX=0.0, originY=0.0):
        return outputs.makeTransform((rot, tilt, psi), (originX, originY)).getMatrix()

    def test_pose_without_rotation_moves_by_the_origin_in_pixels(self):
        expected = np.eye(4)
        expected[:2, 3] = (1.5, -2.0)                   # the inverse of t = -origin
        np.testing.assert_allclose(self.makeMatrix(originX=1.5, originY=-2.0), expected, atol=1e-12)

    def test_a_quarter_turn_in_plane_takes_x_of_the_image_to_y_of_the_map(self):
        expected = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
        np.testing.assert_allclose(self.makeMatrix(psi=90)[:3, :3], expected, atol=1e-12)

    def test_a_tilt_takes_the_beam_to_x_of_the_map(self):
        np.testing.assert_allclose(self.makeMatrix(tilt=90)[:3, 2], (1, 0, 0), atol=1e-12)

    def test_scipion_reads_back_the_euler_angles(self):
        from pwem.convert.transformations import euler_from_matrix
        for angles in ((10, 20, 30), (-100, 140, 5), (170, 90, -60)):
            matrix = np.linalg.inv(self.makeMatrix(*angles))
            found = -np.rad2deg(euler_from_matrix(matrix, axes='szyz'))
            np.testing.assert_allclose(np.cos(np.deg2rad(found - angles)), 1, atol=1e-9)


class TestOutputFolder(unittest.TestCase):
    """The records of an output folder of the engine, read into sets."""

    PIXEL_SIZE = 2.0

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix='cryogem_output_')
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.phaseShifts = [0.0, 90.0]
        random = np.random.default_rng(3)
        cls.angles = random.uniform((-180, 0, -180), (180, 180, 180), (4, 3))
        cls.writeFolder(Path(cls.folder))
        cls.readSets()

    @classmethod
    def writeFolder(cls, folder):
        for sub in ('micrographs', 'records'):
            (folder / sub).mkdir()
        ctfs = [Ctf(21000.0, 20000.0, 170.0, phase_shift=0.0), Ctf(18000.0, 17000.0, 3.5, phase_shift=90.0)]
        origins = [(0.25, 0.0), (-0.25, 0.25), (0.0, -0.375), (0.125, 0.125)]       # x, y, px
        for index, ctf in enumerate(ctfs):
            particles = [
                Particle(number + 1, (y - origins[2 * index + number][1], x - origins[2 * index + number][0]),
                         height, *cls.angles[2 * index + number], volume_index=index * (1 - number),
                         random_subset=number + 1)
                for number, (x, y, height) in enumerate(((5, 6, 0.0), (7, 8, 100.0)))]
            hidden = Particle(3, (10.0, 10.0), 0.0, 0.0, 0.0, 0.0, visible_fraction=0.1)
            record = Micrograph(index, f'm_{index + 1:05d}', (20, 30), cls.PIXEL_SIZE, ctf, 0, (False, False), 1.0,
                                0.0, 1.0, (particles[0], hidden, particles[1]))
            write_json(folder / 'records' / f'{record.name}.json', {'record': record.to_json(), 'checksums': {}})
            mrcfile.write(folder / 'micrographs' / f'{record.name}.mrc', np.zeros((20, 30), np.float32),
                          voxel_size=cls.PIXEL_SIZE)
        with mrcfile.new(folder / 'particles.mrcs', np.zeros((4, 12, 12), np.float32)) as file:
            file.set_image_stack()

    @classmethod
    def readSets(cls):
        def getPath(name):
            return os.path.join(cls.folder, name)
        mics, ctfs = SetOfMicrographs(filename=getPath('m.sqlite')), SetOfCTF(filename=getPath('ctf.sqlite'))
        coordinates = SetOfCoordinates(filename=getPath('c.sqlite'))
        particles = SetOfParticles(filename=getPath('p.sqlite'))
        mics.setSamplingRate(cls.PIXEL_SIZE)
        particles.setSamplingRate(cls.PIXEL_SIZE)
        particles.setAlignmentProj()
        records = list(outputs.readFinished(cls.folder, 'm', 0, 10))
        for record in records:
            outputs.appendMicrograph(record, cls.folder, mics, coordinates, ctfs)
        outputs.fillParticles(particles, records, cls.folder, 'particles.mrcs')
        for one in (mics, ctfs, coordinates, particles):
            one.write()
            one.close()
        cls.mics = readItems(SetOfMicrographs, getPath('m.sqlite'))
        cls.ctfs = readItems(SetOfCTF, getPath('ctf.sqlite'))
        cls.coordinates = readItems(SetOfCoordinates, getPath('c.sqlite'))
        cls.particles = readItems(SetOfParticles, getPath('p.sqlite'))

    def test_micrographs_carry_name_file_and_pixel_size(self):
        self.assertEqual([mic.getMicName() for mic in self.mics], ['m_00001.mrc', 'm_00002.mrc'])
        for mic in self.mics:
            self.assertTrue(os.path.exists(mic.getFileName()))
            self.assertEqual(mic.getSamplingRate(), self.PIXEL_SIZE)

    def test_ctfs_have_the_id_of_their_micrograph_and_keep_the_phase_shift_of_all(self):
        names = [(ctf.getObjId(), ctf.getMicrograph().getMicName()) for ctf in self.ctfs]
        self.assertEqual(names, [(1, 'm_00001.mrc'), (2, 'm_00002.mrc')])
        self.assertEqual([ctf.getDefocus() for ctf in self.ctfs], [(21000, 20000, 170), (18000, 17000, 3.5)])
        self.assertEqual([ctf.getPhaseShift() for ctf in self.ctfs], self.phaseShifts)

    def test_coordinates_know_id_and_name_of_their_micrograph(self):
        found = [(one.getPosition(), one.getMicId(), one.getMicName()) for one in self.coordinates]
        self.assertEqual(found, [((5, 6), 1, 'm_00001.mrc'), ((7, 8), 1, 'm_00001.mrc'),
                                 ((5, 6), 2, 'm_00002.mrc'), ((7, 8), 2, 'm_00002.mrc')])

    def test_particles_carry_the_pose_of_the_table(self):
        from cryogem.conventions import euler_to_matrix
        for particle, angles in zip(self.particles, self.angles, strict=True):
            forward = np.linalg.inv(particle.getTransform().getMatrix())
            np.testing.assert_allclose(forward[:3, :3], euler_to_matrix(angles), atol=1e-6)
        forward = np.linalg.inv(self.particles[0].getTransform().getMatrix())
        np.testing.assert_allclose(forward[:3, 3], (-0.25, 0, 0), atol=1e-6)

    def test_particles_carry_stack_place_ctf_class_and_subset(self):
        last = self.particles[-1]
        self.assertEqual(last.getLocation(), (4, os.path.join(self.folder, 'particles.mrcs')))
        self.assertEqual(last.getCoordinate().getMicId(), 2)
        self.assertEqual((last.getCTF().getDefocusU(), last.getCTF().getPhaseShift()), (18100, 90))
        self.assertEqual([one._rlnRandomSubset.get() for one in self.particles], [1, 2, 1, 2])
        self.assertEqual([one.getClassId() for one in self.particles], [1, 1, 2, 1])

    def test_reading_stops_at_the_first_micrograph_that_is_not_finished(self):
        os.rename(os.path.join(self.folder, 'records', 'm_00001.json'), os.path.join(self.folder, 'kept'))
        try:
            self.assertEqual(list(outputs.readFinished(self.folder, 'm', 0, 10)), [])
            self.assertEqual([one.index for one in outputs.readFinished(self.folder, 'm', 1, 10)], [1])
        finally:
            os.rename(os.path.join(self.folder, 'kept'), os.path.join(self.folder, 'records', 'm_00001.json'))

    def test_half_pixel_coordinates_are_rounded_not_truncated(self):
        self.assertEqual(outputs.makeCoordinate(10.7, 3.2, self.mics[0]).getPosition(), (11, 3))


class TestAcquisition(unittest.TestCase):
    """Optics groups of the real micrographs must not describe ours."""

    def test_a_copy_has_the_microscope_but_no_optics_groups(self):
        source = Acquisition(voltage=200.0, sphericalAberration=2.0, amplitudeContrast=0.07, magnification=50000)
        source.opticsGroupInfo.set('stale')
        copied = outputs.copyAcquisition(source)
        self.assertEqual((copied.getVoltage(), copied.getMagnification()), (200, 50000))
        self.assertIsNone(copied.opticsGroupInfo.get())
        self.assertEqual(source.opticsGroupInfo.get(), 'stale')
