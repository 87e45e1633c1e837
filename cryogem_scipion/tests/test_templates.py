"""Workflow templates: what is listed, and a whole workflow from one command without a display."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import TestCase, mock, skipIf

import pyworkflow as pw
from pwem.protocols import ProtImportVolumes
from pyworkflow.project import Project
from pyworkflow.template import LocalTemplate

import cryogem_scipion
from cryogem_scipion.tests.data import describeMicrographs, makeSyntheticData, writePicks
from cryogem_scipion.tests.downstream import findMissing, makeEnvironment
from cryogem_scipion.tests.in_process import InProcess
from cryogem_scipion.tests.marks import slow
from cryogem_scipion.tests.scheduled import SHORT_SLEEPS, waitForRuns
from cryogem_scipion.tests.test_chain import ChainTest

_PATIENCE = 1500                                        # s for all runs of a template
_FOLDER = Path(cryogem_scipion.__file__).parent / 'templates'
_LIST = ('import pyworkflow as pw; from pyworkflow.template import TemplateList; found = TemplateList(); '
         'found.addPluginTemplates(); print(*[one.getObjId() for one in found.templates])')


def fillDefaults(path: Path) -> list[dict]:
    """Return the nodes of a template with the default of each field, as Scipion fills them in."""
    template = LocalTemplate('cryogem', str(path))
    template.replaceEnvVariables()
    template.parseContent()
    template._replaceFields()
    return json.loads(''.join(template.getContent()))


def runWithScipion(arguments: list[str], environment: dict[str, str], timeout: float = 900) -> str:
    """Run Python and return what it wrote; a failure shows it.

    Into a file: runs that Scipion leaves behind hold on to a pipe.
    """
    with tempfile.TemporaryFile('w+', encoding='utf-8') as log:
        done = subprocess.run([sys.executable, *arguments], stdout=log, stderr=subprocess.STDOUT, timeout=timeout,
                              check=False, env=environment, stdin=subprocess.DEVNULL)
        log.seek(0)
        written = log.read()
    if done.returncode:
        raise AssertionError(written)
    return written


class TestCryogemTemplates(TestCase):
    """What stands in the templates."""

    def test_a_template_is_listed_where_all_its_protocols_are_installed(self):
        listed = runWithScipion(['-c', _LIST], {**os.environ, 'PYTHONPATH': ''}).splitlines()[-1].split()
        self.assertIn('cryogem-imitate-micrographs', listed)
        self.assertNotIn('cryogem-train-picker', listed)

    @skipIf(findMissing(), findMissing())
    def test_the_template_with_topaz_and_relion_is_listed_beside_them(self):
        with tempfile.TemporaryDirectory() as home:
            listed = runWithScipion(['-c', _LIST], makeEnvironment(Path(home))).splitlines()[-1].split()
        self.assertIn('cryogem-train-picker', listed)

    def test_our_nodes_name_parameters_and_outputs_that_exist(self):
        protocols = pw.Config.getDomain().getProtocols()
        for path in _FOLDER.glob('*.json.template'):
            nodes = {node['object.id']: node for node in fillDefaults(path)}
            for node in nodes.values():
                if node['object.className'] not in protocols:
                    continue
                protocol = protocols[node['object.className']]()
                for name, value in node.items():
                    if name.startswith('object.'):
                        continue
                    self.assertTrue(hasattr(protocol, name), f'{path.name}: {node["object.className"]}.{name}')
                    source = re.fullmatch(r'(\d+)\.(output\w+)', str(value))
                    if source and 'Cryogem' in nodes[source[1]]['object.className']:
                        outputs = protocols[nodes[source[1]]['object.className']]().getPossibleOutputs()
                        self.assertIn(source[2], outputs)

    def test_all_runs_follow_from_one_import(self):
        # of two, Scipion's script schedules all that follows from both twice, and so starts each run twice
        for path in _FOLDER.glob('*.json.template'):
            texts = {node['object.id']: json.dumps(node) for node in fillDefaults(path)}
            roots = [name for name, text in texts.items()
                     if not any(f'"{other}.output' in text for other in texts)]
            self.assertEqual(len(roots), 1, path.name)

    def test_every_field_has_a_title_of_its_own_and_an_alias(self):
        for path in _FOLDER.glob('*.json.template'):
            fields = [field.split('|') for field in path.read_text(encoding='ascii').split('~')[1::2]]
            titles = [field[0] for field in fields]
            self.assertEqual(len(titles), len(set(titles)), path.name)
            self.assertTrue(all(len(field) == 4 and field[3] for field in fields), path.name)


class TestCryogemWaiting(InProcess, ChainTest):
    """How the end of scheduled runs is waited for."""

    def test_a_run_that_ended_between_two_looks_of_scipion_is_not_taken_for_failed(self):
        self.prepareProject()
        specimen = makeSyntheticData(Path(self.folder), number=1, side=128)
        self.launchProtocol(self.newProtocol(ProtImportVolumes, filesPath=specimen.volume, samplingRate=4.0))
        update, looks = Project._updateProtocol, []

        def takeForKilled(project, run, *args, **kwargs):
            update(project, run, *args, **kwargs)
            looks.append(run)
            if len(looks) == 1:
                run.setFailed('Process 1 not found running on the machine.')
        with mock.patch.object(Project, '_updateProtocol', takeForKilled):
            run, = waitForRuns(self.proj.getShortName(), 60)
        self.assertEqual((run['status'], run['error']), ('finished', ''))
        self.assertEqual(run['outputs'], {'outputVolume': 1})


class ScheduledTest(TestCase):
    """Starts a template without a display and waits for what Scipion schedules; not a test of its own."""

    def schedule(self, template: str, fields: dict, environment: dict[str, str]) -> dict[str, dict]:
        """Return the runs of a template by their class, after the last has finished."""
        hooks = tempfile.TemporaryDirectory(prefix='cryogem_hooks_')
        self.addCleanup(hooks.cleanup)
        Path(hooks.name, 'sitecustomize.py').write_text(SHORT_SLEEPS, encoding='ascii')
        path = os.pathsep.join(filter(None, (hooks.name, environment.get('PYTHONPATH'))))
        name = type(self).__name__
        runWithScipion(['-m', 'scipion', 'template', template, '--nogui', f'project_name={name}',
                        *(f'{alias}={value}' for alias, value in fields.items())],
                       {**environment, 'PYTHONPATH': path})
        watched = runWithScipion(['-m', 'cryogem_scipion.tests.scheduled', name, str(_PATIENCE)], environment,
                                 timeout=_PATIENCE + 60)
        runs = json.loads(watched.splitlines()[-1])
        for run in runs:
            self.assertEqual(run['status'], 'finished', f'{run["class"]}: {run["error"]}\n{run["stderr"]}\n'
                             + ', '.join(f'{one["class"]} {one["status"]}' for one in runs))
            self.assertNotIn('Traceback', run['stderr'], run['class'])
            self.assertEqual(run['launches'], 1, run['class'])
        return {run['class']: run for run in runs}

    def describeData(self, number: int, side: int) -> dict:
        """Return the fields of a template that name data, synthetic ones, and keep everything small."""
        folder = tempfile.TemporaryDirectory(prefix='cryogem_template_')
        self.addCleanup(folder.cleanup)
        specimen = makeSyntheticData(Path(folder.name), number=number, side=side)
        picks = os.path.join(folder.name, 'picks.sqlite')
        writePicks(picks, specimen.picks, describeMicrographs(specimen.micrographs), specimen.boxSize)
        return {'map': specimen.volume, 'map_sr': 4.0, 'mics': specimen.micrographs, 'sr': 4.0, 'voltage': 300,
                'cs': 2.7, 'q0': 0.1, 'picks': picks, 'picks_format': 5, 'box': specimen.boxSize, 'simulated': 2,
                'threads': 1, 'steps': 2, 'repetitions': 1, 'controls': 'false'}

    def checkImitation(self, runs: dict[str, dict], generated: int):
        """What both templates make."""
        self.assertEqual(runs['ProtCryogemSimulate']['outputs']['outputMicrographs'], 2)
        self.assertIn('outputModel', runs['ProtCryogemTrain']['outputs'])
        self.assertEqual(runs['ProtCryogemGenerate']['outputs']['outputMicrographs'], generated)
        self.assertGreater(runs['ProtCryogemGenerate']['outputs']['outputCoordinates'], 2 * generated)
        self.assertIn('outputEvaluation', runs['ProtCryogemEvaluate']['outputs'])


@slow
class TestCryogemTemplateRun(ScheduledTest):
    """`scipion template` makes a project whose runs Scipion's own schedulers start and finish."""

    def test_the_whole_workflow_runs_from_one_command(self):
        fields = {**self.describeData(2, 320), 'generated': 2}
        runs = self.schedule('cryogem-imitate-micrographs', fields, {**os.environ, 'PYTHONPATH': ''})
        self.assertEqual(len(runs), 7)
        self.checkImitation(runs, 2)


