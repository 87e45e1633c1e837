"""Memory does not grow with what is made."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

_MEASURE = """
import sys
from cryogem.__main__ import main
assert main(sys.argv[1:]) == 0
# not ru_maxrss, which begins with the memory of the process that started this one
print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""


def test_memory_does_not_depend_on_the_number_of_micrographs_and_particles(real_set, tmp_path):
    peaks = []
    for number in (4, 120):
        done = subprocess.run(
            [sys.executable, '-c', _MEASURE, *real_set.simulate(
                tmp_path / str(number), '--n-micrographs', str(number), '--particles', 'clean', '--box-size', '64')],
            capture_output=True, text=True, timeout=1800, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)

    # 116 more micrographs are 66 MB of pixels, and their 2,000 particles 32 MB
    assert peaks[1] < peaks[0] + 15


def measure_peak(arguments):
    """Return the lines of a run and its peak memory, MiB."""
    done = subprocess.run([sys.executable, '-c', _MEASURE, *arguments], capture_output=True, text=True, timeout=1800,
                          check=True)
    return done.stdout.splitlines(), int(done.stdout.split()[-1]) / 1024


def test_memory_is_flat_from_ten_to_a_thousand_micrographs_in_every_format(real_set, tmp_path):
    peaks = []
    for number in (10, 1000):
        _, peak = measure_peak(real_set.simulate(
            tmp_path / str(number), '--n-micrographs', str(number), '--working-pixel-size', '12', '--particles', 'both',
            '--formats', 'clean', 'masks', 'png', 'topaz', 'eman', 'cryolo', 'coco', 'cryodrgn'))
        peaks.append(peak)

    # 990 more micrographs are 100 MB of pixels and 16,000 particles
    assert peaks[1] < peaks[0] + 15


def test_the_memory_that_is_stated_up_front_is_that_which_is_taken(simulated, tmp_path):
    lines, peak = measure_peak(['generate', '--dataset', str(simulated), '--n-micrographs', '12', '--output',
                                str(tmp_path / 'out')])
    statement = next(line for line in lines if line.startswith('memory: about '))
    first_micrograph = next(i for i, line in enumerate(lines) if line.startswith('micrographs: '))

    assert lines.index(statement) < first_micrograph
    assert peak / 1.3 < float(statement.split()[2]) * 1024 < peak * 1.5
