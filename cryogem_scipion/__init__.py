"""Scipion plugin for CryoGEM: micrographs made from a map that look like the user's own, with all labels."""

import importlib.util
import os
import re
import shutil
from importlib import metadata

import pwem
import pyworkflow.utils as pwutils
from pyworkflow import Config

from cryogem import __version__
from cryogem_scipion.constants import CRYOGEM_ENV_ACTIVATION, DISTRIBUTION, URL

_logo = 'logo.png'
_references = ['Zhang2024']


class Plugin(pwem.Plugin):
    """Where the engine runs, and how an environment for it is made."""

    _supportedVersions = [__version__]
    _url = URL
    _processingField = ['SPA']

    def getName(self):
        """Return the name shown in boxes and trees; the module's own is cut there."""
        return 'cryogem'

    def getTemplates(self):
        """Return the workflow templates; one with protocols of other plugins only where these are installed."""
        installed = Config.getDomain().getProtocols()
        return [template for template in super().getTemplates()
                if all(name in installed for name in re.findall(r'"object.className": "(\w+)"', template.content))]

    @classmethod
    def _defineVariables(cls):
        cls._defineVar(CRYOGEM_ENV_ACTIVATION, '', var_type=pwem.VarTypes.STRING,
                       description="Shell command that activates another environment for the engine, for instance "
                                   "'conda activate cryogem' or '. /path/venv/bin/activate'. It needs torch, numpy, "
                                   "mrcfile and starfile. Empty: Scipion's own Python.")

    @classmethod
    def getEnvActivation(cls):
        """Return the command that activates the engine's environment, '' for the current interpreter."""
        activation = (cls.getVar(CRYOGEM_ENV_ACTIVATION) or '').strip()
        return activation.replace(pwem.Config.SCIPION_HOME + os.path.sep, '', 1)

    @classmethod
    def getEnviron(cls):
        """Return the variables of the engine's process; a foreign interpreter must not see Scipion's packages."""
        environ = pwutils.Environ(os.environ)
        if cls.getEnvActivation():
            environ.pop('PYTHONPATH', None)
            environ.pop('PYTHONHOME', None)
        return environ

    @classmethod
    def getActiveVersion(cls, home=None, versions=None):
        """Return the version of the engine: it is bundled, so it is always ours."""
        return __version__

    @classmethod
    def validateInstallation(cls):
        """Return what keeps the engine from running, as sentences; called often, so torch is looked for, not loaded."""
        if not cls.getEnvActivation() and importlib.util.find_spec('torch') is None:
            return [f"torch is not installed in Scipion's Python; install it there with 'scipion3 pip install torch', "
                    f'or set {CRYOGEM_ENV_ACTIVATION} to an environment that has it.']
        return []

    @classmethod
    def defineBinaries(cls, env):
        """Offer an environment of its own for the engine, by conda where there is one, else by venv."""
        requirements = [text for text in metadata.requires(DISTRIBUTION) or []
                        if 'extra ==' not in text and not text.startswith(('scipion', 'emtable'))]
        packages = ' '.join(f'"{text}"' for text in requirements)
        flag = f'cryogem_{__version__}_installed'
        if shutil.which('conda') or pwem.Config.CONDA_ACTIVATION_CMD:
            name, needed = f'cryogem-{__version__}', [] if pwem.Config.CONDA_ACTIVATION_CMD else ['conda']
            make = (f'{cls.getCondaActivationCmd()} conda create -y -n {name} python=3.11 && conda activate {name} && '
                    f'pip install {packages} && touch {flag}')
        else:
            needed = ['python3']
            make = f'python3 -m venv venv && venv/bin/pip install {packages} && touch {flag}'
        env.addPackage('cryogem', version=__version__, tar='void.tgz', commands=[(make, flag)], neededProgs=needed,
                       default=False, vars={'PATH': os.environ['PATH']})
