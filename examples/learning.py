"""What training buys on real data sets, on micrographs that neither training nor early stopping has seen.

Of each data set one half of the micrographs is learned from and the other half judges, then the other way round. For
each seed the default preset is trained, and as many micrographs are generated with the model as with the measured
noise, on the same specimens. `cryogem evaluate` judges all of them together; the Fréchet distance of crops is measured
as the model's card does, but on the judges. Steps that are finished are kept, so an interrupted run goes on.
"""

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from evaluation import COST, ROOT, DataSet, find_sets, run

from cryogem.commands.crops import RealCrops
from cryogem.commands.evaluation_inputs import read_real, read_sets
from cryogem.commands.judging import measure_gates
from cryogem.commands.training_plan import plan_training
from cryogem.config import TrainConfig, build_config, read_config_file
from cryogem.evaluation.frames import Frame
from cryogem.imaging.picks import average_rings
from cryogem.imaging.signal import cut_windows
from cryogem.io.files import write_json
from cryogem.translation.model import load_generator, read_card
from cryogem.translation.translate import build_translator

_CROPS = 64                                 # of each kind in a draw
_CROP_SEED = 4711                           # of these crops: none that a training has
_KEPT = ('frechet_topaz', 'power', 'local_variance', 'histogram')       # distances of evaluate that are listed


@dataclass(frozen=True)
class Half:
    """One half of a data set to learn from; the other judges."""

    data: DataSet
    is_swapped: bool
    work: Path

    @property
    def learned(self) -> list[Path]:
        """The micrographs that are learned from."""
        return self.data.list_part(self.is_swapped)

    @property
    def judges(self) -> list[Path]:
        """The micrographs that judge."""
        return self.data.list_part(not self.is_swapped)


def main() -> None:
    """Train, generate and judge on every data set, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, default=ROOT.parent / 'shared' / 'data', help='folder of the data sets')
    parser.add_argument('--work', type=Path, default=ROOT / 'build' / 'learning', help='folder of the runs')
    parser.add_argument('--sets', nargs='+', help='names of data sets; default: all')
    parser.add_argument('--halves', nargs='+', type=int, default=(0, 1), help='which halves are learned from')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--micrographs', type=int, default=6, help='of each generated set')
    parser.add_argument('--draws', type=int, default=8, help='of crops, whose median Fréchet distance is told')
    parser.add_argument('--topaz', default=str(ROOT / '.topaz-venv'), help='environment of Topaz')
    parser.add_argument('--no-evaluate', action='store_true', help='measure the Fréchet distance of crops alone')
    parser.add_argument('--train-flags', nargs=argparse.REMAINDER, default=[], help='passed on to cryogem train')
    arguments = parser.parse_args()
    for data in find_sets(arguments):
        halves = [Half(data, bool(index), arguments.work / data.name / f'half_{index}') for index in arguments.halves]
        for half in halves:
            judge_half(half, arguments)
        print_table(data.name, halves, arguments)


def judge_half(half: Half, arguments: argparse.Namespace) -> None:
    """Do all steps of one half."""
    work, n, topaz = half.work, arguments.micrographs, ['--topaz-weights', arguments.topaz]
    run(['simulate', '--volume', half.data.map, '--micrographs', *half.learned, '--coordinates',
         *half.data.list_picks(half.learned), '--symmetry', half.data.symmetry, '--n-micrographs', n, '--seed', 1,
         '--continue'],
        work / 'simulated', 'manifest.json')
    for seed in range(arguments.seeds):
        model = work / f'model_{seed}'
        run(['train', '--dataset', work / 'simulated', '--micrographs', *half.learned, '--seed', seed, *topaz,
             '--continue',
             *arguments.train_flags], model, COST)
        judged = model / f'judged_{arguments.draws}.json'
        if not judged.exists():
            write_json(judged, {'draws': [judge_crops(half, model, draw) for draw in range(arguments.draws)]})
        for name, source in (('prior', ['measured']), ('learned', [model, '--force'])):
            run(['generate', '--dataset', work / 'simulated', '--n-micrographs', n, '--seed', 100 + seed, '--continue',
                 '--model', *source], work / f'{name}_{seed}', 'manifest.json')
    if not (work / 'contrast.json').exists():
        write_json(work / 'contrast.json', measure_contrasts(half, arguments.seeds))
    if not arguments.no_evaluate:
        made = [work / f'{name}_{seed}' for name in ('prior', 'learned') for seed in range(arguments.seeds)]
        run(['evaluate', '--generated', *made, '--real', *half.judges, '--coordinates',
             *half.data.list_picks(half.judges), '--no-controls', *topaz], work / 'report', 'report.html')


def judge_crops(half: Half, model: Path, draw: int) -> dict[str, Any]:
    """Measure on a draw of crops of the judges what the card of a model says of those that stopped its training."""
    plan = plan_training(build_config(TrainConfig, read_config_file(model / 'config.json')))
    calibration = plan.dataset.calibration
    judges = RealCrops(half.judges, plan.config.pixel_size, calibration)
    crops = plan.draw_crops(judges, _CROPS, _CROP_SEED + draw)
    seen = RealCrops(half.learned, plan.config.pixel_size, calibration)
    card = read_card(model)['description']
    return measure_gates(crops, seen, build_translator(load_generator(model), card), _CROP_SEED + draw)


def summarise_draws(draws: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return median distances of model and prior in median floors, and the mean loss of signal.

    A floor that is one draw of crops scatters by a factor of two and more, however many crops there are.
    """
    model, prior, floor = (statistics.median(one['realism'][key] for one in draws)
                           for key in ('model', 'prior', 'floor'))
    return {'ratio_model': model / floor, 'ratio_prior': prior / floor,
            'share_better': statistics.fmean(one['realism']['passed'] for one in draws),
            'largest_loss': statistics.fmean(one['signal']['largest_loss'] for one in draws)}


