"""How strong the signal of real micrographs is, and how it falls off, against clean ones with the same picks."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from cryogem.errors import InputError
from cryogem.imaging.signal import SignalMeasurement
from cryogem.imaging.spectrum import N_SHELLS

_KNOTS = np.array([2, 4, 6, 9, 13, 18, 24, 32, 44, 60, 80, 110])    # shells between which the gain is linear
_SHELLS = np.arange(N_SHELLS)
_USED = slice(1, 111)                       # beyond it noise is all
_LAST_FREE_KNOT = 44                        # beyond it the gain may not grow: a map without detail must not be blown up
_POWER_ERROR = 0.3                          # share of the excess power that may be wrong: unmarked particles lower it
_MEAN_ERROR = 0.05                          # share of the mean particle that may be wrong, for views and maps differ
_TIE = 0.3                                  # sd of the logarithm of the gain between neighbouring knots
_LEAST_MARKED, _MARKED_ERROR = 0.4, 0.3    # of the excess power that picks show; and how far from all it may be, sd
_ALL = 1 - 1e-6                             # of the power: the least share where none is hidden
_LARGEST_OWN = 1.5                          # factor by which a micrograph may differ from its set
_LARGEST_PICK_ERROR = 0.25                  # particle diameters, sd on each axis
_CERTAIN = 4                                # errors by which a signal that is seen stands out
_FALL_OFF = slice(14, 100)                  # shells from which the B-factor is taken: finer than the particle's outline


@dataclass(frozen=True)
class SignalQuality:
    """How well the signal of a set is known: what the data say about the fit."""

    scale_error: float                      # standard error of the signal scale
    pick_error: float                       # px, sd on each axis by which picks miss the centres of particles
    misfit: float                           # share of the excess power that the fit leaves or adds, rms over shells
    map_misfit: float                       # the same for the map as it is, with one amplitude and no filter
    correlation: float                      # of the mean picked with the mean simulated particle, over shells
    b_factor: float                         # Å², of the fall-off of the gain; below 0 where micrographs are sharper
    b_factor_error: float                   # Å²
    snr: tuple[float, ...] = ()             # power of the signal over that of the noise where all is particle, by shell
    marked_share: float = 1.0               # of the power of particles, that is more at the picks than beside them


@dataclass(frozen=True)
class SignalFit:
    """Amplitude of the signal of a set."""

    scale: float                            # contrast units per unit of projected density
    gain: np.ndarray | None                 # (N_SHELLS,) amplitude filter of the map, at most 1; None: as it is
    own_scales: tuple[float, ...]           # of each micrograph; those without picks have that of the set
    own_errors: tuple[float, ...]           # their standard errors
    quality: SignalQuality | None           # None where the amplitude was said, not measured


_Pair = tuple[SignalMeasurement, SignalMeasurement, float]          # real, clean, weight


@dataclass(frozen=True)
class _Pooled:
    """Power gain and amplitude gain on each shell with their errors, over all micrographs."""

    power_gain: np.ndarray
    power_error: np.ndarray
    amplitude_gain: np.ndarray
    amplitude_error: np.ndarray


def fit_signal(
    real: Sequence[SignalMeasurement | None], clean: Sequence[SignalMeasurement | None], diameter_px: float,
    pixel_size: float, weights: Sequence[float] | None = None, has_unmarked: bool = False,
) -> SignalFit:
    """Find the amplitude of the signal and the filter of the map from what comes with the particles.

    Two things are fitted at once. The excess power is blind to how well picks are centred but not to unmarked
    particles; the mean particle is the other way round, and falls off with the error of the picks, which is fitted
    too, and so is the share of the power that unmarked particles beside the picks hide, where there are any: one factor
    for all shells.
    Maps can be sharper or smoother than the particles in the micrographs, and those computed from atoms lack the
    solvent that takes contrast away at low resolution: the gain is free on each of a few knots.

    Parameters
    ----------
    real, clean : of each micrograph, and of clean pictures at scale 1 of particles at its picks with its CTF; None
        without picks.
    diameter_px : px.
    pixel_size : Å/px.
    weights : how much each micrograph counts; default all alike.
    has_unmarked : whether particles were counted that nobody marked; without them all power counts, for what is
        missing from it then is a fault of the map.

    Raises
    ------
    InputError : what comes with the picks does not resemble the particle.
    """
    pairs = [(one, other, weight) for one, other, weight in zip(real, clean, weights or [1.0] * len(real), strict=True)
             if one is not None and other is not None]
    # windows are two diameters wide, so neighbouring shells say much the same
    dilution = np.sqrt(max(1.0, N_SHELLS / diameter_px))
    gain, pick_error, marked = np.ones(N_SHELLS), 0.0, 1.0
    for is_first in (True, False, False):
        pooled = _pool(pairs, np.zeros(N_SHELLS) if is_first else gain, pick_error)
        gain, pick_error, marked = _fit_gain(pooled, diameter_px, dilution, _LEAST_MARKED if has_unmarked else _ALL)
    # from here on as if all particles were marked
    pairs = [(_complete(one, marked), other, weight) for one, other, weight in pairs]
    real = [None if one is None else _complete(one, marked) for one in real]
    pooled = dataclasses.replace(pooled, power_gain=pooled.power_gain / marked,
                                 power_error=pooled.power_error / marked)
    correlation, misfit = _judge(pairs, gain, pick_error, dilution)
    flat = np.full(N_SHELLS, np.sqrt(max(0.0, float(np.average(
        pooled.power_gain[_USED], weights=pooled.power_error[_USED] ** -2.0)))))
    map_misfit = _judge(pairs, flat, pick_error, dilution)[1]
    largest = float(gain[:_LAST_FREE_KNOT + 1].max())
    if correlation <= 0 or largest <= 0 or misfit >= 1:
        raise InputError('coordinates do not sit on particles: what is at the picked places does not resemble the '
                         'map; check that picks, micrographs and map belong together')
    gain = np.minimum(gain / largest, 1)
    scales, errors = _fit_own(real, clean, gain, largest, pick_error)
    b_factor, b_error = _fit_b_factor(pooled, largest, pixel_size)
    return SignalFit(largest, gain, scales, errors, SignalQuality(
        _pool_error(scales, errors, real), pick_error, misfit, map_misfit, correlation, b_factor, b_error,
        _measure_ratio(pairs), marked))


def blur_picks(pick_error: float) -> np.ndarray:
    """Return the (N_SHELLS,) factor by which an error of the picks (px, sd on each axis) weakens a mean particle."""
    return np.exp(-2 * (np.pi * pick_error * _SHELLS / (2 * N_SHELLS)) ** 2)


def _pool(
    pairs: Sequence[_Pair], gain: np.ndarray, pick_error: float
) -> _Pooled:
    """Return the gains of each shell over all micrographs; the model's own error grows with the signal of `gain`."""
    powers, amplitudes = [], []
    for one, other, weight in pairs:
        excess, mean = np.asarray(other.excess_power), np.asarray(other.mean_particle)
        power_variance = np.asarray(one.excess_error) ** 2 + (_POWER_ERROR * gain ** 2 * excess) ** 2
        mean_variance = np.asarray(one.mean_error) ** 2 + (_MEAN_ERROR * gain * blur_picks(pick_error) * mean) ** 2
        powers.append(weight * _weigh(np.asarray(one.excess_power), excess, power_variance))
        amplitudes.append(weight * _weigh(np.asarray(one.mean_particle), mean, mean_variance))
    return _Pooled(*_divide(np.sum(powers, axis=0)), *_divide(np.sum(amplitudes, axis=0)))


