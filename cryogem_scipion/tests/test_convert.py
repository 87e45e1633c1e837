"""The border between Scipion and the engine: sets become files and files become sets without losing a number."""

import os
import shutil
import tempfile
import unittest
from pathlib import Path

import mrcfile
import numpy as np
from pwem.objects import (
    Acquisition,
    Coordinate,
    CTFModel,
    Micrograph,
    SetOfCoordinates,
    SetOfCTF,
    SetOfMicrographs,
    SetOfParticles,
    Volume,
)

from cryogem.io.star import read_coordinates, read_tables, write_tables
from cryogem_scipion import convert


def readItems(setClass, path: str) -> list:
    """Return copies of the items of a set on disk, in order."""
    itemSet = setClass(filename=path)                   # named: it closes its file when it is collected
    return [item.clone() for item in itemSet]


class TestPoses(unittest.TestCase):
    """Scipion keeps inv([R | t]) with x_image = R x_volume + t."""

    def makeMatrix(self, rot=0.0, tilt=0.0, psi=0.0, originX=0.0, originY=0.0):
        row = {'rlnAngleRot': rot, 'rlnAngleTilt': tilt, 'rlnAnglePsi': psi,
               'rlnOriginXAngst': originX, 'rlnOriginYAngst': originY}
        return convert.makeTransform(row, pixelSize=2.0).getMatrix()

    def test_pose_without_rotation_moves_by_the_origin_in_pixels(self):
        expected = np.eye(4)
        expected[:2, 3] = (1.5, -2.0)                   # the inverse of t = -origin / pixel size
        np.testing.assert_allclose(self.makeMatrix(originX=3.0, originY=-4.0), expected, atol=1e-12)

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


