"""`cryogem calibrate`: measure real micrographs."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryogem.commands.inputs import find_pixel_size, read_real_micrographs
from cryogem.config import CalibrateConfig, MicroscopeConfig, describe_run
from cryogem.dataset import layout
from cryogem.dataset.writer import check_empty
from cryogem.evaluation.calibration_report import write_calibration_report
from cryogem.imaging.calibration import Calibration, RealMicrograph
from cryogem.imaging.ctf_fit import fit_ctf
from cryogem.imaging.grey import find_good_region, measure_grey_scale
from cryogem.imaging.measurement import Inspection, inspect
from cryogem.imaging.noise_fit import fit_noise
from cryogem.imaging.resampling import choose_working_pixel_size
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.io.files import make_folder, write_json
from cryogem.progress import Progress
from cryogem.records import Ctf

logger = logging.getLogger(__name__)

_FINE_FROM = 0.8                            # share of the working Nyquist frequency from which finer noise is measured


def run(config: CalibrateConfig, output: Path) -> None:
    """Measure the micrographs; write calibration.json and, in the folder calibration, a report with pictures."""
    check_empty(output)
    calibration, seen = measure(config, config.particle_diameter)
    make_folder(output)
    write_json(output / layout.CALIBRATION, calibration.to_json())
    write_calibration_report(output, calibration, seen)
    write_json(output / layout.CONFIG, describe_run('calibrate', config))
    logger.info('calibration of %d micrographs: %s', len(calibration.micrographs), output / layout.CALIBRATION)


def measure(
    config: MicroscopeConfig, particle_diameter: float | None
) -> tuple[Calibration, list[Inspection]]:
    """Read the real micrographs at the working pixel size and measure them; return also what was seen on each.

    Parameters
    ----------
    particle_diameter : Å, from the setting or the map; None: from the picks.
    """
    pixel_size = find_pixel_size(config.micrographs, config.pixel_size)
    working = config.working_pixel_size
    if working is None:
        # without a diameter nothing says how far to bin
        working = choose_working_pixel_size(pixel_size, particle_diameter) if particle_diameter else pixel_size
    micrographs = read_real_micrographs(config, working)
    if not config.ctfs:
        micrographs = estimate_ctfs(micrographs, working, config)
    calibration, seen = inspect(micrographs, working, particle_diameter, config.ice_model)
    calibration = keep_originals(calibration, micrographs, pixel_size)
    logger.info('%d real micrographs of %d x %d px at %.3g Å/px', len(micrographs), calibration.shape[1],
                calibration.shape[0], working)
    if calibration.particles_per_frame is not None:
        logger.info('picked particles per micrograph: %.1f ± %.1f', *calibration.particles_per_frame)
    return calibration, seen


def keep_originals(
    calibration: Calibration, micrographs: Sequence[RealMicrograph], pixel_size: float
) -> Calibration:
    """Return the calibration with what is known of the files before binning; `pixel_size` is theirs, Å/px.

    Their noise is wanted beyond the working Nyquist frequency alone: ice and particles, which lie below, are left out.
    """
    shapes = [one.original_shape for one in micrographs]
    pairs = list(zip(micrographs, calibration.micrographs, strict=True))
    powers = [real.original_power / one.grey_sd ** 2 for real, one in pairs if real.original_power is not None]
    first = int(_FINE_FROM * N_SHELLS * pixel_size / calibration.pixel_size)
    noise = None
    if len(powers) == len(pairs) and first < _FINE_FROM * N_SHELLS * 0.99:
        fine = np.stack(powers)
        fine[:, :first] = fine[:, first:first + 1]
        noise, _ = fit_noise(fine, [one.ctf for _, one in pairs], pixel_size,
                             np.array([one.weight for _, one in pairs]))
    return dataclasses.replace(calibration, original_pixel_size=pixel_size, original_noise=noise,
                               original_shape=max(shapes, key=shapes.count))


def estimate_ctfs(
    micrographs: Sequence[RealMicrograph], pixel_size: float, config: MicroscopeConfig
) -> list[RealMicrograph]:
    """Fit the CTF of micrographs that came without; those without clear Thon rings stay without one."""
    optics = Ctf(0, 0, 0, config.voltage, config.spherical_aberration, config.amplitude_contrast)
    progress = Progress('CTF estimation', len(micrographs))
    fitted = []
    for n_done, one in enumerate(micrographs, 1):
        region = find_good_region(one.image)
        # here the scale does but clip hot pixels, so that a part of the frame tells it well enough
        contrast = measure_grey_scale(one.image[region][::4, ::4]).normalise(one.image[region])
        fit = fit_ctf(contrast, pixel_size, optics)
        logger.info('%s: defocus %.0f, %.0f Å, score %.2f%s', one.name, fit.ctf.defocus_u, fit.ctf.defocus_v,
                    fit.score, '' if fit.is_trusted else ' (too low to be used)')
        fitted.append(dataclasses.replace(one, ctf=fit.ctf if fit.is_trusted else None))
        progress.update(n_done)
    return fitted
