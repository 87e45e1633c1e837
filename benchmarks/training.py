"""One training step of the published preset: the plain way against ours, and of the fast preset beside both.

The plain step runs float32 modules over full frames, and a full forward pass for every set of features. Each side runs
in processes of its own, in turn.

Run: python benchmarks/training.py [--sides 1024] [--kinds bf16 fast] [--rounds 1] [--runs 1]
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from networks import PlainDiscriminator, PlainGenerator, measure_convolution_rate
from timing import parse_kinds, print_bound, print_ratio, report_alone, time_alone_in_turn

from cryogem.translation.hardware import has_fast_bf16, keep_freed_memory
from cryogem.translation.learner import Learner
from cryogem.translation.losses import (
    ProjectionHeads,
    compute_contrastive_loss,
    compute_discriminator_loss,
    compute_generator_loss,
)
from cryogem.translation.pairs import CropBatch
from cryogem.translation.sampling import draw_region_positions, reduce_mask
from cryogem.translation.settings import PAPER, TrainerSettings
from cryogem.translation.statistics import StatisticsGoal, measure_statistics
from cryogem.translation.textures import SCALES

_GFLOP = {'bf16': 4028, 'float32': 4028, 'crop512': 1572, 'crop256': 958}       # at 1024 x 1024; of the plain step 4469
_KNOWN_RATES = {True: 487e9, False: 204e9}  # FLOP/s of one core, bf16 and not, best layer, where the goals were set
_GOALS = {'bf16': '2.6', 'float32': '1.4', 'crop512': '5.5', 'crop256': '-', 'fast': '-'}


def main() -> None:
    """Time all sides and print the bound and the memory of ours."""
    # few, for a plain step takes a minute
    arguments = parse_kinds(__doc__, list(_GOALS), 'steps', n_rounds=1, n_runs=1)
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        report_alone(_prepare(arguments.alone, arguments.sides[0]), arguments.runs)
        return
    kinds = [one for one in arguments.kinds if one in ('float32', 'fast') or has_fast_bf16('cpu')]
    if len(kinds) < len(arguments.kinds):
        print('this CPU has no fast bf16: it could not be measured')
    for side in arguments.sides:
        (reference, plain_memory), *found = time_alone_in_turn(
            __file__, ['plain', *kinds], side, arguments.rounds, arguments.runs, arguments.threads)
        for kind, (ours, memory) in zip(kinds, found, strict=True):
            print_figures(kind, side, (reference, plain_memory), (ours, memory), arguments.threads)


def print_figures(
    kind: str, side: int, plain: tuple[float, float], found: tuple[float, float], n_threads: int
) -> None:
    """Print seconds and memory of one kind beside those of the plain step."""
    (reference, plain_memory), (ours, memory) = plain, found
    name = 'fast preset, 8 crops of 128²' if kind == 'fast' else f'published preset, {kind}'
    print_ratio(f'training step at {side}², {name}', reference, ours, _GOALS[kind])
    print(f'  peak memory {memory:.2f} GiB, plain {plain_memory:.2f}', flush=True)
    if kind in _GFLOP:
        is_half = kind != 'float32'
        print_bound(ours, reference, _GFLOP[kind] * 1e9 * (side / 1024) ** 2, _KNOWN_RATES[is_half] * n_threads,
                    measure_convolution_rate(is_half))


def _prepare(kind: str, side: int) -> Callable[[], object]:
    """Return what takes one training step in one of the ways."""
    torch.manual_seed(0)
    if kind == 'plain':
        return PlainTraining(side).step
    keep_freed_memory()
    shared: dict[str, Any] = {'max_steps': 10, 'checkpoint_every': 10, 'temperature': 0.07, 'n_positions': 256,
                              'seed': 0}
    if kind == 'fast':
        batch, real = _draw_batch(128, 8, 2 + len(SCALES)), torch.randn(16, 1, 128, 128)
        goal = StatisticsGoal(measure_statistics(real), measure_statistics(real))
        settings = TrainerSettings(**shared, learning_rate=2e-4, contrastive_weight=0.0,
                                   adversarial_weight=0.0, n_inputs=2 + len(SCALES))
        return partial(Learner(settings, goal=goal).learn, batch, 0)
    crop = int(kind.removeprefix('crop')) if kind.startswith('crop') else None
    settings = TrainerSettings(**shared, **PAPER, learning_rate=1e-4, contrastive_weight=10.0, statistics_weight=0.0,
                               depth=side.bit_length() - 1, mixed_precision=kind != 'float32', discriminator_crop=crop)
    return partial(Learner(settings).learn, _draw_batch(side, 1, 1), 0)


def _draw_batch(side: int, n_crops: int, n_inputs: int) -> CropBatch:
    mask = torch.zeros(n_crops, 1, side, side, dtype=torch.bool)
    mask[..., side // 4:side // 2, side // 4:side // 2] = True
    return CropBatch(torch.randn(n_crops, n_inputs, side, side), mask, torch.randn(n_crops, 1, side, side))


class PlainTraining:
    """The published training step, written plainly: discriminator, then generator and heads."""

    def __init__(self, side: int):
        self.generator, self.discriminator = PlainGenerator(side.bit_length() - 1), PlainDiscriminator()
        self.heads = ProjectionHeads((64, 128, 256, 512, 512))
        self.optimizers = [torch.optim.Adam(one.parameters(), 1e-4, (0.5, 0.999))
                           for one in (self.generator, self.discriminator, self.heads)]
        self.batch = _draw_batch(side, 1, 1)

    def step(self) -> None:
        """Take one step."""
        image, real = (self.batch.inputs / 5).clamp(-1, 1), (self.batch.real / 5).clamp(-1, 1)
        made = self.generator(image)
        self.discriminator.requires_grad_(True)
        self.optimizers[1].zero_grad()
        compute_discriminator_loss(self.discriminator(real), self.discriminator(made.detach())).backward()
        self.optimizers[1].step()
        self.discriminator.requires_grad_(False)
        self.optimizers[0].zero_grad()
        self.optimizers[2].zero_grad()
        queries, keys = self.generator.request_features(made), self.generator.request_features(image)
        random = torch.Generator().manual_seed(0)
        positions = [draw_region_positions(reduce_mask(self.batch.mask, one.shape[-2:]), 256, random) for one in keys]
        contrastive = compute_contrastive_loss(self.heads, queries, keys, positions, 0.07)
        (compute_generator_loss(self.discriminator(made)) + 10 * contrastive).backward()
        self.optimizers[0].step()
        self.optimizers[2].step()


if __name__ == '__main__':
    main()
