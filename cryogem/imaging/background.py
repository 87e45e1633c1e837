"""The measured noise of a micrograph: a Gaussian field whose Thon rings are those of the micrograph's own CTF."""

from functools import lru_cache

import numpy as np

from cryogem.imaging.calibration import Calibration
from cryogem.imaging.ice import WHOLE, render_ice
from cryogem.imaging.noise import filter_noise
from cryogem.imaging.noise_fit import evaluate_gain, square_ctf
from cryogem.imaging.spectrum import N_SHELLS, shell_positions, spread_shells
from cryogem.records import Micrograph

_LAST_SHELLS = np.arange(N_SHELLS - 20, N_SHELLS)       # whose fall goes on in the corners
_COARSE_SIDE = 64                           # px of a grid on which the strength of the noise is averaged
_LEVEL = 0.004                              # fall per shell below which a spectrum counts as level


def draw_background(
    record: Micrograph, calibration: Calibration, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Draw the measured noise of a record.

    The spectrum is that of the set with level and slope of the record's real micrograph, and with the record's own
    CTF: elliptical rings where it is astigmatic. The skewness is that of the real micrograph, too.

    Parameters
    ----------
    shape : (h, w) px at the pixel size of the record; a whole frame, or a crop of it.

    Returns
    -------
    (h, w) float32, zero mean, contrast units.
    """
    field = filter_noise(np.sqrt(evaluate_background_power(record, calibration, shape)), shape, rng)
    return _skew(field, calibration.micrographs[record.source].noise_skewness)


def render_strength(
    record: Micrograph, calibration: Calibration, shape: tuple[int, ...], window: tuple[slice, slice] = WHOLE
) -> np.ndarray:
    """Return how strong the noise is in each place: in thick ice of the record's real micrograph, and in thin ice.

    Parameters
    ----------
    shape : (h, w) px of the whole frame.
    window : the part of the frame that is wanted.

    Returns
    -------
    (h, w) of the window, float32, factors of the amplitude whose root mean square over the frame is 1.
    """
    coefficients = np.array(calibration.micrographs[record.source].noise_map or ((0.0,),))
    relative = np.exp(render_ice(coefficients, shape, record.ice_flips, window))
    # a few cosines have the same mean on a coarse grid as on all pixels
    coarse = render_ice(coefficients, tuple(min(length, _COARSE_SIDE) for length in shape))
    return relative / np.sqrt(np.exp(2 * coarse).mean())


def _skew(field: np.ndarray, skewness: float) -> np.ndarray:
    """Give a Gaussian field rare bright pixels, as counting has; its variance and nearly its spectrum stay."""
    sd = float(field.std())
    if not skewness or not sd:
        return field
    bent = field + skewness / 6 * (field ** 2 / sd - sd)
    return (bent * (sd / bent.std())).astype(np.float32)


def evaluate_background_power(record: Micrograph, calibration: Calibration, shape: tuple[int, ...]) -> np.ndarray:
    """Return the (h, w // 2 + 1) float32 noise power per pixel of a record.

    In the corners beyond the Nyquist circle the power goes on falling as it does just inside.
    """
    model, real = calibration.noise, calibration.micrographs[record.source]
    gain = evaluate_gain(real.noise_level, real.noise_slope, np.arange(N_SHELLS))
    power = spread_shells(gain * model.flat_power, shape)
    if any(model.ring_power):
        rings = square_ctf(record.ctf, shape, record.pixel_size)
        power += spread_shells(gain * model.ring_power, shape) * rings
    fall = float(np.polyfit(_LAST_SHELLS, np.log(np.maximum(np.array(model.flat_power)[_LAST_SHELLS], 1e-12)), 1)[0])
    return power * np.exp(fall * _measure_excess(shape[0], shape[1])) if fall < -_LEVEL else power


@lru_cache(2)
def _measure_excess(h: int, w: int) -> np.ndarray:
    """Return (h, w // 2 + 1) float32, how far beyond the last shell each frequency lies, in shells."""
    return np.maximum(shell_positions((h, w)) - (N_SHELLS - 1), 0).astype(np.float32)


def add_background(
    image: np.ndarray, record: Micrograph, calibration: Calibration, rng: np.random.Generator, border: int = 0,
    strength: np.ndarray | None = None,
) -> np.ndarray:
    """Add the measured noise of a record to an (h, w) image with its ice, contrast units: a whole frame, or a crop.

    Where the real micrographs are noisier in brighter places, so is the result.

    Parameters
    ----------
    border : px of noise drawn beyond the image and cut off, so that opposite edges of a crop do not match.
    strength : (h, w) of a crop, what `render_strength` says of where it lies; None: the image is a whole frame.
    """
    h, w = image.shape
    noise = draw_background(record, calibration, (h + border, w + border), rng)[:h, :w]
    noise *= render_strength(record, calibration, image.shape) if strength is None else strength
    if calibration.variance_slope:
        noise = noise * np.exp(calibration.variance_slope / 2 * image)
    return (image + noise).astype(np.float32)
