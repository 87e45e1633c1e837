"""Outputs grow while the engine runs; Continue gives what the form says, whatever happened before."""

import json
import os
import resource
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import mrcfile
import numpy as np
import psutil
from pwem.objects import Acquisition, SetOfCoordinates, SetOfCTF, SetOfMicrographs
from pwem.protocols import EMProtocol
from pyworkflow.mapper.sqlite_db import SqliteDb
from pyworkflow.object import RELATION_SOURCE, Set
from pyworkflow.protocol import MODE_RESUME, params
from pyworkflow.tests import BaseTest, setupTestProject

from cryogem.io.files import read_json, write_json
from cryogem.io.star import read_tables
from cryogem.records import Ctf, Micrograph, Particle
from cryogem_scipion.engine import CryogemJobError
from cryogem_scipion.protocols import ProtCryogemGenerate, protocol_micrographs
from cryogem_scipion.tests.in_process import InProcess, updateFromDisk
from cryogem_scipion.tests.marks import slow
from cryogem_scipion.tests.test_chain import ChainTest

_PATIENCE = 900                                         # s to wait for what must happen: test machines may be busy

# Named sitecustomize.py on PYTHONPATH, it lets the engine finish so many micrographs and then wait.
_HOLD = """
import os, sys, threading

if 'cryogem' in sys.orig_argv and 'generate' in sys.orig_argv:
    replace, records = os.replace, []

    def replaceAndHold(source, target):
        replace(source, target)
        if os.path.basename(os.path.dirname(target)) == 'records':
            records.append(target)
            if len(records) == {number}:
                threading.Event().wait()
    os.replace = replaceAndHold
"""


class Waiting(EMProtocol):
    """A protocol that needs all micrographs before it starts."""

    def _defineParams(self, form):
        form.addSection('Input')
        form.addParam('inputMicrographs', params.PointerParam, pointerClass='SetOfMicrographs', label='x')


class Streaming(Waiting):
    """A protocol that takes micrographs as they come."""

    def _stepsCheck(self):
        self.info('looking for more')       # Scipion knows streaming by a body of its own


@contextmanager
def countStatements():
    """Give a list whose one number becomes the count of SQL statements that sets execute in the block."""
    counted, make = [0], SqliteDb._createConnection

    def count(statement):
        counted[0] += 1

    def makeCounted(self, *args):
        make(self, *args)
        self.connection.set_trace_callback(count)

    with mock.patch.object(SqliteDb, '_createConnection', makeCounted):
        yield counted


def waitUntil(isTrue, what: str) -> None:
    """Wait for something that happens in another thread or process."""
    end = time.monotonic() + _PATIENCE
    while not isTrue():
        if time.monotonic() > end:
            raise AssertionError(f'{what} did not happen')
        time.sleep(0.05)


