"""An environment of its own for the engine: what goes into it, how it is made, and whether it is there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata

from cryogem import __version__
from cryogem_scipion.constants import DISTRIBUTION

ENVIRONMENT = f'cryogem-{__version__}'
FLAG = f'cryogem_{__version__}_installed'
_NOT_OF_THE_ENGINE = ('scipion', 'emtable')
_FIRST_TORCH_OF_CUDA_13 = '2.11'            # the wheels of the index are built for CUDA 12 up to here, then for CUDA 13


def findDriverCuda() -> tuple[int, int] | None:
    """Return the newest CUDA that the driver of this machine serves, (13, 0) for instance; None without a driver."""
    if shutil.which('nvidia-smi') is None:
        return None
    try:
        text = subprocess.run(['nvidia-smi'], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'CUDA Version:\s*(\d+)\.(\d+)', text)
    return (int(found[1]), int(found[2])) if found else None


def chooseTorch(required: str, cuda: tuple[int, int] | None) -> str:
    """Return the requirement of torch, `required`, narrowed to builds that the driver can serve.

    Without a driver any build will do: torch then computes on the CPU.
    """
    if cuda is None or cuda >= (13, 0):
        return required
    bounds = [part for part in required.removeprefix('torch').split(',') if not part.startswith('<')]
    return 'torch' + ','.join([*bounds, f'<{_FIRST_TORCH_OF_CUDA_13}'])


def listRequirements(cuda: tuple[int, int] | None) -> list[str]:
    """Return what pip has to install for the engine alone, without Scipion."""
    texts = [text for text in metadata.requires(DISTRIBUTION) or []
             if 'extra ==' not in text and not text.startswith(_NOT_OF_THE_ENGINE)]
    return [chooseTorch(text, cuda) if re.match(r'torch\b(?![-_])', text) else text for text in texts]


def buildCommand(condaActivation: str, hasConda: bool, torch: str = '') -> str:
    """Return the shell command that makes the environment, in the folder of the package.

    Parameters
    ----------
    condaActivation : what makes `conda activate` work in a shell; '' if nothing has to be done.
    torch : what pip installs in place of the torch chosen for the driver, options of pip included.
    """
    requirements = listRequirements(findDriverCuda())
    if torch:
        requirements = [text for text in requirements if not re.match(r'torch\b(?![-_])', text)]
    packages = ' '.join(f'"{text}"' for text in requirements)
    steps = [f'pip install {torch}'] * bool(torch) + [f'pip install {packages}']
    if hasConda:
        before = [f'{condaActivation} conda create -y -n {ENVIRONMENT} python=3.11'.strip(),
                  f'conda activate {ENVIRONMENT}']
    else:
        before, steps = [f'{shlex.quote(sys.executable)} -m venv venv'], [f'venv/bin/{step}' for step in steps]
    return ' && '.join([*before, *steps, f'touch {FLAG}'])


def findActivation(folders: Sequence[str]) -> str:
    """Return the command that activates the environment if it was installed, '' if not.

    Parameters
    ----------
    folders : where Scipion installs packages.
    """
    for folder in folders:
        package = os.path.join(folder, ENVIRONMENT)
        if os.path.exists(os.path.join(package, FLAG)):
            script = os.path.join(package, 'venv', 'bin', 'activate')
            return f'. {script}' if os.path.exists(script) else f'conda activate {ENVIRONMENT}'
    return ''
