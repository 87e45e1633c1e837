"""Scipion's environment for every test, set before anything imports pyworkflow: its settings are read at import.

Each run of the tests has configuration and projects in a temporary folder of its own, so that two runs at once cannot
delete each other's projects (Scipion names a test project after the class of the test). CRYOGEM_TEST_FOLDER keeps them.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

HOSTS = '[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d --map-by node %_(COMMAND)s\n'


def _set_environment() -> None:
    kept = os.environ.get('CRYOGEM_TEST_FOLDER')
    home = Path(kept or tempfile.mkdtemp(prefix='cryogem_tests_')).resolve()
    (home / 'config').mkdir(parents=True, exist_ok=True)
    if not kept:
        owner = os.getpid()
        atexit.register(lambda: os.getpid() == owner and shutil.rmtree(home, ignore_errors=True))
    (home / 'config' / 'hosts.conf').write_text(HOSTS)
    (home / 'config' / 'scipion.conf').touch()
    os.environ.update(
        SCIPION_HOME=str(home),
        SCIPION_USER_DATA=str(home / 'data'),
        SCIPION_CONFIG=str(home / 'config' / 'scipion.conf'),
        SCIPION_LOCAL_CONFIG=str(home / 'config' / 'scipion.conf'),
        SCIPION_HOSTS=str(home / 'config' / 'hosts.conf'),
        SCIPION_DOMAIN='pwem',
        SCIPION_NOTIFY='False',
        SCIPION_PRIORITY_PACKAGE_LIST='pwem',
        SCIPION_PYTHON=sys.executable,
        SCIPION_TEST_NOSYNC='True',
    )
    # Protocols start the word `python3` in places: it must be this interpreter.
    os.environ['PATH'] = str(Path(sys.executable).parent) + os.pathsep + os.environ.get('PATH', '')
    os.environ.setdefault('OMP_NUM_THREADS', '2')


_set_environment()
# The same examples in every run, and no limits of time: test machines may be busy.
settings.register_profile('cryogem', deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('cryogem')
