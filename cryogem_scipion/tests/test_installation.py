"""The environment that Scipion's installer makes for the engine."""

import os
import subprocess
import sys
import sysconfig
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import pwem

import cryogem_scipion
from cryogem import __version__
from cryogem_scipion import installation
from cryogem_scipion.constants import CRYOGEM_ENV_ACTIVATION, CRYOGEM_TORCH
from cryogem_scipion.tests.marks import slow

_SMI = '| NVIDIA-SMI 535.104.05   Driver Version: 535.104.05   CUDA Version: 12.2 |'

_CONDA = """#!/bin/sh
# Stands in for conda: `conda create -y -n NAME python=3.11` makes a venv that sees the packages of this Python.
[ "$1 $2 $3" = "create -y -n" ] || {{ echo "the stand-in has no such command: $*" >&2; exit 2; }}
'{python}' -m venv --without-pip '{root}/envs/'"$4"
cd '{root}/envs/'"$4"
echo '{packages}' >"$(bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages.pth"
printf '#!/bin/sh\\nexec "%s" -m pip "$@"\\n' "$PWD/bin/python" >bin/pip
chmod +x bin/pip
"""
_ACTIVATION = """conda() {{
    if [ "$1" = activate ]; then . '{root}/envs/'"$2"/bin/activate; else '{root}/conda' "$@"; fi
}}
"""


class TestCryogemTorch(unittest.TestCase):
    """torch has to be a build that the driver serves."""

    def test_the_driver_is_asked_for_the_newest_cuda_it_serves(self):
        with mock.patch('shutil.which', return_value='/usr/bin/nvidia-smi'), \
                mock.patch('subprocess.run', return_value=mock.Mock(stdout=_SMI)):
            self.assertEqual(installation.findDriverCuda(), (12, 2))
        with mock.patch('shutil.which', return_value=None):
            self.assertIsNone(installation.findDriverCuda())
        with mock.patch('shutil.which', return_value='x'), mock.patch('subprocess.run', side_effect=OSError):
            self.assertIsNone(installation.findDriverCuda())

    def test_an_older_driver_gets_the_last_torch_of_its_cuda(self):
        self.assertEqual(installation.chooseTorch('torch>=2.2,<3', (12, 2)), 'torch>=2.2,<2.11')
        for cuda in ((13, 0), None):
            self.assertEqual(installation.chooseTorch('torch>=2.2,<3', cuda), 'torch>=2.2,<3')

    def test_the_environment_gets_all_requirements_of_the_engine_and_none_of_scipion(self):
        texts = ' '.join(installation.listRequirements((12, 2)))
        self.assertIn('<2.11', texts)
        for name in ('numpy', 'mrcfile', 'starfile', 'safetensors', 'lightning-fabric'):
            self.assertIn(name, texts)
        self.assertNotIn('scipion', texts)
        self.assertNotIn('extra', texts)


