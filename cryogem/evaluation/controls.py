"""Control micrographs: the clean twins of a generated set under other noise, so that nothing but the noise differs."""

from collections.abc import Callable, Sequence

import numpy as np

from cryogem.evaluation.frames import Frame, build_frame
from cryogem.imaging.calibration import Calibration
from cryogem.imaging.exposure import add_ice, spawn_generator
from cryogem.imaging.grey import GreyScale
from cryogem.records import Micrograph

CONTROL = 101                               # purpose of their random streams: apart from those of any dataset
# what turns an (h, w) noise-free image with ice, contrast units, into a noisy one
Noise = Callable[[np.ndarray, Micrograph, np.random.Generator], np.ndarray]


def make_controls(
    frames: Sequence[Frame], calibration: Calibration, noise: Noise, seed: int, sign: int
) -> list[Frame]:
    """Put noise on the clean twins of generated micrographs.

    Parameters
    ----------
    frames : with records and clean twins.
    seed : each seed gives other noise.
    sign : as for `build_frame`.
    """
    made = []
    for frame in frames:
        if frame.record is None or frame.clean is None:
            continue
        record = frame.record
        contrast = noise(add_ice(frame.clean, record, calibration), record,
                         spawn_generator(seed, record.index, CONTROL))
        # through grey values and back, as the generated micrographs came
        image = GreyScale(record.grey_mean, record.grey_sd).restore(contrast)
        made.append(build_frame(frame.name, image, frame.centers_yx, sign, record, frame.clean))
    return made


def fit_white_noise(noise_at_ratio: Callable[[float], Noise]) -> Noise:
    """Return white noise that fills what the signal leaves of the unit variance of a real frame.

    Parameters
    ----------
    noise_at_ratio : gives white noise at a signal-to-noise ratio (of variances).
    """
    def add(image: np.ndarray, record: Micrograph, rng: np.random.Generator) -> np.ndarray:
        share = float(np.clip(image.var(), 1e-6, 0.999))
        return noise_at_ratio(share / (1 - share))(image, record, rng)

    return add


def list_controls(names: Sequence[str]) -> dict[str, str]:
    """Return what each control is, by its name, for the report."""
    texts = {
        'measured': 'measured noise: the prior that a model must beat', 'gaussian': 'white noise at SNR 0.1',
        'gaussian_fitted': 'white noise with the variance of the real frames', 'poisson': 'electrons counted',
        'poisson_gaussian': 'electrons counted, white detector noise'}
    return {name: texts.get(name, name) for name in names}
