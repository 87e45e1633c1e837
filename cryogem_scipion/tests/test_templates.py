"""Workflow templates: what is listed, and a whole workflow from one command without a display."""

import json
import os
import re
import subprocess
import sys
import tempfile
from glob import glob
from pathlib import Path
from unittest import TestCase, skipIf

import pyworkflow as pw
from pwem.objects import Micrograph
from pyworkflow.project import Manager
from pyworkflow.template import LocalTemplate

import cryogem_scipion
from cryogem_scipion.tests.data import makeSyntheticData, writePicks
from cryogem_scipion.tests.downstream import findMissing, makeEnvironment
from cryogem_scipion.tests.marks import slow

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


def runWithScipion(arguments: list[str], environment: dict[str, str]) -> str:
    """Run Python and return what it wrote; a failure shows it.

    Into a file: runs that Scipion leaves behind hold on to a pipe.
    """
    with tempfile.TemporaryFile('w+', encoding='utf-8') as log:
        done = subprocess.run([sys.executable, *arguments], stdout=log, stderr=subprocess.STDOUT, timeout=300,
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

    def test_every_field_has_a_title_of_its_own_and_an_alias(self):
        for path in _FOLDER.glob('*.json.template'):
            fields = [field.split('|') for field in path.read_text(encoding='ascii').split('~')[1::2]]
            titles = [field[0] for field in fields]
            self.assertEqual(len(titles), len(set(titles)), path.name)
            self.assertTrue(all(len(field) == 4 and field[3] for field in fields), path.name)


@slow
class TestCryogemTemplateRun(TestCase):
    """`scipion template` makes a project whose runs finish."""

    def test_the_whole_workflow_runs_from_one_command(self):
        folder = tempfile.TemporaryDirectory(prefix='cryogem_template_')
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        specimen = makeSyntheticData(Path(folder.name), number=2, side=320)
        picks = os.path.join(folder.name, 'picks.sqlite')
        writePicks(picks, specimen.picks, describeMicrographs(specimen.micrographs), specimen.boxSize)
        fields = {'map': specimen.volume, 'map_sr': 4.0, 'mics': specimen.micrographs, 'sr': 4.0, 'voltage': 300,
                  'cs': 2.7, 'q0': 0.1, 'picks': picks, 'picks_format': 5, 'box': specimen.boxSize, 'simulated': 2,
                  'threads': 1, 'steps': 2, 'generated': 2, 'repetitions': 1, 'controls': 'false'}
        runWithScipion(['-m', 'scipion', 'template', 'cryogem-imitate-micrographs', '--nogui', '--noschedule',
                        'project_name=TemplateRun', *(f'{name}={value}' for name, value in fields.items())],
                       {**os.environ, 'PYTHONPATH': ''})
        # Scipion's scheduler sleeps a minute between two runs: here they follow each other
        project = Manager().loadProject('TemplateRun')
        for run in project.getRuns():
            project.launchProtocol(run, wait=True)
            self.assertTrue(run.isFinished(), f'{run.getObjLabel()}: {run.getErrorMessage()}')
        generated = next(run for run in project.getRuns() if run.getClassName() == 'ProtCryogemGenerate')
        self.assertEqual((generated.getObjLabel(), generated.outputMicrographs.getSize()), ('generate', 2))
        self.assertGreater(generated.outputCoordinates.getSize(), 2)


def describeMicrographs(pattern: str) -> list[Micrograph]:
    """Return micrographs as Scipion's import will number and name them."""
    mics = []
    for objId, path in enumerate(sorted(glob(pattern)), 1):
        mic = Micrograph()
        mic.setObjId(objId)
        mic.setMicName(os.path.basename(path))
        mics.append(mic)
    return mics