class TestCryogemEnvironment(unittest.TestCase):
    """By conda where there is one, else by venv; found again once it is there."""

    def getCommand(self, conda: str, torch: str = '') -> tuple[str, list]:
        environment, plugin = mock.Mock(), cryogem_scipion.Plugin
        with mock.patch.object(pwem.Config, 'CONDA_ACTIVATION_CMD', conda), \
                mock.patch.object(plugin, 'getCondaActivationCmd', return_value=conda and conda + ' &&'), \
                mock.patch.dict(plugin._vars, {CRYOGEM_TORCH: torch}), \
                mock.patch('shutil.which', return_value=None):
            plugin.defineBinaries(environment)
        options = environment.addPackage.call_args.kwargs
        return options['commands'][0][0], options['neededProgs']

    def test_with_conda_its_environment_is_made_and_activated_before_pip(self):
        command, needed = self.getCommand('. /opt/conda.sh')
        self.assertTrue(command.startswith(f'. /opt/conda.sh && conda create -y -n {installation.ENVIRONMENT} '))
        self.assertLess(command.index('conda activate'), command.index('pip install'))
        self.assertEqual(needed, [])

    def test_without_conda_a_venv_is_made_with_nothing_else_needed(self):
        command, needed = self.getCommand('')
        self.assertIn('-m venv venv && venv/bin/pip install "torch', command)
        self.assertEqual(needed, [])
        self.assertNotIn('conda', command)

    def test_the_user_may_say_which_torch(self):
        command, _ = self.getCommand('', 'torch==2.6.0 --index-url URL')
        self.assertIn('venv/bin/pip install torch==2.6.0 --index-url URL && venv/bin/pip install "', command)
        self.assertEqual(command.count('torch'), 1)

    def test_an_installed_environment_is_used_unless_the_variable_names_another(self):
        plugin = cryogem_scipion.Plugin
        with tempfile.TemporaryDirectory() as root, mock.patch.object(pwem.Config, 'EM_ROOT', root):
            with mock.patch.dict(plugin._vars, {CRYOGEM_ENV_ACTIVATION: ''}):
                self.assertEqual(plugin.getEnvActivation(), '')
                package = os.path.join(root, installation.ENVIRONMENT)
                os.makedirs(package)
                self.assertEqual(plugin.getEnvActivation(), '')         # half an installation is none
                open(os.path.join(package, installation.FLAG), 'w').close()
                self.assertEqual(plugin.getEnvActivation(), f'conda activate {installation.ENVIRONMENT}')
                script = os.path.join(package, 'venv', 'bin', 'activate')
                os.makedirs(os.path.dirname(script))
                open(script, 'w').close()
                self.assertEqual(plugin.getEnvActivation(), f'. {script}')
                self.assertEqual(plugin.validateInstallation(), [])
            with mock.patch.dict(plugin._vars, {CRYOGEM_ENV_ACTIVATION: '. /mine'}):
                self.assertEqual(plugin.getEnvActivation(), '. /mine')


@slow
class TestCryogemInstallation(unittest.TestCase):
    """`scipion installb cryogem` for real, with a stand-in for conda; pip finds all that is required."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='cryogem_installb_')
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        for name, text in (('conda', _CONDA), ('conda.sh', _ACTIVATION), ('config/scipion.conf', '')):
            path = self.root / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.format(root=self.root, python=sys.executable,
                                        packages=sysconfig.get_path('purelib')), encoding='utf-8')
        (self.root / 'conda').chmod(0o755)
        config = str(self.root / 'config' / 'scipion.conf')
        self.environment = {**os.environ, 'SCIPION_HOME': str(self.root), 'SCIPION_USER_DATA': str(self.root / 'data'),
                            'SCIPION_CONFIG': config, 'SCIPION_LOCAL_CONFIG': config,
                            'CONDA_ACTIVATION_CMD': f'. {self.root}/conda.sh'}

    def runPython(self, *arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=600, check=False,
                              env=self.environment, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_the_environment_that_conda_makes_is_activated_filled_and_then_runs_the_engine(self):
        self.runPython('-m', 'scipion', 'installb', 'cryogem')
        package = self.root / 'software' / 'em' / installation.ENVIRONMENT
        self.assertTrue((package / installation.FLAG).exists())
        self.assertTrue((self.root / 'envs' / installation.ENVIRONMENT / 'bin' / 'python').exists())
        program = ('import pyworkflow as pw; pw.Config.getDomain().getPlugins(); '
                   'from cryogem_scipion import Plugin; from cryogem_scipion.engine import getCommandLine; '
                   'print(Plugin.validateInstallation()); '
                   'print(getCommandLine(Plugin, False, "simulate", "none.json")[0])')
        problems, command = self.runPython('-c', program).splitlines()[-2:]
        self.assertEqual(problems, '[]')
        self.assertIn(f'conda activate {installation.ENVIRONMENT} && python', command)
        answer = subprocess.run(f'{command} --version && command -v python', shell=True, capture_output=True, text=True,
                                timeout=600, check=True, env={'PATH': os.defpath})
        self.assertEqual(answer.stdout.splitlines(), [
            f'cryogem {__version__}', str(self.root / 'envs' / installation.ENVIRONMENT / 'bin' / 'python')])

    def test_what_fails_on_the_way_leaves_no_environment_behind_that_would_be_used(self):
        (self.root / 'conda').write_text('#!/bin/sh\nexit 3\n')
        with self.assertRaisesRegex(AssertionError, f'{installation.FLAG}.* not found after running'):
            self.runPython('-m', 'scipion', 'installb', 'cryogem')
        self.assertEqual(installation.findActivation([str(self.root / 'software' / 'em')]), '')