def _weigh(values: np.ndarray, shape: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the (2, N_SHELLS) sums from which `_divide` takes the factor of `shape` in `values`."""
    weight = 1 / np.maximum(variance, 1e-30)
    return np.stack([weight * values * shape, weight * shape ** 2])


def _divide(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (N_SHELLS,) factors and their standard errors."""
    precision = np.maximum(sums[1], 1e-30)
    return sums[0] / precision, 1 / np.sqrt(precision)


def _complete(one: SignalMeasurement, marked: float) -> SignalMeasurement:
    """Return a measurement as it would be if all particles were marked."""
    return dataclasses.replace(one, excess_power=tuple((np.asarray(one.excess_power) / marked).tolist()),
                               excess_error=tuple((np.asarray(one.excess_error) / marked).tolist()))


def _fit_gain(
    pooled: _Pooled, diameter_px: float, dilution: float, least_marked: float
) -> tuple[np.ndarray, float, float]:
    """Fit the gain at the knots, the error of the picks, and how much of the excess power they show.

    Returns
    -------
    (N_SHELLS,) gain, error (px), share.
    """
    hats = np.stack([np.interp(_SHELLS, _KNOTS, one) for one in np.eye(len(_KNOTS))])
    start = np.sqrt(np.maximum([np.median(pooled.power_gain[max(1, knot - 1):knot + 3]) for knot in _KNOTS], 0))
    typical = max(float(np.median(start)), 1e-9)

    def compute_residuals(values: np.ndarray) -> np.ndarray:
        knots, error, marked = values[:-2] * typical, values[-2] * diameter_px, values[-1]
        gain = knots @ hats
        power = (marked * gain ** 2 - pooled.power_gain) / pooled.power_error
        amplitude = (gain * blur_picks(error) - pooled.amplitude_gain) / pooled.amplitude_error
        logs = np.log(np.maximum(knots, 1e-3 * typical))
        growth = np.maximum(np.diff(logs), 0)[_KNOTS[1:] > _LAST_FREE_KNOT]
        ties = np.concatenate([np.diff(logs) / _TIE, 10 * growth / _TIE, [np.log(marked) / _MARKED_ERROR]])
        # beyond three errors a shell counts by its distance alone: a crystal or a neighbour must not turn the fit
        return np.concatenate([_soften(np.concatenate([power[_USED], amplitude[_USED]]) / dilution), ties])

    first = np.append(np.clip(start / typical, 0.05, 5), [0.02, least_marked + 0.9 * (1 - least_marked)])
    upper = np.append(np.full(len(_KNOTS), np.inf), [_LARGEST_PICK_ERROR, 1])
    lower = np.append(np.zeros(len(_KNOTS) + 1), least_marked)
    first = np.minimum(first, np.append(upper[:-1] * 0.99, 1))
    found = least_squares(compute_residuals, first, bounds=(lower, upper)).x
    return found[:-2] * typical @ hats, float(found[-2] * diameter_px), float(found[-1])


def _soften(residuals: np.ndarray, limit: float = 3.0) -> np.ndarray:
    """Return residuals whose squares are Huber's loss: linear beyond the limit."""
    size = np.abs(residuals)
    return np.sign(residuals) * np.where(size <= limit, size, np.sqrt(np.maximum(2 * limit * size - limit ** 2, 0)))


def _fit_own(
    real: Sequence[SignalMeasurement | None], clean: Sequence[SignalMeasurement | None], gain: np.ndarray,
    scale: float, pick_error: float,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Fit the amplitude of each micrograph, the gain being known; few picks leave it near that of the set."""
    squares, errors = np.full(len(real), scale ** 2), np.full(len(real), np.inf)
    for i, (one, other) in enumerate(zip(real, clean, strict=True)):
        if one is not None and other is not None:
            sums = _collect_own(one, other, gain, scale, pick_error)
            squares[i], errors[i] = sums[0] / sums[1], 1 / np.sqrt(sums[1])
    spread = max(0.0, float(np.median((squares - scale ** 2)[np.isfinite(errors)] ** 2)) * 2.2
                 - float(np.median(errors[np.isfinite(errors)] ** 2)))
    share = spread / (spread + errors ** 2) if spread > 0 else np.zeros(len(real))
    shrunk = scale ** 2 + np.where(np.isfinite(errors), share, 0) * (squares - scale ** 2)
    own = np.clip(np.sqrt(np.maximum(shrunk, 0)), scale / _LARGEST_OWN, scale * _LARGEST_OWN)
    own_errors = np.where(np.isfinite(errors), errors / (2 * own), scale)
    return tuple(own.tolist()), tuple(own_errors.tolist())


def _collect_own(
    one: SignalMeasurement, other: SignalMeasurement, gain: np.ndarray, scale: float, pick_error: float
) -> np.ndarray:
    """Return the sums (2,) from which a micrograph's squared amplitude is had: excess power and mean particle."""
    excess = gain ** 2 * np.asarray(other.excess_power)
    variance = np.asarray(one.excess_error) ** 2 + (_POWER_ERROR * scale ** 2 * excess) ** 2
    sums = _weigh(np.asarray(one.excess_power), excess, variance)[:, _USED].sum(axis=1)
    mean = gain * blur_picks(pick_error) * np.asarray(other.mean_particle)
    variance = np.asarray(one.mean_error) ** 2 + (_MEAN_ERROR * scale * mean) ** 2
    found, error = _divide(_weigh(np.asarray(one.mean_particle), mean, variance)[:, _USED].sum(axis=1))
    amplitude = max(float(found), 0.0)
    weight = 1 / max(2 * scale * float(error), 1e-30) ** 2
    return sums + weight * np.array([amplitude ** 2, 1])


def _pool_error(
    scales: tuple[float, ...], errors: tuple[float, ...], real: Sequence[SignalMeasurement | None]
) -> float:
    """Return the standard error of the amplitude of the set: from its scatter, never less than the errors say."""
    is_used = np.array([one is not None for one in real])
    own, own_errors = np.array(scales)[is_used], np.array(errors)[is_used]
    said = float(1 / np.sqrt((1 / own_errors ** 2).sum()))
    return max(said, float(own.std(ddof=1) / np.sqrt(len(own)))) if len(own) > 2 else said


def _judge(pairs: Sequence[_Pair], gain: np.ndarray, pick_error: float, dilution: float) -> tuple[float, float]:
    """Return how the mean particles correlate, and the share of the excess power that is left, both over shells.

    Shells count by their errors, and what chance adds is taken away. Where particles are so weak that no excess power
    is seen, the mean of many still may be: then nothing is known to be left, and infinitely much if it is not seen
    either.
    """
    means, excesses, variances = np.zeros(3), np.zeros(2), np.zeros(2)
    for one, other, weight in pairs:
        mean, error = (np.asarray(values)[_USED] for values in (one.mean_particle, one.mean_error))
        model = (gain * blur_picks(pick_error) * np.asarray(other.mean_particle))[_USED]
        means += weight * np.array([(mean * model / error ** 2).sum(), ((mean / error) ** 2 - 1).sum(),
                                    ((model / error) ** 2).sum()])
        variances += weight ** 2 * np.array([((model / error) ** 2).sum(), 2 * len(mean)])
        excess, error = (np.asarray(values)[_USED] for values in (one.excess_power, one.excess_error))
        rest = excess - (gain ** 2 * np.asarray(other.excess_power))[_USED]
        excesses += weight * np.array([((values / error) ** 2 - 1).sum() for values in (rest, excess)])
    correlation = means[0] / np.sqrt(means[1] * means[2]) if min(means[1:]) > 0 else 0.0
    is_mean_seen, is_excess_seen = np.array([means[0], excesses[1]]) > _CERTAIN * dilution * np.sqrt(variances)
    misfit = 0.0 if is_mean_seen else np.inf
    if is_excess_seen:
        misfit = np.sqrt(max(excesses[0], 0) / excesses[1])
    return min(float(correlation), 1.0), float(misfit)


def _measure_ratio(pairs: Sequence[_Pair]) -> tuple[float, ...]:
    """Return (N_SHELLS,) signal-to-noise ratios where all is particle: excess over free power of the set."""
    excess = np.sum([weight * np.asarray(one.excess_power) for one, _, weight in pairs], axis=0)
    free = np.sum([weight * np.asarray(one.free_power) for one, _, weight in pairs], axis=0)
    return tuple((np.maximum(excess, 0) / np.maximum(free, 1e-3 * free.max())).tolist())


def _fit_b_factor(pooled: _Pooled, scale: float, pixel_size: float) -> tuple[float, float]:
    """Fit ``gain = c · exp(-B f² / 4)`` to the power gain; return B and its standard error, Å²."""
    squared = (_SHELLS / N_SHELLS / (2 * pixel_size))[_FALL_OFF] ** 2
    power = pooled.power_gain[_FALL_OFF] / scale ** 2
    errors = np.hypot(pooled.power_error[_FALL_OFF] / scale ** 2, _POWER_ERROR / 2 * np.clip(power, 0, 1))
    unit = 1 / squared[-1]                          # Å², so that both unknowns are of order one

    def compute_residuals(values: np.ndarray) -> np.ndarray:
        return _soften((np.exp(values[0] - values[1] * unit * squared / 2) - power) / errors)

    found = least_squares(compute_residuals, [0.0, 1.0], bounds=([-5, -20], [5, 60]))
    scatter = max(1.0, float((found.fun ** 2).mean()))
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * scatter
    return float(found.x[1] * unit), float(np.sqrt(covariance[1, 1]) * unit)
