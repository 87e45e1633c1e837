"""How much memory a run will take, stated before it begins: it does not grow with the number of micrographs."""

import logging
import math
import os

from cryogem.dataset.plan import Plan
from cryogem.imaging.calibration import Calibration
from cryogem.specimen.ensemble import Ensemble

logger = logging.getLogger(__name__)

_PROGRAM = 400 * 2 ** 20                    # bytes of a process that has loaded numpy, scipy, torch and numba
# bytes per px, found on frames of 1024² to 4096² and rounded up
_WORKING_PIXEL = 150                        # of a frame that is imaged and made noisy, and of those that wait
_WRITTEN_PIXEL = 40                         # of a frame in the pixels of the original micrographs
_INPUT_PIXEL = {'': 0, 'residual': 60, 'paper': 0}             # of what a network is given
_NETWORK_PIXEL = {'': 0, 'residual': 160, 'paper': 1400}


def state_memory(
    plan: Plan, calibration: Calibration, ensemble: Ensemble, n_workers: int, architecture: str = '',
    network_memory: float = math.inf,
) -> int:
    """Log how much memory a run will take and warn where it is not there; return the bytes of one process.

    Parameters
    ----------
    calibration : with the shape of the frames that are worked with.
    architecture : of the trained network, where one is used.
    network_memory : bytes that a network may take which can work in tiles.
    """
    needed = estimate_memory(plan, calibration, ensemble, architecture, network_memory)
    available = read_available_memory()
    starter = _PROGRAM + _measure_maps(ensemble) if n_workers > 1 else 0        # it holds the maps, too
    total = needed * n_workers + starter
    logger.info('memory: about %.1f GiB, %.1f GiB for each process that makes micrographs, however many there are; '
                '%.1f GiB are available', total / 2 ** 30, needed / 2 ** 30, available / 2 ** 30)
    if total > available:
        logger.warning('%d workers may need more memory than there is: use at most %d', n_workers,
                       max(1, int(available // needed)))
    return needed


def estimate_memory(plan: Plan, calibration: Calibration, ensemble: Ensemble, architecture: str = '',
                    network_memory: float = math.inf) -> int:
    """Return the bytes that one process needs."""
    margin = 2 * ensemble.box_size
    working = math.prod(length + margin for length in calibration.shape)
    written = math.prod(plan.shape) if plan.find_grid(calibration.pixel_size) else 0
    network = _NETWORK_PIXEL[architecture] * working
    if architecture == 'residual':
        network = int(min(network, network_memory))
    # first the network, then what brings its output to the pixels that are written
    frames = _WORKING_PIXEL * working + max(network + _INPUT_PIXEL[architecture] * working, _WRITTEN_PIXEL * written)
    preparing = 3 * max(one.n_bytes for one in ensemble.projectors)     # of the transform of a map, before any frame
    return _PROGRAM + _measure_maps(ensemble) + max(preparing, frames)


def read_available_memory() -> int:
    """Return the bytes of memory that programs can get; on Linux, what the kernel could free counts, too."""
    try:
        with open('/proc/meminfo', encoding='ascii') as file:
            lines = dict(line.split(':') for line in file)
        return int(lines['MemAvailable'].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def _measure_maps(ensemble: Ensemble) -> int:
    """Return the bytes of all maps and of their transforms."""
    return sum(one.density.nbytes + one.mask.nbytes for one in ensemble.volumes) + sum(
        one.n_bytes for one in ensemble.projectors)
