"""The noise of a set of micrographs as ``A(s) + B(s) · CTF²(s)``: what does not pass the optics, and what does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from cryogem.imaging.ctf import evaluate_ctf
from cryogem.imaging.spectrum import N_SHELLS, average_shells
from cryogem.records import Ctf

# shells between which A and B are linear: dense where spectra are steep, wider than Thon rings where those are narrow
KNOTS = np.array([1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 28, 37, 48, 62, 80, 102, 127])
_SHELLS = np.arange(N_SHELLS)
_FIRST = 1                                  # shell 0 is the mean of the frame
_FRAME = (512, 512)                         # px, on which the radial mean of CTF² is taken
_TIE = 0.02                                 # how strongly neighbouring knots are tied, relative to the data
_ROUNDS = 4                                 # of fitting A and B, then level and slope of each micrograph
_SLOPE_CENTER = N_SHELLS / 2


@dataclass(frozen=True)
class NoiseModel:
    """Noise power of a set, per pixel, on shells up to the Nyquist frequency."""

    flat_power: tuple[float, ...]           # A(s): camera and shot noise, blind to the CTF
    ring_power: tuple[float, ...]           # B(s): what ice and carbon scatter, seen through CTF²


@dataclass(frozen=True)
class NoiseVariation:
    """How the noise of one micrograph differs from that of its set: ``level · exp(slope · (s / Nyquist - 1/2))``."""

    level: float                            # factor of the power
    slope: float                            # logarithm of the factor from zero to the Nyquist frequency
    misfit: float                           # rms over shells of the logarithm of measured over fitted power


def fit_noise(
    powers: np.ndarray, ctfs: Sequence[Ctf | None], pixel_size: float, weights: np.ndarray | None = None
) -> tuple[NoiseModel, list[NoiseVariation]]:
    """Fit ``level_i(s) · (A(s) + B(s) · CTF_i²(s))`` to the noise spectra of a set.

    A and B are positive and piecewise linear; smoother than Thon rings, so that rings can only come from the CTFs.

    Parameters
    ----------
    powers : (n, N_SHELLS) noise spectra, contrast units² per px.
    ctfs : of each micrograph; where none has one, B is zero.
    pixel_size : Å/px.
    weights : (n,) how much each micrograph counts; default all alike.
    """
    powers = np.maximum(np.asarray(powers, dtype=np.float64), 1e-12)
    weights = np.ones(len(powers)) if weights is None else np.asarray(weights, dtype=np.float64)
    rings = measure_rings(ctfs, pixel_size)
    variations: list[NoiseVariation] = []
    gains = np.ones_like(powers)
    for _ in range(_ROUNDS):
        model = _fit_parts(powers / gains, rings, weights)
        variations = [_fit_variation(one) for one in np.log(powers / evaluate_radial(model, rings))]
        gains = np.stack([evaluate_gain(one.level, one.slope) for one in variations])
    return _normalise(model, variations, weights)


def measure_rings(ctfs: Sequence[Ctf | None], pixel_size: float) -> np.ndarray:
    """Return (n, N_SHELLS) radial means of CTF² without envelope; micrographs without CTF get the mean of the others.

    The mean over all directions is what a radial spectrum shows of astigmatic rings.
    """
    known = [None if one is None else square_ctf(one, _FRAME, pixel_size) for one in ctfs]
    radial = [None if one is None else average_shells(one, _FRAME) for one in known]
    measured = [one for one in radial if one is not None]
    mean = np.mean(measured, axis=0) if measured else np.zeros(N_SHELLS)
    return np.stack([mean if one is None else one for one in radial])


def square_ctf(ctf: Ctf, shape: tuple[int, ...], pixel_size: float) -> np.ndarray:
    """Return the (h, w // 2 + 1) square of a CTF; its envelope is left out, for B(s) has it."""
    bare = Ctf(ctf.defocus_u, ctf.defocus_v, ctf.defocus_angle, ctf.voltage, ctf.spherical_aberration,
               ctf.amplitude_contrast, ctf.phase_shift)
    return evaluate_ctf(bare, shape, pixel_size).numpy() ** 2


def evaluate_radial(model: NoiseModel, rings: np.ndarray) -> np.ndarray:
    """Return (..., N_SHELLS) noise powers for radial means of CTF²."""
    return np.asarray(model.flat_power) + np.asarray(model.ring_power) * rings


def evaluate_gain(level: float, slope: float, positions: np.ndarray = _SHELLS) -> np.ndarray:
    """Return the factor of the power at shell positions; what lies beyond the Nyquist frequency goes on as there."""
    return level * np.exp(slope * (np.minimum(positions, N_SHELLS) - _SLOPE_CENTER) / N_SHELLS)


def _fit_parts(powers: np.ndarray, rings: np.ndarray, weights: np.ndarray) -> NoiseModel:
    """Fit A and B to spectra at one level: non-negative least squares of relative errors."""
    hats = np.stack([np.interp(_SHELLS, KNOTS, one) for one in np.eye(len(KNOTS))])
    smooth = _smooth(powers, weights, hats)
    # shells hold modes in proportion to their radius
    rows = np.sqrt(weights[:, None] * _SHELLS)[:, _FIRST:, None]
    flat = np.broadcast_to(hats.T, (len(powers), *hats.T.shape))
    parts = [flat, flat * rings[:, :, None]] if rings.any() else [flat]
    design = (rows * np.concatenate(parts, axis=2)[:, _FIRST:]).reshape(-1, len(parts) * len(KNOTS))
    target = (rows[:, :, 0] * (powers / smooth)[:, _FIRST:]).ravel()
    tie = _TIE * np.linalg.norm(target) * np.diff(np.eye(len(KNOTS)), axis=0)
    ties = np.kron(np.eye(len(parts)), tie)
    # the triangle of the data says the same as its thousands of rows
    triangle = np.asarray(np.linalg.qr(np.column_stack([design, target]), mode='r'))
    found, _ = nnls(np.concatenate([triangle[:, :-1], ties]), np.concatenate([triangle[:, -1], np.zeros(len(ties))]))
    factors = found.reshape(len(parts), -1) @ hats
    ring = factors[1] * smooth if len(parts) > 1 else np.zeros(N_SHELLS)
    return NoiseModel(tuple((factors[0] * smooth).tolist()), tuple(ring.tolist()))


def _smooth(powers: np.ndarray, weights: np.ndarray, hats: np.ndarray) -> np.ndarray:
    """Return the (N_SHELLS,) mean spectrum as a line between the knots: the scale of A and B, without rings.

    Shell 0 has no say: next to nothing is left there of a frame without its mean.
    """
    mean = weights @ np.log(powers[:, _FIRST:]) / weights.sum()
    rows = np.sqrt(_SHELLS[_FIRST:])
    return np.exp(np.linalg.lstsq(rows[:, None] * hats.T[_FIRST:], rows * mean, rcond=None)[0] @ hats)


def _fit_variation(ratios: np.ndarray) -> NoiseVariation:
    """Fit level and slope to the (N_SHELLS,) logarithms of measured over common power."""
    rows = np.sqrt(_SHELLS)[_FIRST:]
    design = np.stack([np.ones(N_SHELLS), (_SHELLS - _SLOPE_CENTER) / N_SHELLS], axis=1)[_FIRST:]
    used = ratios[_FIRST:]
    (level, slope), *_ = np.linalg.lstsq(rows[:, None] * design, rows * used, rcond=None)
    rest = used - design @ [level, slope]
    return NoiseVariation(float(np.exp(level)), float(slope), float(np.sqrt(np.average(rest ** 2, weights=rows ** 2))))


def _normalise(
    model: NoiseModel, variations: list[NoiseVariation], weights: np.ndarray
) -> tuple[NoiseModel, list[NoiseVariation]]:
    """Move what all variations share into A and B, so that levels have mean logarithm 0 and slopes mean 0."""
    level = np.exp(np.average(np.log([one.level for one in variations]), weights=weights))
    slope = float(np.average([one.slope for one in variations], weights=weights))
    gain = evaluate_gain(level, slope)
    shifted = NoiseModel(tuple((gain * model.flat_power).tolist()), tuple((gain * model.ring_power).tolist()))
    return shifted, [NoiseVariation(one.level / level, one.slope - slope, one.misfit) for one in variations]