class TestSets(unittest.TestCase):
    """Sets written to disk and read back."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='cryogem_convert_')
        self.addCleanup(shutil.rmtree, self.folder)

    def getPath(self, *parts: str) -> str:
        return os.path.join(self.folder, *parts)

    def makeMicrographs(self, names: tuple[str, ...], ids: tuple[int, ...] = ()) -> list[Micrograph]:
        mics = []
        for number, name in enumerate(names):
            path = self.getPath(f'file_{number}.mrc')
            mrcfile.write(path, np.zeros((6, 8), np.float32), overwrite=True)
            mic = Micrograph()
            mic.setObjId(ids[number] if ids else number + 1)
            mic.setLocation(path)
            mic.setMicName(name)
            mics.append(mic)
        return mics

    def makeCoordinate(self, x: int, y: int, name: str | None, micId: int) -> Coordinate:
        coordinate = Coordinate(x=x, y=y)
        coordinate.setMicName(name)
        coordinate.setMicId(micId)
        return coordinate

    def makeCtf(self, mic: Micrograph | None, objId: int, phaseShift: float | None = None) -> CTFModel:
        ctf = CTFModel()
        ctf.setStandardDefocus(21000.0 + objId, 20000.0, 30.0)
        if phaseShift is not None:
            ctf.setPhaseShift(phaseShift)
        if mic is not None:
            ctf.setMicrograph(mic)
        ctf.setObjId(objId)
        return ctf

    def test_micrographs_are_linked_under_their_own_unique_names(self):
        mics = self.makeMicrographs(('a b.mrc', 'a_b.mrc', 'plain.tif'), ids=(4, 7, 9))
        linked = convert.linkMicrographs(mics, self.getPath('real'))
        self.assertEqual([os.path.basename(one.path) for one in linked], ['a_b.mrc', 'a_b_7.mrc', 'plain.mrc'])
        for one, mic in zip(linked, mics, strict=True):
            self.assertTrue(os.path.samefile(one.path, mic.getFileName()))

    def test_linking_again_leaves_nothing_of_the_links_before(self):
        convert.linkMicrographs(self.makeMicrographs(('a', 'b')), self.getPath('real'))
        convert.linkMicrographs(self.makeMicrographs(('c',)), self.getPath('real'))
        self.assertEqual(os.listdir(self.getPath('real')), ['c.mrc'])

    def test_a_format_the_engine_does_not_read_is_converted_to_mrc(self):
        from pwem.emlib.image import ImageHandler
        mic = self.makeMicrographs(('a',))[0]
        image = np.arange(48, dtype=np.float32).reshape(6, 8)
        mrcfile.write(mic.getFileName(), image, overwrite=True)
        spider = self.getPath('a.spi')
        ImageHandler().convert(mic.getFileName(), spider)
        mic.setLocation(spider)
        linked = convert.linkMicrographs([mic], self.getPath('real'))
        self.assertEqual(os.path.basename(linked[0].path), 'a.mrc')
        np.testing.assert_array_equal(np.squeeze(mrcfile.read(linked[0].path)), image)

    def test_picks_follow_the_name_of_the_micrograph_not_its_id(self):
        mics = self.makeMicrographs(('a', 'b'), ids=(1, 2))
        picks = [self.makeCoordinate(1, 2, 'b', 1), self.makeCoordinate(3, 4, 'unknown', 1),
                 self.makeCoordinate(5, 6, None, 1)]
        self.assertEqual(convert.groupCoordinates(picks, mics), {2: [(1, 2)], 1: [(5, 6)]})

    def test_picks_are_written_in_pixels_of_the_linked_micrographs(self):
        linked = convert.linkMicrographs(self.makeMicrographs(('a', 'b')), self.getPath('real'))
        number = convert.writeCoordinates({1: [(10, 20), (30, 40)]}, linked, 0.5, self.getPath('picks'))
        self.assertEqual(number, 2)
        np.testing.assert_allclose(read_coordinates(Path(self.getPath('picks', 'a.star'))), [(10, 5), (20, 15)])
        self.assertEqual(len(read_coordinates(Path(self.getPath('picks', 'b.star')))), 0)

    def test_ctfs_survive_the_way_to_a_star_file(self):
        mics = self.makeMicrographs(('a', 'b', 'c'))
        linked = convert.linkMicrographs(mics, self.getPath('real'))
        ctfs = [self.makeCtf(mics[1], 1, phaseShift=90.0), self.makeCtf(None, 3)]
        acquisition = Acquisition(voltage=200.0, sphericalAberration=2.0, amplitudeContrast=0.07)
        number = convert.writeCtfs(ctfs, linked, acquisition, 1.25, self.getPath('ctfs.star'))
        tables = read_tables(Path(self.getPath('ctfs.star')))
        self.assertEqual(number, 2)
        self.assertEqual(list(tables['micrographs']['rlnMicrographName']), ['b.mrc', 'c.mrc'])
        np.testing.assert_allclose(tables['micrographs']['rlnDefocusU'], (21001, 21003))
        np.testing.assert_allclose(tables['micrographs']['rlnPhaseShift'], (90, 0))
        self.assertEqual(float(tables['optics']['rlnVoltage'].iloc[0]), 200.0)

    def test_ctfs_are_matched_after_a_set_was_written_and_read(self):
        mics = self.makeMicrographs(('a', 'b'))
        ctfSet = SetOfCTF(filename=self.getPath('ctfs.sqlite'))
        for number, mic in enumerate(reversed(mics), 1):
            ctf = self.makeCtf(None, number)
            ctf.setMicrograph(mic)
            ctfSet.append(ctf)
        ctfSet.write()
        ctfSet.close()
        matched = convert.matchCtfs(SetOfCTF(filename=self.getPath('ctfs.sqlite')), mics)
        self.assertEqual({key: ctf.getDefocusU() for key, ctf in matched.items()}, {2: 21001, 1: 21002})

    def test_a_map_gets_the_pixel_size_of_scipion_in_its_header(self):
        path = self.getPath('map.mrc')
        density = np.random.default_rng(1).normal(size=(8, 8, 8)).astype(np.float32)
        mrcfile.write(path, density, voxel_size=1.0)
        volume = Volume()
        volume.setLocation(path)
        for pixelSize, isLink in ((1.0, True), (2.5, False)):
            volume.setSamplingRate(pixelSize)
            convert.exportVolumes([volume], self.getPath('maps'))
            text = convert.describeVolumes([0.25], self.getPath('maps'))[0]
            exported = text.removesuffix(':0.25')
            self.assertEqual(os.path.islink(exported), isLink)
            with mrcfile.open(exported) as file:
                np.testing.assert_array_equal(file.data, density)
                self.assertAlmostEqual(float(file.voxel_size.x), pixelSize, places=5)
        self.assertEqual(float(mrcfile.open(path).voxel_size.x), 1.0)


class TestOutputFolder(unittest.TestCase):
    """The tables of an output folder of the engine, read into sets."""

    PIXEL_SIZE = 2.0

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix='cryogem_output_')
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.names = ['micrographs/m_1.mrc', 'micrographs/m_2.mrc']
        cls.phaseShifts = [0.0, 90.0]
        random = np.random.default_rng(3)
        cls.angles = random.uniform((-180, 0, -180), (180, 180, 180), (4, 3))
        cls.writeFolder(Path(cls.folder))
        cls.readSets()

    @classmethod
    def writeFolder(cls, folder):
        for sub in ('micrographs', 'coordinates'):
            (folder / sub).mkdir()
        for name in cls.names:
            mrcfile.write(folder / name, np.zeros((20, 30), np.float32), voxel_size=cls.PIXEL_SIZE)
            write_tables(folder / 'coordinates' / (Path(name).stem + '.star'),
                         {'': {'rlnCoordinateX': [5, 7], 'rlnCoordinateY': [6, 8]}})
        ctf = {'rlnDefocusU': [21000.0, 18000.0], 'rlnDefocusV': [20000.0, 17000.0], 'rlnDefocusAngle': [170.0, 3.5],
               'rlnPhaseShift': cls.phaseShifts, 'rlnOpticsGroup': [1, 1]}
        optics = {'rlnOpticsGroup': [1], 'rlnMicrographPixelSize': [cls.PIXEL_SIZE]}
        write_tables(folder / 'micrographs.star', {'optics': optics,
                                                   'micrographs': {'rlnMicrographName': cls.names, **ctf}})
        double = {key: [value for value in values for _ in range(2)] for key, values in ctf.items()}
        particles = {
            'rlnImageName': [f'{index:06d}@particles.mrcs' for index in range(1, 5)],
            'rlnMicrographName': [name for name in cls.names for _ in range(2)],
            'rlnCoordinateX': [5, 7, 5, 7], 'rlnCoordinateY': [6, 8, 6, 8],
            'rlnOriginXAngst': [0.5, -0.5, 0.0, 0.25], 'rlnOriginYAngst': [0.0, 0.5, -0.75, 0.25],
            'rlnAngleRot': cls.angles[:, 0], 'rlnAngleTilt': cls.angles[:, 1], 'rlnAnglePsi': cls.angles[:, 2],
            'rlnRandomSubset': [1, 2, 1, 2], 'rlnClassNumber': [1, 1, 2, 1], **double}
        optics = {**optics, 'rlnImagePixelSize': [cls.PIXEL_SIZE], 'rlnImageSize': [12]}
        write_tables(folder / 'particles.star', {'optics': optics, 'particles': particles})
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
        byName = convert.fillMicrographs(mics, cls.folder)
        convert.fillCtfs(ctfs, byName, cls.folder)
        convert.fillCoordinates(coordinates, byName, cls.folder)
        convert.fillParticles(particles, byName, cls.folder, 'particles.star')
        for one in (mics, ctfs, coordinates, particles):
            one.write()
            one.close()
        cls.mics = readItems(SetOfMicrographs, getPath('m.sqlite'))
        cls.ctfs = readItems(SetOfCTF, getPath('ctf.sqlite'))
        cls.coordinates = readItems(SetOfCoordinates, getPath('c.sqlite'))
        cls.particles = readItems(SetOfParticles, getPath('p.sqlite'))

    def test_micrographs_carry_name_file_and_pixel_size(self):
        self.assertEqual([mic.getMicName() for mic in self.mics], ['m_1.mrc', 'm_2.mrc'])
        for mic in self.mics:
            self.assertTrue(os.path.exists(mic.getFileName()))
            self.assertEqual(mic.getSamplingRate(), self.PIXEL_SIZE)

    def test_ctfs_have_the_id_of_their_micrograph_and_keep_the_phase_shift_of_all(self):
        names = [(ctf.getObjId(), ctf.getMicrograph().getMicName()) for ctf in self.ctfs]
        self.assertEqual(names, [(1, 'm_1.mrc'), (2, 'm_2.mrc')])
        self.assertEqual([ctf.getDefocus() for ctf in self.ctfs], [(21000, 20000, 170), (18000, 17000, 3.5)])
        self.assertEqual([ctf.getPhaseShift() for ctf in self.ctfs], self.phaseShifts)

    def test_coordinates_know_id_and_name_of_their_micrograph(self):
        found = [(one.getPosition(), one.getMicId(), one.getMicName()) for one in self.coordinates]
        self.assertEqual(found, [((5, 6), 1, 'm_1.mrc'), ((7, 8), 1, 'm_1.mrc'),
                                 ((5, 6), 2, 'm_2.mrc'), ((7, 8), 2, 'm_2.mrc')])

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
        self.assertEqual((last.getCTF().getDefocusU(), last.getCTF().getPhaseShift()), (18000, 90))
        self.assertEqual([one._rlnRandomSubset.get() for one in self.particles], [1, 2, 1, 2])
        self.assertEqual([one.getClassId() for one in self.particles], [1, 1, 2, 1])

    def test_half_pixel_coordinates_are_rounded_not_truncated(self):
        self.assertEqual(convert.makeCoordinate(10.7, 3.2, self.mics[0]).getPosition(), (11, 3))


class TestAcquisition(unittest.TestCase):
    """Optics groups of the real micrographs must not describe ours."""

    def test_a_copy_has_the_microscope_but_no_optics_groups(self):
        source = Acquisition(voltage=200.0, sphericalAberration=2.0, amplitudeContrast=0.07, magnification=50000)
        source.opticsGroupInfo.set('stale')
        copied = convert.copyAcquisition(source)
        self.assertEqual((copied.getVoltage(), copied.getMagnification()), (200, 50000))
        self.assertIsNone(copied.opticsGroupInfo.get())
        self.assertEqual(source.opticsGroupInfo.get(), 'stale')
