"""Realism against CPU seconds: the published training and the default one on the same micrographs, one thread each.

`examples/learning.py` leaves folders of one half of a data set (build/learning/NAME/half_0); give one of them. Both
presets learn from all its micrographs, and crops of the other half judge both alike; the seconds are those of the
learning itself, with the measuring of statistics before it. The models of the best check are written beside the
curves, losses and sample pictures (curve_paper_0, ...), so that `cryogem generate` can use them.
Trainings that are finished are kept.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from cryogem.commands.crops import RealCrops
from cryogem.commands.judging import HeldOut, keep_prior
from cryogem.commands.training_plan import TrainingPlan, plan_training
from cryogem.config import TrainConfig, build_config, read_config_file
from cryogem.io.files import make_folder, write_json
from cryogem.translation.engine import Engine
from cryogem.translation.hardware import keep_freed_memory
from cryogem.translation.learner import Learner
from cryogem.translation.model import save_model
from cryogem.translation.pairs import CropBatch
from cryogem.translation.samples import write_sample

_CROPS, _CROP_SEED = 64, 4711               # of each kind, of the judging crops
_EVERY = {'fast': 10, 'paper': 50}          # steps from one look at a model to the next
_GOAL = 50                                  # times as fast as the published preset


@dataclass(frozen=True)
class Curve:
    """What one training reached when."""

    preset: str
    seed: int
    floor: float                            # distance of the learned real crops from the judging ones
    prior: float
    points: Sequence[tuple[int, float, float]]              # step, CPU seconds, distance
    losses: Sequence[dict[str, float]] = ()                 # means up to each point but the first

    @property
    def best(self) -> tuple[int, float, float]:
        """The point of the least distance."""
        return min(self.points, key=lambda point: point[2])

    def find_best_until(self, seconds: float) -> float:
        """Return the least distance, in floors, that was reached in so many CPU seconds."""
        return min([one for _, spent, one in self.points if spent <= seconds], default=self.prior) / self.floor


def main() -> None:
    """Train both presets and print their curves and how much sooner the default is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('half', type=Path, nargs='?', help='folder of one half, left by examples/learning.py')
    parser.add_argument('--judges', nargs='+', help='patterns of the real micrographs that judge')
    parser.add_argument('--minutes', type=float, default=25.0, help='CPU minutes of the published training')
    parser.add_argument('--steps', type=int, default=2000, help='of its whole schedule: its rate falls to zero there')
    parser.add_argument('--crop-size', type=int, default=256, help='of the published training, px')
    parser.add_argument('--fast-steps', type=int, default=200, help='of the default training')
    parser.add_argument('--seeds', type=int, default=1, help='trainings of the default preset')
    arguments = parser.parse_args()
    if arguments.half is None or not arguments.judges:
        print('not measured: no folder of examples/learning.py and no --judges were given')
        return
    torch.set_num_threads(1)
    keep_freed_memory()
    curves = [record_curve(arguments, 'fast', seed, arguments.fast_steps, 10.0, None)
              for seed in range(arguments.seeds)]
    curves.append(record_curve(arguments, 'paper', 0, arguments.steps, arguments.minutes, arguments.crop_size))
    compare(curves)


