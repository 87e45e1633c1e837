"""Makes torchvision's common build importable beside a CPU-only build of torch, for packages that import it.

Its compiled operators cannot load there, so `torchvision::nms` stays undefined and the import raises. With the two
schemas declared first, transforms and models work; detection does not, and nothing here needs it.
"""

import importlib.util
import sys

import torch

_SCHEMA = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
_declared: list[torch.library.Library] = []             # an operator lives as long as its library object


def declare_torchvision_operators() -> None:
    """Declare what is missing, before the first import of torchvision; else nothing is done."""
    is_needed = torch.version.cuda is None and not _declared and 'torchvision' not in sys.modules
    if not is_needed or importlib.util.find_spec('torchvision') is None:
        return
    library = torch.library.Library('torchvision', 'FRAGMENT')
    for name in ('nms', 'qnms'):
        library.define(f'{name}{_SCHEMA}')
    _declared.append(library)
