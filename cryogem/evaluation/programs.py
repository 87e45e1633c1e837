"""Other people's programs, run as they are: in a folder of their own, their words kept when they fail."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cryogem.errors import CryogemError


class ProgramError(CryogemError):
    """A program that the evaluation asked did not do its work; its row of the report says so."""


def find_program(name: str) -> str | None:
    """Return the path of a program by its name or path; None where there is none."""
    return shutil.which(os.path.expanduser(name))


def find_topaz_program(name: str) -> tuple[str, ...] | None:
    """Return the words that start Topaz, given as its name or path; None where it is not.

    That of this Python, from ``pip install .[evaluation]``, is started by a module that lets it start beside any torch.
    """
    program = find_program(name)
    own = Path(sys.executable).parent
    if importlib.util.find_spec('topaz') and (Path(program).parent == own if program else name == 'topaz'):
        return sys.executable, '-m', 'cryogem.evaluation.topaz_program'
    return (program,) if program else None


def run_program(arguments: Sequence[str], folder: Path, threads: int = 1) -> str:
    """Run a program in `folder` and return what it printed.

    Raises
    ------
    ProgramError : it cannot be started or ends with an error; the last line it printed is in the message.
    """
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'MKL_NUM_THREADS': str(threads)}
    try:
        done = subprocess.run([str(one) for one in arguments], cwd=folder, capture_output=True, text=True, check=False,
                              env=environment)
    except OSError as error:
        raise ProgramError(f'{arguments[0]} cannot be started: {error.strerror}; check its path') from error
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or 'it printed nothing').splitlines()
        raise ProgramError(f'{Path(arguments[0]).name} ended with code {done.returncode}: {words[-1]}')
    return done.stdout