@slow
@skipIf(findMissing(), findMissing())
class TestCryogemPickerTemplateRun(ScheduledTest):
    """The same with Topaz and Relion behind it."""

    def test_the_workflow_goes_on_to_classes_of_what_topaz_picked_on_the_real_micrographs(self):
        home = tempfile.TemporaryDirectory(prefix='cryogem_programs_')
        self.addCleanup(home.cleanup)
        fields = {**self.describeData(3, 320), 'generated': 5, 'epochs': 1, 'scale': 1, 'topaz_mics': 5,
                  'topaz_options': '--num-particles -1 --method PN --pi 0.02 --epoch-size 60 --minibatch-size 32',
                  'pick_scale': 1, 'radius': 12,
                  'threshold': -6, 'classes': 2, 'mask': 150, 'iterations': 1}
        runs = self.schedule('cryogem-train-picker', fields, makeEnvironment(Path(home.name)))
        self.assertEqual(len(runs), 11)
        self.checkImitation(runs, 5)
        picked = runs['TopazProtPicking']['outputs']['outputCoordinates']
        self.assertGreater(picked, 10)
        extracted = runs['ProtRelionExtractParticles']['outputs']['outputParticles']
        self.assertTrue(0 < extracted <= picked, extracted)
        self.assertIn(runs['ProtRelionClassify2D']['outputs']['outputClasses'], (1, 2))