def measure_contrasts(half: Half, n_seeds: int) -> dict[str, float]:
    """Return the contrast of the mean picked particle of each generated set in that of the judges."""
    names = [f'{name}_{seed}' for name in ('prior', 'learned') for seed in range(n_seeds)]
    sets = read_sets([str(half.work / name) for name in names])
    calibration, sign = sets[0].calibration, sets[0].sign
    real = read_real([str(one) for one in half.judges], [str(one) for one in half.data.list_picks(half.judges)], None,
                     calibration, sign)
    diameter_px = calibration.particle_diameter / calibration.pixel_size
    return {name: measure_contrast(one.frames, diameter_px) / measure_contrast(real, diameter_px)
            for name, one in zip(names, sets, strict=True)}


def measure_contrast(frames: Sequence[Frame], diameter_px: float) -> float:
    """Return by how much the mean particle is darker than the ring around it, from 1.2 to 1.6 radii, contrast units."""
    size = 2 * math.ceil(diameter_px)
    mean = np.concatenate([cut_windows(one.contrast, one.centers_yx, size) for one in frames]).mean(axis=0)
    rings, radius = average_rings(mean), diameter_px / 2
    area = np.arange(len(rings))            # of a ring
    inner, outer = slice(0, int(radius)), slice(int(1.2 * radius), int(1.6 * radius))
    return float(np.average(rings[outer], weights=area[outer]) - np.average(rings[inner], weights=area[inner]))


def print_table(name: str, halves: Sequence[Half], arguments: argparse.Namespace) -> None:
    """Print medians and ranges over seeds and halves, prior beside model."""
    runs = [(half, seed) for half in halves for seed in range(arguments.seeds)]
    print(f'\n{name}: {len(halves)} halves, {arguments.seeds} seeds each; median (least to largest)\n')
    print('| | measured | fast | seeds better |\n|---|---|---|---|')
    judged = [summarise_draws(json.loads((half.work / f'model_{seed}' / f'judged_{arguments.draws}.json').read_text())
                              ['draws']) for half, seed in runs]
    show('Fréchet distance of crops, × floor', [one['ratio_prior'] for one in judged],
         [one['ratio_model'] for one in judged])
    show('draws of crops in which it is nearer, share', [0.0] * len(judged), [one['share_better'] for one in judged])
    show('largest loss of correlation in a band', [0.0] * len(judged), [one['largest_loss'] for one in judged])
    contrasts = {half.work: json.loads((half.work / 'contrast.json').read_text()) for half in halves}
    show('particle contrast, of that of real ones', *(
        [contrasts[half.work][f'{arm}_{seed}'] for half, seed in runs] for arm in ('prior', 'learned')))
    if not arguments.no_evaluate:
        reports = {half.work: json.loads((half.work / 'report' / 'report.json').read_text()) for half in halves}
        for label, choose in list_figures(next(iter(reports.values()))):
            show(label, *([choose(reports[half.work], f'{arm}_{seed}') for half, seed in runs]
                          for arm in ('prior', 'learned')))
    cards = [read_card(half.work / f'model_{seed}')['description'] for half, seed in runs]
    show('steps of the model kept', [0.0] * len(cards), [float(one['steps']) for one in cards])
    show('seconds until it', [0.0] * len(cards), [float(one['seconds']) for one in cards])
    costs = [json.loads((half.work / f'model_{seed}' / COST).read_text()) for half, seed in runs]
    show('processor seconds of the whole training', [0.0] * len(costs), [one['processor_seconds'] for one in costs])
    show('peak memory of the training, GB', [0.0] * len(costs), [one['gigabytes'] for one in costs])


def list_figures(report: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return label and reader (report, arm) of each figure of evaluate that is listed."""
    figures: list[tuple[str, Any]] = [
        (f'evaluate: {key}, × floor', lambda one, arm, key=key: one['comparisons'][arm][key]['ratio'])
        for key in report['comparisons']['real'] if key.startswith(('frechet_topaz', 'power', 'background', 'local'))
        or key in _KEPT]
    return [*figures,
            ('classifier, AUC', lambda one, arm: one['classifier'][arm]['auc']),
            ('classifier, lower end of its interval', lambda one, arm: one['classifier'][arm]['low']),
            ('CTF within 3 % of its label, share', lambda one, arm: one['ctf'][arm]['share']),
            ('correlation with the clean twin', lambda one, arm: one['signal'][arm]['correlation']),
            ('amplitude of the signal', lambda one, arm: one['signal'][arm]['transfer']),
            ('picks away from every particle, share', lambda one, arm: one['hallucinations'][arm]['share'])]


def show(label: str, prior: Sequence[float], model: Sequence[float]) -> None:
    """Print one line."""
    better = sum(m < p for p, m in zip(prior, model, strict=True))
    cells = [f'{statistics.median(one):.3g} ({min(one):.3g} to {max(one):.3g})' for one in (prior, model)]
    print(f'| {label} | {cells[0]} | {cells[1]} | {better} of {len(model)} |', flush=True)


if __name__ == '__main__':
    main()
