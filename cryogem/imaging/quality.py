"""Which micrographs of a set are odd: drifted, covered with ice or dirt. They count less and are named."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cryogem.imaging.calibration import MicrographCalibration

_BANDS = {'low': slice(3, 16), 'middle': slice(16, 48), 'high': slice(48, 110)}        # shells
_FEWEST = 4                                 # micrographs below which nobody can say which one is odd
_LIMIT = 4.5                                # robust sd of the set from which a micrograph is odd
_LEAST_SPREAD = 0.1                         # of logarithms; sets that agree better than this are not told apart
_LEAST_DIRT_SPREAD = 0.02                   # of the share of a frame that is dirt
_LEAST_SIGNAL = 0.02                        # of the power of the set: less is no signal at all
_MAD_TO_SD = 1.4826

_Feature = tuple[np.ndarray, float, Callable[[float, float], str]]          # values, least spread, what says how


@dataclass(frozen=True)
class Verdict:
    """How much a micrograph counts and why."""

    weight: float                           # 1, or the squared share of the limit that its oddness allows
    remarks: tuple[str, ...]


def weigh_micrographs(measured: Sequence[MicrographCalibration]) -> list[Verdict]:
    """Compare each micrograph with the median of its set: noise in three bands, strength of the signal, dirt.

    The median holds as long as fewer than half of them are odd; fewer than four micrographs are taken as they are.
    """
    if len(measured) < _FEWEST:
        return [Verdict(1.0, ()) for _ in measured]
    oddness = np.zeros(len(measured))
    remarks: list[list[str]] = [[] for _ in measured]
    for values, least, describe in _list_features(measured):
        center = np.nanmedian(values)
        spread = max(_MAD_TO_SD * float(np.nanmedian(np.abs(values - center))), least)
        scores = np.nan_to_num(np.abs(values - center) / spread)
        oddness = np.maximum(oddness, scores)
        for i in np.flatnonzero(scores > _LIMIT):
            remarks[i].append(describe(float(values[i]), float(center)))
    weights = np.minimum(1.0, (_LIMIT / np.maximum(oddness, 1e-9)) ** 2)
    return [Verdict(float(weight) if said else 1.0, tuple(said))
            for weight, said in zip(weights, remarks, strict=True)]


def _list_features(measured: Sequence[MicrographCalibration]) -> list[_Feature]:
    """Return (n,) values of each feature, the spread it has at least, and what says how one differs from the set."""
    powers = np.log(np.maximum([one.background_power for one in measured], 1e-12))
    features: list[_Feature] = [
        (powers[:, band].mean(axis=1), _LEAST_SPREAD,
         _Ratio(f'noise power at {name} resolution')) for name, band in _BANDS.items()]
    features.append((_measure_strengths(measured), _LEAST_SPREAD, _Ratio('signal power')))
    features.append((np.array([_measure_lost_share(one) for one in measured]), _LEAST_DIRT_SPREAD, _describe_dirt))
    return features


@dataclass(frozen=True)
class _Ratio:
    """Says by what factor a logarithm differs from that of the set."""

    what: str

    def __call__(self, own: float, usual: float) -> str:
        return f'its {self.what} is {np.exp(own - usual):.2g} times that of the others'


def _measure_lost_share(one: MicrographCalibration) -> float:
    """Return the share of a frame that is no specimen in ice: carbon, crystals, dirt, or an edge of another kind."""
    if one.defects is None or one.shape is None:
        return one.outlier_share
    kept = (1 - one.defects.dead_rows / one.shape[0]) * (1 - one.defects.dead_columns / one.shape[1])
    return one.outlier_share + 1 - kept


def _describe_dirt(own: float, usual: float) -> str:
    return f'{own:.0%} of it is carbon, crystals or dirt, or dead edge, of the others {usual:.0%}'


def _measure_strengths(measured: Sequence[MicrographCalibration]) -> np.ndarray:
    """Return (n,) logarithms of the strength of each signal by that of the set; nan without picks."""
    excesses = np.array([np.full(len(one.total_power), np.nan) if one.signal is None else one.signal.excess_power
                         for one in measured])
    if np.isnan(excesses).all():
        return np.full(len(measured), np.nan)
    usual = np.nanmedian(excesses, axis=0)
    usual[:_BANDS['low'].start] = 0
    shells = np.arange(len(usual))
    own = (shells * usual * excesses).sum(axis=1) / max(float((shells * usual ** 2).sum()), 1e-12)
    return np.log(np.maximum(own, _LEAST_SIGNAL))
