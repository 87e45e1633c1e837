"""The published generator on whole frames: the plain eager network against ours; the fast generator beside both.

4096² needs 8 GiB for the plain network. Each side runs in processes of its own, in turn: ours with freed memory kept,
the plain one with the allocator as it comes.

Run: python benchmarks/generator.py [--sides 1024 4096] [--kinds bf16] [--rounds 1] [--runs 1]
"""

from collections.abc import Callable
from functools import partial

import torch
from networks import PlainGenerator, measure_convolution_rate
from timing import parse_kinds, print_bound, print_ratio, report_alone, time_alone_in_turn

from cryogem.translation.generator import ResidualGenerator
from cryogem.translation.hardware import has_fast_bf16, keep_freed_memory
from cryogem.translation.lean import LeanPaperGenerator
from cryogem.translation.paper import PaperGenerator
from cryogem.translation.settings import TrainerSettings
from cryogem.translation.textures import SCALES

_GFLOP = 190.6                              # of the published generator at 1024 x 1024
_KNOWN_RATES = {'bf16': 487e9, 'float32': 204e9}       # FLOP/s of one core, best layer, where the goals were set
_GOALS = {'bf16': '3.8; at 4096² 4', 'float32': '1.4', 'fast': '20'}


def main() -> None:
    """Time all sides and print the bound and the memory of ours."""
    arguments = parse_kinds(__doc__, list(_GOALS), 'frames', n_rounds=3, n_runs=2)
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        report_alone(_prepare(arguments.alone, arguments.sides[0]), arguments.runs)
        return
    kinds = [one for one in arguments.kinds if one != 'bf16' or has_fast_bf16('cpu')]
    if len(kinds) < len(arguments.kinds):
        print('this CPU has no fast bf16: it could not be measured')
    for side in arguments.sides:
        if side <= 1024:
            _print_error(side, kinds)
        (reference, plain_memory), *found = time_alone_in_turn(
            __file__, ['plain', *kinds], side, arguments.rounds, arguments.runs, arguments.threads)
        for kind, (ours, memory) in zip(kinds, found, strict=True):
            name = 'fast generator' if kind == 'fast' else f'published generator, {kind}'
            print_ratio(f'{name}, {side}²', reference, ours, _GOALS[kind])
            print(f'  peak memory {memory:.2f} GiB, plain {plain_memory:.2f}', flush=True)
            if kind in _KNOWN_RATES:
                print_bound(ours, reference, _GFLOP * 1e9 * (side / 1024) ** 2, _KNOWN_RATES[kind] * arguments.threads,
                            measure_convolution_rate(kind == 'bf16'))


def _prepare(kind: str, side: int) -> Callable[[], object]:
    """Return what translates one frame in one of the ways."""
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    if kind == 'plain':
        return partial(PlainGenerator().eval(), torch.rand(1, 1, side, side) * 2 - 1)
    keep_freed_memory()
    if kind == 'fast':
        generator = ResidualGenerator(TrainerSettings.channels, TrainerSettings.n_levels, 2 + len(SCALES))
        return partial(generator.eval(), torch.randn(1, generator.n_inputs, side, side))
    return partial(LeanPaperGenerator(PaperGenerator(), kind == 'bf16'), torch.rand(1, 1, side, side) * 2 - 1)


def _print_error(side: int, kinds: list[str]) -> None:
    """Print how far ours are from the plain network with the same weights."""
    torch.manual_seed(0)
    plain, ours = PlainGenerator().eval(), PaperGenerator().eval()
    ours.load_state_dict(plain.state_dict())
    with torch.no_grad():
        image = torch.rand(1, 1, side, side) * 2 - 1
        expected = plain(image)
        for kind in [one for one in kinds if one in _KNOWN_RATES]:
            found = LeanPaperGenerator(ours, kind == 'bf16')(image)
            error = float((found - expected).square().mean().sqrt() / expected.std())
            print(f'rms difference at {side}², {kind}: {100 * error:.4f} % of the sd, goal at most 1.5 %')


if __name__ == '__main__':
    main()
