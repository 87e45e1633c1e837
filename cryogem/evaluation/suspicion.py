"""Names single generated micrographs whose labels or pixels cannot be right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryogem.evaluation.ctf_check import TOLERANCE, CtfAgreement
from cryogem.evaluation.frames import Frame
from cryogem.evaluation.pickers import find_away, pick_by_template
from cryogem.evaluation.signal import Signal

_CLEAR = 0.5                                # of the median ring score of the set: fits below it prove nothing
_OUTLIER = 5.0                              # robust sd above the median count of picks away from particles
_FEWEST = 2                                 # more picks away than this above the median


@dataclass(frozen=True)
class Suspicion:
    """One micrograph and what is wrong with it."""

    name: str
    kind: str                               # defocus, unlabelled or contrast
    text: str


def find_suspicious(
    frames: Sequence[Frame], ctfs: CtfAgreement | None, signal: Signal | None, diameter_px: float
) -> list[Suspicion]:
    """Look for micrographs of a set with a wrong defocus, unlabelled particles or inverted contrast."""
    inverted = _find_inverted(frames, signal)
    names = {one.name for one in inverted}
    # what is inverted would spoil the template and has no dark particles to find
    upright = [one for one in frames if one.name not in names]
    return inverted + _find_wrong_defocus(ctfs) + _find_unlabelled(upright, diameter_px)


def _find_inverted(frames: Sequence[Frame], signal: Signal | None) -> list[Suspicion]:
    if signal is None:
        return []
    with_twin = [one for one in frames if one.clean is not None]
    typical = float(np.median(np.abs(signal.frame_correlations)))
    return [Suspicion(frame.name, 'contrast', f'its contrast is inverted: correlation {value:.2f} with its clean twin')
            for frame, value in zip(with_twin, signal.frame_correlations, strict=True) if value < -typical / 2]


def _find_wrong_defocus(ctfs: CtfAgreement | None) -> list[Suspicion]:
    if ctfs is None:
        return []
    trusted = [one for one in ctfs.checks if one.is_trusted]
    if 2 * sum(one.agrees for one in trusted) <= len(trusted):      # where most disagree it is the set, or the fit
        return []
    typical = float(np.median([one.score for one in ctfs.checks]))
    return [Suspicion(one.name, 'defocus', f'its Thon rings show a defocus of {one.fitted:.0f} Å but its label says '
                      f'{one.labelled:.0f} Å, more than {TOLERANCE:.0%} apart')
            for one in ctfs.checks if one.contradicts and one.score >= _CLEAR * typical]


def _find_unlabelled(frames: Sequence[Frame], diameter_px: float) -> list[Suspicion]:
    """Find micrographs that hold more picks away from every record than the others do."""
    if len(frames) < 3:                     # nothing to compare with
        return []
    picks = pick_by_template(frames, diameter_px)
    at_records = [_scores_at(one.centers_yx, one.scores, frame.centers_yx, diameter_px / 2)
                  for one, frame in zip(picks, frames, strict=True)]
    pooled = np.concatenate(at_records) if at_records else np.empty(0)
    if not len(pooled):
        return []
    limit = float(np.median(pooled))
    counts = np.array([int(find_away(one.centers_yx[one.scores >= limit], frame.painted_yx, diameter_px / 2).sum())
                       for one, frame in zip(picks, frames, strict=True)])
    center = float(np.median(counts))
    spread = 1.4826 * float(np.median(np.abs(counts - center)))
    return [Suspicion(frame.name, 'unlabelled', f'{count} places look like particles but are in no record '
                      f'(of the other micrographs half have at most {center:.0f})')
            for frame, count in zip(frames, counts, strict=True)
            if count > center + max(_OUTLIER * spread, _FEWEST)]


def _scores_at(centers_yx: np.ndarray, scores: np.ndarray, known_yx: np.ndarray, radius: float) -> np.ndarray:
    return scores[~find_away(centers_yx, known_yx, radius)]
