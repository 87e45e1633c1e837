"""`cryogem evaluate`: generated micrographs judged against real ones, beside controls and the floor."""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryogem.commands.evaluation_inputs import (
    GeneratedSet,
    build_noises,
    find_real_ctfs,
    list_labels,
    read_real,
    read_sets,
)
from cryogem.commands.model_facts import list_model_facts, name_maker
from cryogem.commands.proofs import Proofs, prove_all
from cryogem.config import EvaluateConfig, describe_run
from cryogem.dataset import layout
from cryogem.dataset.writer import check_empty
from cryogem.evaluation import rows
from cryogem.evaluation.classifier import TwoSampleTest
from cryogem.evaluation.comparison import N_SPLITS, Comparison
from cryogem.evaluation.controls import Noise, list_controls, make_controls
from cryogem.evaluation.ctf_check import CtfAgreement, check_ctfs, check_independently, has_independent_fit
from cryogem.evaluation.features import (
    DEFAULT_CROP,
    TopazNetwork,
    extract_features,
    find_topaz_weights,
    load_topaz_network,
)
from cryogem.evaluation.frames import Frame, count_particles
from cryogem.evaluation.gallery import Exhibit, write_gallery
from cryogem.evaluation.networks import has_efficientnet, load_efficientnet, load_inception
from cryogem.evaluation.pickers import Hallucinations, measure_hallucinations, pick_untrained
from cryogem.evaluation.plots import REAL, draw_crops_of_arms, plot_ctfs, plot_signal, plot_spectra
from cryogem.evaluation.realism import (
    Extract,
    MakeFrames,
    Measured,
    Sampling,
    choose_crop_size,
    compare_arm,
    measure_arm,
    tell_arms_apart,
)
from cryogem.evaluation.report import Picture, Report, Row, write_report
from cryogem.evaluation.signal import Signal, measure_signal
from cryogem.evaluation.spectra import compare_spectra
from cryogem.evaluation.suspicion import Suspicion, find_suspicious
from cryogem.evaluation.verdict import describe_ctf, describe_realism, find_warnings
from cryogem.io.files import make_folder, write_json
from cryogem.progress import Progress
from cryogem.records import Ctf

logger = logging.getLogger(__name__)

_SHOWN = 2                                  # micrographs of each set in the gallery
_CROP_SHOWN = 200                           # px


@dataclasses.dataclass(frozen=True)
class Findings:
    """What was found, by column of the table."""

    comparisons: dict[str, dict[str, Comparison]]
    spectra: dict[str, np.ndarray]          # (n, shells)
    tests: dict[str, TwoSampleTest]
    ctfs: dict[str, CtfAgreement]
    independent: dict[str, CtfAgreement] | None
    signals: dict[str, Signal]
    hallucinations: dict[str, Hallucinations]
    picker: str
    suspicious: dict[str, tuple[Suspicion, ...]]


def run(config: EvaluateConfig, output: Path) -> None:
    """Measure all sets alike, try out what is asked for, and write the report."""
    check_empty(output)
    sets = read_sets(config.generated)
    first = sets[0]
    real = read_real(config.real, config.coordinates, config.pixel_size, first.calibration, first.sign)
    topaz, networks = _load_networks(config)
    make_folder(output)
    sampling = _choose_sampling(config, [one.contrast.shape for one in real], first)
    controls = _list_controls(config, first)
    shown: dict[str, Sequence[Frame]] = {one.name: one.frames for one in sets} | {
        name: make_frames(sampling.seeds[0]) for name, make_frames in controls.items()}
    real_ctfs = find_real_ctfs(config, real, first.calibration)
    findings = _find_all(sets, real, real_ctfs, shown, controls, sampling, networks)
    proofs = prove_all(config, sets, shown, real, topaz, output)
    pictures = _draw(output, sets, real, shown, findings) + proofs.pictures
    report = _build_report(config, sets, real, shown, findings, proofs, pictures, sampling, tuple(networks))
    write_json(output / layout.CONFIG, describe_run('evaluate', config))
    write_report(output, report)
    for sentence in (*report.verdict, *(f'Warning: {one}' for one in report.warnings)):
        logger.info('%s', sentence)
    logger.info('report: %s', output / 'report.html')


def _load_networks(config: EvaluateConfig) -> tuple[TopazNetwork | None, dict[str, Extract]]:
    """Return Topaz's network, if any, and what extracts features, by name."""
    networks: dict[str, Extract] = {}
    weights = find_topaz_weights(config.topaz_weights)
    topaz = load_topaz_network(weights) if weights else None
    if topaz is not None:
        networks['topaz'] = lambda crops: extract_features(topaz, crops)
    if config.inception_weights:
        networks['inception'] = load_inception(config.inception_weights)
    if has_efficientnet():
        networks['efficientnet'] = load_efficientnet()
    return topaz, networks


