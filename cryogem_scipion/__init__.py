"""Scipion plugin for CryoGEM: micrographs made from a map that look like the user's own, with all labels."""

import importlib.util
import os
import re
import shutil

import pwem
import pyworkflow.utils as pwutils
from pyworkflow import Config

from cryogem import __version__
from cryogem_scipion.constants import CRYOGEM_CUDA_LIB, CRYOGEM_ENV_ACTIVATION, CRYOGEM_TORCH, URL
from cryogem_scipion.installation import FLAG, buildCommand, findActivation

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
                       description="Shell command that activates the environment of the engine, for instance "
                                   "'conda activate cryogem' or '. /path/venv/bin/activate'. It needs torch, numpy, "
                                   "mrcfile, starfile and the other requirements of the plugin. Empty: the environment "
                                   "that 'scipion3 installb cryogem' made, else Scipion's own Python.")
        cls._defineVar(CRYOGEM_TORCH, '', var_type=pwem.VarTypes.STRING,
                       description="What 'scipion3 installb cryogem' gives to pip for torch, options included. Empty: "
                                   'the newest torch that the driver of this machine can serve.')
        cls._defineVar(CRYOGEM_CUDA_LIB, '', var_type=pwem.VarTypes.FOLDER,
                       description='Folder of the CUDA libraries for the engine, for instance /usr/local/cuda/lib64: '
                                   'for a torch that was built against those of the machine. Empty: torch uses its '
                                   'own, which pip and conda bring with it.')

    @classmethod
    def getEnvActivation(cls):
        """Return the command that activates the engine's environment, '' for the current interpreter."""
        activation = (cls.getVar(CRYOGEM_ENV_ACTIVATION) or '').strip()
        return (activation.replace(pwem.Config.SCIPION_HOME + os.path.sep, '', 1)
                or findActivation([pwem.Config.EM_ROOT]))

    @classmethod
    def getEnviron(cls):
        """Return the variables of the engine's process; a foreign interpreter must not see Scipion's packages.

        CUDA libraries are named only where the user says which: others than torch's own would be loaded in their place.
        """
        environ = pwutils.Environ(os.environ)
        if cls.getEnvActivation():
            environ.pop('PYTHONPATH', None)
            environ.pop('PYTHONHOME', None)
        if cls._getCudaLib():
            environ.addLibrary(cls._getCudaLib())
        return environ

    @classmethod
    def getActiveVersion(cls, home=None, versions=None):
        """Return the version of the engine: it is bundled, so it is always ours."""
        return __version__

    @classmethod
    def validateInstallation(cls):
        """Return what keeps the engine from running, as sentences; called often, so torch is looked for, not loaded."""
        problems = [f'{CRYOGEM_CUDA_LIB} names the folder {folder}, which does not exist; correct it or leave it empty.'
                    for folder in cls._getCudaLib().split(os.pathsep) if folder and not os.path.isdir(folder)]
        if not cls.getEnvActivation() and importlib.util.find_spec('torch') is None:
            problems.append("torch is not installed in Scipion's Python; install it there with 'scipion3 pip install "
                            "torch', make an environment with 'scipion3 installb cryogem', or set "
                            f'{CRYOGEM_ENV_ACTIVATION} to one that has it.')
        return problems

    @classmethod
    def _getCudaLib(cls) -> str:
        return (cls.getVar(CRYOGEM_CUDA_LIB) or '').strip()

    @classmethod
    def defineBinaries(cls, env):
        """Offer an environment of its own for the engine, by conda where there is one, else by venv."""
        activation = pwem.Config.CONDA_ACTIVATION_CMD
        hasConda = bool(activation) or shutil.which('conda') is not None
        needed = ['conda'] if hasConda and not activation else []
        command = buildCommand(cls.getCondaActivationCmd() if hasConda else '', hasConda, cls.getVar(CRYOGEM_TORCH))
        env.addPackage('cryogem', version=__version__, tar='void.tgz', commands=[(command, FLAG)],
                       neededProgs=needed, default=False, vars={'PATH': os.environ['PATH']})
