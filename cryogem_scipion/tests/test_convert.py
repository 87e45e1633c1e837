"""The border between Scipion and the engine: sets become files without losing a number."""

import os
import shutil
import tempfile
import unittest
from pathlib import Path

import mrcfile
import numpy as np
from pwem.objects import Acquisition, Coordinate, CTFModel, Micrograph, SetOfCTF, Volume

from cryogem.io.star import read_coordinates, read_tables
from cryogem_scipion import convert


class TestDiskUse(unittest.TestCase):
    """What a run takes on disk, and what of it is not needed once it is finished."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='cryogem_disk_')
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name, 'extra')
        for name, size in (('real/kept', 0), ('set/clean/a', 3 << 20), ('set/micrographs/a', 6 << 20),
                           ('copies/b', 99)):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b'x' * size)
        (self.root / 'copies' / 'link').symlink_to(self.root / 'set' / 'micrographs' / 'a')

    def test_a_run_says_what_it_takes_on_disk_and_what_most_of_it_is(self):
        self.assertEqual(convert.describeDiskUse(str(self.root)),
                         'Disk space: *9.0 MB*, of it micrographs 6.0 MB, clean 3.0 MB')
        self.assertEqual(convert.describeDiskUse(str(self.root / 'set' / 'clean')), 'Disk space: *3.0 MB*')

    def test_what_will_be_removed_is_not_counted(self):
        without = [str(self.root / 'set' / 'micrographs'), str(self.root / 'set' / 'clean' / 'a')]
        self.assertNotIn('MB', convert.describeDiskUse(str(self.root), without))

    def test_copies_are_removed_and_links_stay(self):
        paths = [str(self.root / name) for name in ('copies', 'set/clean/a', 'nowhere')]
        self.assertEqual(convert.removeCopies(paths), 99 + (3 << 20))
        left = {str(path.relative_to(self.root)) for path in self.root.rglob('*') if not path.is_dir()}
        self.assertEqual(left, {'copies/link', 'real/kept', 'set/micrographs/a'})
        self.assertTrue((self.root / 'copies' / 'link').exists())


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
