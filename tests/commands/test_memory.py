"""Memory does not grow with what is made."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

_MEASURE = """
import resource, sys
from cryogem.__main__ import main
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_depend_on_the_number_of_micrographs_and_particles(real_set, tmp_path):
    peaks = []
    for number in (4, 120):
        done = subprocess.run(
            [sys.executable, '-c', _MEASURE, *real_set.simulate(
                tmp_path / str(number), '--n-micrographs', str(number), '--particles', 'clean', '--box-size', '64')],
            capture_output=True, text=True, timeout=600, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)

    # 116 more micrographs are 66 MB of pixels, and their 2,000 particles 32 MB
    assert peaks[1] < peaks[0] + 15