class TestCryogemStreaming(InProcess, ChainTest):
    """Generate runs of one simulation: what can be seen while they go on, and what Continue makes of them."""

    @classmethod
    def setUpClass(cls):
        cls.prepareSimulation()
        cls.finished = cls.newGenerate('measured', nMicrographs=3, seed=1)
        cls.launchProtocol(cls.finished)

    def newRun(self, number, **values):
        return self.newGenerate('measured', nMicrographs=number, **values)

    def continueRun(self, protocol, **values):
        for name, value in values.items():
            getattr(protocol, name).set(value)
        protocol.runMode.set(MODE_RESUME)
        self.launchProtocol(protocol)

    def checkOutputs(self, protocol, number):
        """The sets are closed and agree with each other, with the files and with the manifest, item by item."""
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        manifest = read_json(Path(protocol.getOutputFolder(), 'manifest.json'), '')
        self.assertEqual([mic.getMicName() for mic in protocol.outputMicrographs],
                         [f'{name}.mrc' for name in manifest['micrographs']])
        self.assertEqual([mic.getObjId() for mic in protocol.outputMicrographs], list(range(1, number + 1)))
        self.assertEqual([ctf.getObjId() for ctf in protocol.outputCTF], list(range(1, number + 1)))
        self.assertEqual(len([one.getObjId() for one in protocol.outputCoordinates]), manifest['n_particles'])
        self.assertEqual(protocol.outputCoordinates.getBoxSize(), manifest['box_size'])
        for mic in protocol.outputMicrographs:
            self.assertTrue(os.path.exists(mic.getFileName()))
        for name, output in protocol.iterOutputAttributes():
            if isinstance(output, Set):
                self.assertTrue(output.isStreamClosed(), name)
        for name in ('outputMicrographs', 'outputCoordinates', 'outputCTF'):
            self.assertEqual(getattr(protocol, name).getSize(), len([1 for _ in getattr(protocol, name)]), name)
            getattr(protocol, name).close()

    def countRelations(self, protocol):
        return len(protocol.mapper.getRelationsByCreator(protocol))

    def replay(self, number, watch, failure=None):
        """Return a stand-in for the engine: the finished run appears file by file, `watch` is called after each."""
        def run(protocol, command, values):
            source, target = self.finished.getOutputFolder(), values['output']
            names = read_json(Path(source, 'manifest.json'), '')['micrographs']
            shutil.copytree(source, target, ignore=shutil.ignore_patterns('*_000*', '*.star', 'manifest.json'))
            for index, old in enumerate(names[:number]):
                new = f'{values["prefix"]}_{index + 1:05d}'
                for folder, ending in (('micrographs', '.mrc'), ('records', '.json')):
                    text = Path(source, folder, old + ending).read_bytes()
                    text = text.replace(old.encode(), new.encode()) if ending == '.json' else text
                    Path(target, folder, new + ending).write_bytes(text)
                watch(protocol, index + 1)
            if failure:
                raise failure
        return run

    def runReplay(self, protocol, *args, **kwargs):
        with mock.patch.object(protocol_micrographs, '_INTERVAL', 0.02), \
                mock.patch.object(protocol_micrographs, 'runCryogem', self.replay(*args, **kwargs)):
            self.launchProtocol(protocol)

    def test_sets_grow_in_order_and_stay_open_while_the_engine_runs(self):
        seen = []

        def watch(running, number):
            waitUntil(lambda: running._countRegistered() == number, f'registration of micrograph {number}')
            with running._lock:
                folder = running._getPath()
            kinds = (SetOfMicrographs, SetOfCTF, SetOfCoordinates)
            files = ('micrographs.sqlite', 'ctf.sqlite', 'coordinates.sqlite')
            sets = [kind(filename=os.path.join(folder, name)) for kind, name in zip(kinds, files, strict=True)]
            seen.append([one.getSize() for one in sets[:2]])
            self.assertEqual(sets[0].getProperty('_streamState'), str(Set.STREAM_OPEN))
            mics = {one.getMicId() for one in sets[2]}
            self.assertEqual(mics, set(range(1, number + 1)))
            updateFromDisk(self.proj, protocol)                         # as the window of the project does
            self.assertTrue(protocol.isActive())
            self.assertTrue(protocol.outputMicrographs.isStreamOpen())
            self.assertIn(f'*{number}* of 3 micrographs so far', protocol.summary())
            for kind, mustWait in ((Waiting, True), (Streaming, False)):
                consumer = self.newProtocol(kind)
                self.linkInput(consumer, 'inputMicrographs', protocol, 'outputMicrographs')
                self.assertEqual(consumer.getInputStatus(), (False, mustWait, False), kind)

        protocol = self.newRun(3, seed=1)
        with self.assertRaisesRegex(RuntimeError, 'no readable manifest.json'):
            # the stand-in writes no manifest, which particles need
            protocol.particles.set(2)
            self.runReplay(protocol, 3, watch)
        self.assertEqual(seen, [[1, 1], [2, 2], [3, 3]])
        self.assertTrue(protocol.outputMicrographs.isStreamClosed())

    def test_a_failure_leaves_what_was_finished_in_closed_sets_and_continue_makes_the_rest(self):
        protocol = self.newRun(3, seed=1)
        with self.assertRaisesRegex(RuntimeError, 'the disk is full; make room'):
            self.runReplay(protocol, 2, lambda *_: None, CryogemJobError('the disk is full; make room'))
        self.assertEqual(protocol.outputMicrographs.getSize(), 2)
        self.assertEqual(protocol.outputCTF.getSize(), 2)
        for name, output in protocol.iterOutputAttributes():
            self.assertTrue(output.isStreamClosed(), name)
        shutil.rmtree(protocol.getOutputFolder())                       # the stand-in's files are not whole
        self.continueRun(protocol)
        self.checkOutputs(protocol, 3)

    def test_what_could_not_be_registered_is_not_half_registered(self):
        calls = []

        def fail(record, *args):
            calls.append(record.index)
            if record.index == 1:
                raise OSError(28, 'No space left on device')
            return append(record, *args)

        append, protocol = protocol_micrographs.appendMicrograph, self.newRun(3, seed=1)
        with mock.patch.object(protocol_micrographs, '_BATCH', 1), \
                mock.patch.object(protocol_micrographs, 'appendMicrograph', fail), \
                mock.patch('threading.excepthook'), \
                self.assertRaisesRegex(RuntimeError, 'No space left on device; check'):
            self.launchProtocol(protocol)
        self.assertIn(1, calls)
        self.assertEqual([protocol.outputMicrographs.getSize(), protocol.outputCTF.getSize()], [1, 1])
        self.continueRun(protocol)
        self.checkOutputs(protocol, 3)

    def test_more_and_fewer_micrographs_keep_what_both_have_and_show_what_is_asked_for(self):
        protocol = self.newRun(2, particles=2)
        self.launchProtocol(protocol)
        relations, size = self.countRelations(protocol), protocol.outputParticles.getSize()
        first = protocol.outputMicrographs.getFirstItem().getFileName()
        before = os.stat(first)
        self.continueRun(protocol, nMicrographs=3)
        self.checkOutputs(protocol, 3)
        self.assertGreater(protocol.outputParticles.getSize(), size)
        self.continueRun(protocol, nMicrographs=2)
        self.checkOutputs(protocol, 2)
        self.assertEqual(protocol.outputParticles.getSize(), size)
        self.assertEqual(os.stat(first), before)
        self.assertEqual(self.countRelations(protocol), relations)

    def test_any_other_change_makes_all_anew_and_takes_back_what_is_no_longer_asked_for(self):
        protocol = self.newRun(1, particles=2)
        self.launchProtocol(protocol)
        first = protocol.outputMicrographs.getFirstItem().getFileName()
        before, related = Path(first).read_bytes(), self.getRelated(protocol, RELATION_SOURCE)
        self.assertIn(('outputMicrographs', 'outputParticles'), related)
        self.continueRun(protocol, seed=11, particles=0)
        self.checkOutputs(protocol, 1)
        self.assertNotEqual(Path(first).read_bytes(), before)
        self.assertFalse(hasattr(protocol, 'outputParticles'))
        related = self.getRelated(protocol, RELATION_SOURCE)
        self.assertEqual([child for _, child in related if child == 'outputParticles'], [])

    @slow
    def test_output_in_the_pixels_of_the_real_micrographs_is_registered_as_such(self):
        coarse = self.runSimulate(nMicrographs=1, workingPixelSize=8.0)
        protocol = self.newRun(1, particles=2, outputSampling=1, pixelType=1, formats='none')
        self.linkInput(protocol, 'inputSimulation', coarse, 'outputSimulation')
        self.launchProtocol(protocol)
        self.checkOutputs(protocol, 1)
        real, mics = self.importMics.outputMicrographs, protocol.outputMicrographs
        self.assertEqual(coarse.outputMicrographs.getSamplingRate(), 8.0)
        self.assertEqual((mics.getSamplingRate(), mics.getDim()), (real.getSamplingRate(), real.getDim()))
        self.assertEqual(mrcfile.read(mics.getFirstItem().getFileName()).dtype, np.float16)
        self.assertEqual(os.path.exists(os.path.join(protocol.getOutputFolder(), 'coordinates.txt')), False)
        particles, folder = protocol.outputParticles, protocol.getOutputFolder()
        table = read_tables(Path(folder, 'particles.star'))
        self.assertEqual(particles.getSamplingRate(), float(table['optics']['rlnImagePixelSize'].iloc[0]))
        self.assertEqual([one.getCoordinate().getPosition() for one in particles],
                         list(zip(table['particles']['rlnCoordinateX'], table['particles']['rlnCoordinateY'],
                                  strict=True)))

    @slow
    def test_after_stop_and_after_kill_continue_ends_as_an_uninterrupted_run(self):
        n = 60
        whole = self.newRun(n, seed=3)
        self.launchProtocol(whole)
        for end in (self.stop, self.kill):
            protocol = self.newRun(n, seed=3)
            with self.holdEngine(n // 2):
                self.proj.launchProtocol(protocol, wait=False)
                waitUntil(lambda run=protocol: self.hasSome(run), 'the first micrograph')
                end(protocol)
            self.assertFalse(protocol.isFinished())
            self.assertTrue(0 < protocol.outputCTF.getSize() <= n // 2, protocol.outputCTF.getSize())
            for name, output in protocol.iterOutputAttributes():
                self.assertTrue(output.isStreamClosed(), name)
            self.continueRun(protocol)
            self.checkOutputs(protocol, n)
            self.assertEqual(self.readAll(protocol), self.readAll(whole))

    @contextmanager
    def holdEngine(self, number):
        """Let a run that is launched and ended in the block make so many micrographs and no more."""
        with tempfile.TemporaryDirectory(prefix='cryogem_hooks_') as hooks:
            Path(hooks, 'sitecustomize.py').write_text(_HOLD.format(number=number), encoding='ascii')
            path = os.pathsep.join(filter(None, (hooks, os.environ.get('PYTHONPATH'))))
            with mock.patch.dict(os.environ, PYTHONPATH=path):
                yield

    def hasSome(self, protocol):
        updateFromDisk(self.proj, protocol)
        return hasattr(protocol, 'outputCTF')

    def stop(self, protocol):
        self.proj.stopProtocol(protocol)
        self.assertTrue(protocol.isAborted())

    def kill(self, protocol):
        """As a node that dies: nobody closes anything, and the window sees it later."""
        process = psutil.Process(protocol.getPid())
        for one in (process, *process.children(recursive=True)):        # first the one that would tell of the others
            with suppress(psutil.NoSuchProcess):
                one.kill()
        # until the shell that started it has seen its end, Scipion takes it for alive
        waitUntil(lambda: not psutil.pid_exists(process.pid), 'its end')
        self.proj.checkIsAlive(protocol)
        updateFromDisk(self.proj, protocol)

    def readAll(self, protocol):
        """Return micrographs, positions and CTFs, without the names that differ between runs."""
        return ([Path(mic.getFileName()).read_bytes()[1024:] for mic in protocol.outputMicrographs],
                [(one.getMicId(), *one.getPosition()) for one in protocol.outputCoordinates],
                [ctf.getDefocus() for ctf in protocol.outputCTF])


class TestCryogemLargeSets(BaseTest):
    """Sets of a size that a facility makes, registered from the records alone: the images are one stub."""

    PARTICLES = 100
    ROUNDS = (2500, 5000, 7500, 10000)

    @classmethod
    def setUpClass(cls):
        start = os.getcwd()
        cls.addClassCleanup(os.chdir, start)
        setupTestProject(cls)

    @slow
    def test_a_million_coordinates_register_with_constant_cost_each_and_bounded_memory(self):
        protocol = self.newProtocol(ProtCryogemGenerate, nMicrographs=self.ROUNDS[-1])
        self.proj.saveProtocol(protocol)
        protocol.makeWorkingDir()
        folder, statements, peaks, written = protocol.getOutputFolder(), [], [], 0
        for name in ('micrographs', 'records'):
            os.makedirs(os.path.join(folder, name))
        write_json(Path(folder, 'outline.json'), {'box_size': 48})
        with mock.patch.object(protocol, '_getSources', return_value=[]), \
                mock.patch.object(protocol, '_getAcquisition', return_value=Acquisition(voltage=300)):
            for number in self.ROUNDS:
                self.writeRecords(protocol, written, number)
                written = number
                with countStatements() as counted:
                    self.assertEqual(protocol._registerFinished(), number)
                statements.append(counted[0])
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        sizes = [getattr(protocol, name).getSize() for name in ('outputMicrographs', 'outputCTF', 'outputCoordinates')]
        self.assertEqual(sizes, [10000, 10000, 1000000])
        last = protocol.outputCoordinates[1000000]
        self.assertEqual((last.getMicId(), last.getPosition()), (10000, (109, 21)))
        # each quarter takes as many statements as the one before, and memory does not grow with what is there
        self.assertLess(max(statements), 1.01 * min(statements))
        self.assertLess(peaks[-1] - peaks[0], 64, peaks)

    def writeRecords(self, protocol, start, stop):
        particles = tuple(Particle(k + 1, (12.25 + k % 10, 10.0 + k), 1.5 * k, 10.0, 20.0, 30.0)
                          for k in range(self.PARTICLES))
        for index in range(start, stop):
            record = Micrograph(index, f'{protocol._getPrefix()}_{index + 1:05d}', (256, 256), 3.0,
                                Ctf(20000.0, 19000.0, 30.0), 0, (False, False), 1.0, 0.0, 1.0, particles)
            path = Path(protocol.getOutputFolder(), 'records', f'{record.name}.json')
            path.write_text(json.dumps({'record': record.to_json(), 'checksums': {}}), encoding='utf-8')
        first = Path(protocol.getOutputFolder(), 'micrographs', f'{protocol._getPrefix()}_00001.mrc')
        if not first.exists():              # Scipion asks the first for its size
            mrcfile.write(first, np.zeros((256, 256), np.float32))