def _choose_sampling(config: EvaluateConfig, shapes: Sequence[tuple[int, ...]], first: GeneratedSet) -> Sampling:
    shapes = [*shapes, *(one.contrast.shape for one in first.frames)]
    return Sampling(choose_crop_size(shapes, config.crop_size, DEFAULT_CROP), config.crops_per_micrograph,
                    first.calibration.particle_diameter / first.calibration.pixel_size,
                    tuple(config.seed + i for i in range(config.n_seeds)))


def _list_controls(config: EvaluateConfig, first: GeneratedSet) -> dict[str, MakeFrames]:
    """Return what makes each control with a seed; none without clean twins."""
    if not config.controls or all(one.clean is None for one in first.frames):
        return {}
    return {name: functools.partial(_make_control, first, noise) for name, noise in build_noises(first, config).items()}


def _make_control(first: GeneratedSet, noise: Noise, seed: int) -> list[Frame]:
    return make_controls(first.frames, first.calibration, noise, seed, first.sign)


def _find_all(
    sets: Sequence[GeneratedSet], real: Sequence[Frame], real_ctfs: list[Ctf | None],
    shown: Mapping[str, Sequence[Frame]], controls: Mapping[str, MakeFrames], sampling: Sampling,
    networks: Mapping[str, Extract],
) -> Findings:
    progress = Progress('evaluation', 2 * len(shown) + 3)
    measured_real = measure_arm(lambda _: real, sampling, networks)
    comparisons = {REAL: compare_arm(measured_real, measured_real, sampling)}       # every distance at its floor
    spectra = {REAL: _stack_spectra(measured_real[0])}
    for n_done, arm in enumerate(shown, 1):
        measured = measure_arm(_repeat(shown[arm], controls.get(arm), sampling.seeds[0]), sampling, networks)
        comparisons[arm] = compare_arm(measured, measured_real, sampling)
        spectra[arm] = _stack_spectra(measured[0])
        progress.update(n_done, f'{arm} measured')
    tests = tell_arms_apart(shown, real, sampling.seeds)
    progress.update(len(shown) + 1, 'classifier done')
    calibration = sets[0].calibration
    ctfs = {}
    for n_done, (arm, frames) in enumerate(shown.items(), len(shown) + 2):
        ctfs[arm] = check_ctfs(frames, list_labels(frames), calibration.pixel_size)
        progress.update(n_done, f'CTFs of {arm} fitted')
    ctfs[REAL] = check_ctfs(real, real_ctfs, calibration.pixel_size)
    independent = {one.name: check_independently(one.frames, list_labels(one.frames), calibration.pixel_size)
                   for one in sets} if has_independent_fit() else None
    signals = {arm: signal for arm, frames in shown.items() if (signal := measure_signal(frames)) is not None}
    picker, hallucinations = _find_hallucinations(shown, sampling, calibration.pixel_size)
    known_ctfs = {arm: one for arm, one in ctfs.items() if one is not None}
    suspicious = {one.name: tuple(find_suspicious(one.frames, known_ctfs.get(one.name), signals.get(one.name),
                                                  sampling.diameter_px)) for one in sets}
    progress.update(2 * len(shown) + 3)
    return Findings(comparisons, spectra, tests, known_ctfs, independent, signals, hallucinations, picker, suspicious)


def _repeat(shown: Sequence[Frame], make_frames: MakeFrames | None, first_seed: int) -> MakeFrames:
    """Return what gives an arm with each seed; controls of further seeds are made when they are asked for, not kept."""
    return lambda seed: shown if make_frames is None or seed == first_seed else make_frames(seed)


def _stack_spectra(measured: Sequence[Measured]) -> np.ndarray:
    return np.stack([one.statistics.power for one in measured])


def _find_hallucinations(shown: Mapping[str, Sequence[Frame]], sampling: Sampling, pixel_size: float
                         ) -> tuple[str, dict[str, Hallucinations]]:
    """Return which picker looked, and what it found away from every record in each arm."""
    found, picker = {}, ''
    for arm, frames in shown.items():
        picker, picks = pick_untrained(frames, sampling.diameter_px, pixel_size)
        one = measure_hallucinations(picks, frames, sampling.diameter_px, np.random.default_rng(sampling.seeds[0]))
        if one is not None:
            found[arm] = one
    return picker, found


def _draw(output: Path, sets: Sequence[GeneratedSet], real: Sequence[Frame], shown: Mapping[str, Sequence[Frame]],
          findings: Findings) -> list[Picture]:
    calibration = sets[0].calibration
    gallery = [real[:_SHOWN], *(one.frames[:_SHOWN] for one in sets)]
    captions = ['real', *('generated' if len(sets) == 1 else one.name for one in sets)]
    write_gallery(output / 'gallery.png', [[Exhibit(f'{caption}: {one.name}', one.contrast, one.centers_yx)
                                            for one in row] for caption, row in zip(captions, gallery, strict=True)],
                  calibration.particle_diameter / calibration.pixel_size)
    draw_crops_of_arms(output / 'arms.png', {REAL: real, **shown}, _CROP_SHOWN)
    plot_spectra(output / 'spectra.png', findings.spectra, calibration.pixel_size)
    plot_signal(output / 'signal.png', findings.signals, calibration.pixel_size)
    plot_ctfs(output / 'ctf.png', findings.ctfs)
    return [Picture('gallery.png', 'Real (above) and generated micrographs (below), one grey mapping: -3 to 3 sd; '
                    "people's picks and labelled particles circled"),
            Picture('arms.png', 'The middle of some micrographs of every column, px for px at the same grey mapping'),
            Picture('spectra.png', 'Radial power: thin grey lines are single real micrographs'),
            Picture('signal.png', 'What is left of the clean signal'),
            Picture('ctf.png', 'Fitted against labelled defocus; faint where the rings are not clear')]


