"""What the numbers say, in words, and what must not be overlooked."""

from collections.abc import Mapping, Sequence

from cryogem.evaluation.classifier import TwoSampleTest
from cryogem.evaluation.comparison import Comparison
from cryogem.evaluation.ctf_check import CtfAgreement
from cryogem.evaluation.signal import Signal

PRIOR = 'measured'
_JUDGES = ('frechet_topaz', 'power')        # what decides, in this order
_WORSE = 1.1                                # times the prior's distance from which a set is called worse
_SIGNAL_LOST = 0.9                          # of the prior's correlation with the clean twin


def describe_realism(arm: str, comparisons: Mapping[str, Comparison], test: TwoSampleTest | None) -> str:
    """Say how near a set is to the real micrographs."""
    judge = next((key for key in _JUDGES if key in comparisons), None)
    if judge is None:
        return f'{arm}: there are too few real micrographs for a floor, so nothing says how near it is.'
    one = comparisons[judge]
    what = "by Topaz's features" if judge == 'frechet_topaz' else 'by its radial power'
    text = (f'{arm}: the generated micrographs are {one.ratio:.2g} times the real-to-real distance {what} '
            f'({one.n_micrographs} against {one.n_micrographs} micrographs)') if one.ratio else f'{arm}: no floor'
    if test is not None:
        seen = 'cannot tell them from real ones' if test.is_chance else 'tells them from real ones'
        text += f'; a classifier {seen} (AUC {test.auc:.2f}, {test.low:.2f} to {test.high:.2f})'
    return text + '.'


def describe_ctf(arm: str, agreement: CtfAgreement) -> str:
    """Say on how many micrographs rings and label agree."""
    agreeing = sum(one.agrees for one in agreement.checks)
    return f'{arm}: the CTF agrees with its label on {agreeing} of {len(agreement.checks)} micrographs.'


def find_warnings(
    generated: Sequence[str], comparisons: Mapping[str, Mapping[str, Comparison]], signals: Mapping[str, Signal],
    n_seen: int, n_real: int,
) -> list[str]:
    """Return warnings: a set worse than its prior, lost signal, real micrographs that are too few or not held out."""
    warnings = []
    for arm in generated:
        worse = [key for key in _JUDGES if _is_worse(key, arm, comparisons)]
        if worse:
            one, prior = comparisons[arm][worse[0]], comparisons[PRIOR][worse[0]]
            warnings.append(f'{arm} is worse than its own prior, the measured noise: distance {one.distance:.3g} '
                            f'against {prior.distance:.3g}; use the measured noise in its place')
        if arm in signals and PRIOR in signals and (
                signals[arm].mean_correlation < _SIGNAL_LOST * signals[PRIOR].mean_correlation):
            warnings.append(f'{arm} has lost signal: its correlation with the clean twin is '
                            f'{signals[arm].mean_correlation:.2f}, that of the measured noise '
                            f'{signals[PRIOR].mean_correlation:.2f}; labels may not match what is seen')
    if n_seen:
        warnings.append(f'{n_seen} of the {n_real} real micrographs were also calibrated on, so they are not held out '
                        'and distances are flattered; give others')
    if n_real < 4:
        warnings.append(f'{n_real} real micrographs are few: halves of {n_real // 2} have an unsteady floor; give more')
    return warnings


def _is_worse(key: str, arm: str, comparisons: Mapping[str, Mapping[str, Comparison]]) -> bool:
    own, prior = comparisons.get(arm, {}).get(key), comparisons.get(PRIOR, {}).get(key)
    if own is None or prior is None:
        return False
    return own.distance > max(_WORSE * prior.distance, prior.distance + prior.spread)
