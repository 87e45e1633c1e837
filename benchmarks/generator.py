"""The published generator on whole frames: the plain eager network against ours; the fast generator beside both.

Give the sides of the frames (px) as arguments; default 1024. 4096 needs 8 GiB for the plain network. Each side runs in
processes of its own, in turn: ours with freed memory kept, the plain one with the allocator as it comes.
"""

import sys
from collections.abc import Callable
from functools import partial

import torch
from networks import PlainGenerator
from timing import print_ratio, report_alone, time_alone_pairs

from cryogem.translation.generator import ResidualGenerator
from cryogem.translation.hardware import has_fast_bf16, keep_freed_memory
from cryogem.translation.lean import LeanPaperGenerator
from cryogem.translation.paper import PaperGenerator
from cryogem.translation.settings import TrainerSettings
from cryogem.translation.textures import SCALES

_GFLOP = 190.6                              # of the published generator at 1024 x 1024
_BOUNDS = {'bf16': 487e9, 'float32': 204e9}  # FLOP/s of one core (best layer of oneDNN)
_GOALS = {'bf16': '3.8', 'float32': '1.4', 'fast': '20'}
_PAIRS, _RUNS = 3, 2


def main() -> None:
    """Time all sides and print the bound and the memory of ours."""
    if len(sys.argv) > 2 and not sys.argv[1].isdigit():
        report_alone(_prepare(sys.argv[1], int(sys.argv[2])), _RUNS)
        return
    kinds = ['float32', 'fast']
    if has_fast_bf16('cpu'):
        kinds = ['bf16', *kinds]
    else:
        print('this CPU has no fast bf16: it could not be measured')
    for side in [int(one) for one in sys.argv[1:]] or [1024]:
        if side <= 1024:
            _print_error(side)
        for kind in kinds:
            (reference, plain_memory), (ours, memory) = time_alone_pairs(__file__, 'plain', kind, side, _PAIRS)
            name = 'fast generator' if kind == 'fast' else f'published generator, {kind}'
            print_ratio(f'{name}, {side}², one thread', reference, ours, _GOALS[kind])
            bound = _GFLOP * 1e9 * (side / 1024) ** 2 / _BOUNDS[kind] if kind in _BOUNDS else None
            print(f'  peak memory {memory:.2f} GiB, plain {plain_memory:.2f}'
                  + (f'; bound {bound:.3f} s, distance {ours / bound:.2f}' if bound else ''), flush=True)


def _prepare(kind: str, side: int) -> Callable[[], object]:
    """Return what translates one frame in one of the ways."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    if kind == 'plain':
        return partial(PlainGenerator().eval(), torch.rand(1, 1, side, side) * 2 - 1)
    keep_freed_memory()
    if kind == 'fast':
        generator = ResidualGenerator(TrainerSettings.channels, TrainerSettings.n_levels, 2 + len(SCALES))
        return partial(generator.eval(), torch.randn(1, generator.n_inputs, side, side))
    return partial(LeanPaperGenerator(PaperGenerator(), kind == 'bf16'), torch.rand(1, 1, side, side) * 2 - 1)


def _print_error(side: int) -> None:
    """Print how far ours are from the plain network with the same weights."""
    torch.manual_seed(0)
    plain, ours = PlainGenerator().eval(), PaperGenerator().eval()
    ours.load_state_dict(plain.state_dict())
    with torch.no_grad():
        image = torch.rand(1, 1, side, side) * 2 - 1
        expected = plain(image)
        for is_half in (True, False):
            found = LeanPaperGenerator(ours, is_half)(image)
            error = float((found - expected).square().mean().sqrt() / expected.std())
            print(f'rms difference at {side}², {"bf16" if is_half else "float32"}: {100 * error:.4f} % of the sd, '
                  f'goal at most 1.5 %')


if __name__ == '__main__':
    main()