def _build_report(
    config: EvaluateConfig, sets: Sequence[GeneratedSet], real: Sequence[Frame], shown: Mapping[str, Sequence[Frame]],
    findings: Findings, proofs: Proofs, pictures: Sequence[Picture], sampling: Sampling, networks: Sequence[str],
) -> Report:
    calibration = sets[0].calibration
    generated = [one.name for one in sets]
    seen = {one.name for one in calibration.micrographs} & {one.name for one in real}
    comparisons = findings.comparisons
    verdict = [describe_realism(arm, comparisons[arm], findings.tests.get(arm)) for arm in generated]
    verdict += [describe_ctf(arm, findings.ctfs[arm]) for arm in generated if arm in findings.ctfs]
    table: list[Row] = [
        *rows.list_realism(comparisons, networks), *rows.list_tests(findings.tests),
        *rows.list_ctfs(findings.ctfs, findings.independent), *rows.list_signals(findings.signals),
        rows.list_hallucinations(findings.hallucinations, findings.picker), *proofs.rows]
    columns = {REAL: f'{len(real)} real micrographs: one half against the other', **{
        one.name: f'generated set {one.folder}, {name_maker(one.config)}' for one in sets}}
    columns |= {name: text for name, text in list_controls(list(shown)).items() if name not in columns}
    columns |= {arm: 'Topaz as it is shipped' for row in proofs.rows for arm in row.cells if arm not in columns}
    spectra = {arm: dataclasses.asdict(compare_spectra(power, findings.spectra[REAL]))
               for arm, power in findings.spectra.items() if arm != REAL}
    numbers: dict[str, Any] = {
        'n_generated': len(sets[0].frames), 'n_real': len(real), 'pixel_size': calibration.pixel_size,
        'radial_power_spectrum': spectra[generated[0]], 'sets': generated, 'columns': columns,
        'spectra': spectra,
        'comparisons': {arm: {key: {**dataclasses.asdict(one), 'ratio': one.ratio} for key, one in found.items()}
                        for arm, found in comparisons.items()},
        'classifier': {arm: dataclasses.asdict(one) for arm, one in findings.tests.items()},
        'ctf': {arm: {'share': one.share, 'mean_score': one.mean_score,
                      'micrographs': [dataclasses.asdict(check) for check in one.checks]}
                for arm, one in findings.ctfs.items()},
        'signal': {arm: {'correlation': one.mean_correlation, 'transfer': one.mean_transfer,
                         'correlation_by_shell': one.correlation.tolist(), 'transfer_by_shell': one.transfer.tolist()}
                   for arm, one in findings.signals.items()},
        'hallucinations': {arm: dataclasses.asdict(one) for arm, one in findings.hallucinations.items()},
        **proofs.numbers}
    return Report(
        f'cryogem evaluate: {", ".join(generated)}', columns, tuple(arm for arm in columns if arm != REAL),
        tuple(table), (*verdict, *proofs.sentences),
        tuple(find_warnings(generated, comparisons, findings.signals, len(seen), len(real))), findings.suspicious,
        tuple(pictures), _list_facts(config, sets, real, shown, sampling), numbers)


def _list_facts(config: EvaluateConfig, sets: Sequence[GeneratedSet], real: Sequence[Frame],
                shown: Mapping[str, Sequence[Frame]], sampling: Sampling) -> tuple[str, ...]:
    n = min(len(real) // 2, len(sets[0].frames))
    return (
        f'{len(real)} real micrographs with {count_particles(real)} picks; ' + ', '.join(
            f'{len(frames)} of {arm} with {count_particles(frames)} particles' for arm, frames in shown.items()) + '.',
        f'Every distance compares {n} with {n} micrographs: random halves of the real ones, split by micrograph, give '
        'the floor, and as many of the set in the place of one half its distance; mean ± sd over '
        f'{N_SPLITS} splits and {len(sampling.seeds)} seeds.',
        f'Networks see {sampling.crops_per_micrograph} crops of {sampling.crop_size} px of each micrograph, each of '
        'zero mean and unit sd; Topaz features are averaged in 4 x 4 cells of a crop. For Inception and EfficientNet, '
        '-3 to 3 sd become black to white.',
        'Controls are the clean twins of the first set, with its ice, under other noise: nothing else differs.',
        f'Pixel size {sets[0].calibration.pixel_size:g} Å, particle diameter '
        f'{sets[0].calibration.particle_diameter:.0f} Å, seed {config.seed}.',
        *list_model_facts(sets))
