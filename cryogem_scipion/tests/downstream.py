"""Where the programs that come after us are, plugins for Relion and Topaz, Relion, Topaz; and what Topaz is told."""

import math
import os
import shutil
import sys
from pathlib import Path

_PLUGINS, _TOPAZ, _EXAMPLES = 'CRYOGEM_TEST_PLUGINS', 'CRYOGEM_TEST_TOPAZ', 'CRYOGEM_TEST_EXAMPLES'


def findFolder(variable: str, name: str) -> Path | None:
    """Return the folder that a variable names, else `name` in a folder above this package; None if not complete."""
    candidates = [parent / name for parent in Path(__file__).resolve().parents]
    if os.environ.get(variable):
        candidates.insert(0, Path(os.environ[variable]))
    return next((folder for folder in candidates if (folder / '.installed').exists()), None)


def findExamples() -> Path | None:
    """Return the folder of the example scripts: named by the variable, else beside this package in a checkout."""
    candidates = [parent / 'examples' for parent in Path(__file__).resolve().parents]
    if os.environ.get(_EXAMPLES):
        candidates.insert(0, Path(os.environ[_EXAMPLES]))
    return next((folder for folder in candidates if (folder / 'workflow.py').exists()), None)


def findMissing() -> str:
    """Return what keeps the chain behind us from running, '' if nothing."""
    if findFolder(_PLUGINS, '.plugins') is None:
        return 'the plugins for Relion and Topaz are not in .plugins; make test-all brings them'
    if findFolder(_TOPAZ, '.topaz-venv') is None:
        return 'topaz-em is not in .topaz-venv; make test-all brings it'
    if shutil.which('relion_refine') is None:
        return 'relion is not installed'
    return ''


def describeLabels(particles: float, radius: int, area: int) -> str:
    """Return the options of topaz train for micrographs whose particles are all labelled: their share, and no others.

    The share is given outright: from a number of particles topaz-em 0.3.20 takes 2 r + 1 times what it is, more than
    1 on crowded micrographs, and then everything is picked.

    Parameters
    ----------
    particles : labelled on a micrograph, on average.
    radius : of the disc that is learned as particle, px.
    area : of a micrograph, px.
    """
    return f'--num-particles -1 --method PN --pi {particles * math.pi * radius ** 2 / area:.4f}'


def makeEnvironment(home: Path) -> dict[str, str]:
    """Return the variables of a process in which Scipion finds plugins, Relion and Topaz; links go into `home`."""
    plugins, topaz = findFolder(_PLUGINS, '.plugins'), findFolder(_TOPAZ, '.topaz-venv')
    relion = home / 'relion-4.0'                        # the plugin reads the version from the name of this folder
    (relion / 'bin').mkdir(parents=True, exist_ok=True)
    (relion / 'lib').mkdir(exist_ok=True)
    for program in Path(str(shutil.which('relion_refine'))).parent.glob('relion_*'):
        link = relion / 'bin' / program.name
        if not link.exists():
            link.symlink_to(program)
    path = [str(plugins), *([os.environ['PYTHONPATH']] if os.environ.get('PYTHONPATH') else [])]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(path), 'RELION_HOME': str(relion),
            'TOPAZ_ENV_ACTIVATION': f'. {topaz}/bin/activate', 'SCIPION_PYTHON': sys.executable,
            'OMPI_ALLOW_RUN_AS_ROOT': '1', 'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1'}
