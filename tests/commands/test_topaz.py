"""Topaz, a picker, reads our coordinates."""

import json
import subprocess
from pathlib import Path

import pytest
import starfile

pytestmark = pytest.mark.slow

_ENVIRONMENT = Path(__file__).resolve().parents[2] / '.topaz-venv'
_READ = """
import json, sys
from topaz.utils.files import read_coordinates
table = read_coordinates(sys.argv[1])
print(json.dumps({'columns': list(table.columns), 'rows': table.values.tolist()}))
"""


def read_with_topaz(path: Path) -> dict:
    """Return columns and rows of a coordinate file as Topaz reads it."""
    if not (_ENVIRONMENT / '.installed').exists():
        pytest.skip('topaz-em is not installed in .topaz-venv; make test-all brings it')
    done = subprocess.run([_ENVIRONMENT / 'bin' / 'python', '-c', _READ, str(path)], capture_output=True, text=True,
                          timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_topaz_reads_the_coordinates_of_all_pickable_particles(simulated):
    found = read_with_topaz(simulated / 'coordinates.txt')

    assert found['columns'][:3] == ['image_name', 'x_coord', 'y_coord']
    rows = starfile.read(simulated / 'particles.star', always_dict=True)['particles']
    expected = [(Path(name).stem, x, y) for name, x, y in zip(
        rows['rlnMicrographName'], rows['rlnCoordinateX'], rows['rlnCoordinateY'], strict=True)]
    assert [(name, x, y) for name, x, y, *_ in found['rows']] == expected