def record_curve(arguments: argparse.Namespace, preset: str, seed: int, steps: int, minutes: float,
                 crop_size: int | None) -> Curve:
    """Train one preset, judging it now and then, and keep what it reached; one that is finished is read."""
    output = arguments.half / f'curve_{preset}_{seed}'
    if (output / 'curve.json').exists():
        curve = Curve(**json.loads((output / 'curve.json').read_text()))
        if curve.points[-1][0] >= steps or curve.points[-1][1] >= 60 * minutes:
            return curve
    known = read_config_file(arguments.half / 'model_0' / 'config.json')
    config = build_config(TrainConfig, {
        'dataset': known['dataset'], 'micrographs': known['micrographs'], 'topaz_weights': known['topaz_weights'],
        'output': str(output), 'preset': preset, 'seed': seed, 'max_steps': steps, 'crop_size': crop_size,
        'held_out': 0.0})
    began = time.process_time()
    plan = plan_training(config)
    goal = plan.measure_textures()
    prepared = time.process_time() - began  # the measured statistics are a part of learning
    learner = Learner(plan.settings, goal=goal)
    judge, floor = build_judge(plan, arguments.judges)
    prior = judge.judge(keep_prior)
    print(f'{preset}, seed {seed}: prior {prior:.4f}, floor {floor:.4f} ({prior / floor:.2f} times)', flush=True)
    curve = Curve(preset, seed, floor, prior, ((0, prepared, prior),))
    spent, sampler, losses = prepared, plan.build_sampler(Engine()), []
    for step in range(steps):
        began = time.process_time()
        batch = sampler.draw(step)
        losses.append(learner.learn(batch, step))
        spent += time.process_time() - began
        is_over = step + 1 == steps or spent >= 60 * minutes
        if not is_over and (step + 1) % _EVERY[preset]:
            continue
        found = judge.judge(learner.translate)
        is_better = found < curve.best[2]
        curve = replace(curve, points=(*curve.points, (step + 1, spent, found)),
                        losses=(*curve.losses, average_losses(losses)))
        losses.clear()
        print(f'  step {step + 1}, {spent:.1f} CPU s: {found:.4f} ({found / floor:.2f} times the floor); '
              + ', '.join(f'{key} {value:.3g}' for key, value in curve.losses[-1].items()), flush=True)
        keep(output, curve, learner, batch)
        if is_better:
            save_model(output, learner.averaged, {**plan.describe(Engine()), 'steps': step + 1, 'seconds': spent},
                       f'weights_{step + 1:06d}.safetensors')
        if is_over:
            break
    return curve


def average_losses(losses: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each loss that the preset has, over the steps since the last look."""
    means = {key: statistics.fmean(one[key] for one in losses) for key in losses[0]}
    return {key: value for key, value in means.items() if value}


def keep(output: Path, curve: Curve, learner: Learner, batch: CropBatch) -> None:
    """Write the curve so far, and a sample picture: clean, prior, generated, real."""
    samples = output / 'samples'
    make_folder(samples)
    write_json(output / 'curve.json', asdict(curve))
    write_sample(samples / f'step_{curve.points[-1][0]:06d}.png', batch, learner.translate(batch.inputs[:1]))


def build_judge(plan: TrainingPlan, patterns: list[str]) -> tuple[HeldOut, float]:
    """Return crops of the judging micrographs, and their distance from crops of those that are learned from."""
    config, calibration = plan.config, plan.dataset.calibration
    files = sorted(file for pattern in patterns for file in Path('/').glob(str(Path(pattern).absolute())[1:]))
    if not files:
        sys.exit(f'no micrographs match {" ".join(patterns)}')
    judges, seen = (RealCrops(one, config.pixel_size, calibration) for one in (files, plan.real.files))
    made = [plan.draw_crops(real, _CROPS, _CROP_SEED) for real in (judges, seen)]
    return made[0], made[0].measure_distance(made[1].real)


def compare(curves: list[Curve]) -> None:
    """Print when each training of the default reached what the published one reached at its best and at its end."""
    paper = curves[-1]
    end = max(curve.points[-1][1] for curve in curves[:-1])
    print('\ntimes the floor, best until then:\n| CPU s | published | default |\n|---|---|---|')
    for share in (0.25, 0.5, 1.0):
        values = ', '.join(f'{curve.find_best_until(share * end):.2f}' for curve in curves[:-1])
        print(f'| {share * end:.0f} | {paper.find_best_until(share * end):.2f} | {values} |')
    for when, (step, seconds, distance) in (('its best', paper.best), ('its end', paper.points[-1])):
        print(f'published training at {when}: {distance / paper.floor:.2f} times the floor at step {step}, '
              f'{seconds:.0f} CPU s')
        for curve in curves[:-1]:
            reached = next((point for point in curve.points if point[2] <= distance), None)
            if reached is None:
                print(f'  default, seed {curve.seed}: does not reach it; its best is '
                      f'{curve.best[2] / curve.floor:.2f} times the floor at {curve.best[1]:.1f} CPU s')
                continue
            print(f'  default, seed {curve.seed}: reaches it at step {reached[0]}, {reached[1]:.1f} CPU s: '
                  f'{seconds / reached[1]:.0f} times as fast, goal {_GOAL}')


if __name__ == '__main__':
    main()
