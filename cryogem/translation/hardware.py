"""What the hardware and the C library offer, asked for and never assumed; where they do not, nothing changes."""

import ctypes
import logging
import platform
import sys

import torch
from llvmlite import binding

logger = logging.getLogger(__name__)

_OLDEST_LLVM = 20                           # that the loops were tried with; 15 has another word for products of bf16
_TOP_PAD, _TRIM_THRESHOLD, _MMAP_MAX = -2, -1, -4          # of mallopt(3)


def has_fast_bf16(device: torch.device | str) -> bool:
    """Say whether `device` computes in bf16 in hardware."""
    device = torch.device(device)
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return device.type == 'cpu' and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) \
            and bool(torch.cpu._is_avx512_bf16_supported())
    except (AttributeError, RuntimeError):  # another build of torch
        return False


def has_bf16_tiles() -> bool:
    """Say whether the CPU multiplies tiles of bf16 (AMX), several times as fast as vectors; unknown counts as yes."""
    try:
        return bool(torch.cpu._is_amx_tile_supported())
    except (AttributeError, RuntimeError):  # another build of torch
        return True                         # what is not known is not built upon


def has_bf16_vectors(device: torch.device | str) -> bool:
    """Say whether loops that numba compiles for `device` multiply bf16 at least as fast as torch does.

    On a CPU with tiles of bf16 (AMX) they do not: torch uses those and is several times as fast as vectors are.
    """
    has_vectors = binding.get_host_cpu_features().get('avx512bf16', False)
    if torch.device(device).type != 'cpu' or has_bf16_tiles() or not has_vectors:
        return False
    if binding.llvm_version_info[0] < _OLDEST_LLVM:
        logger.info('this numba cannot multiply bf16 (LLVM %s, needed is %d): torch computes instead, which takes '
                    'a third longer', '.'.join(map(str, binding.llvm_version_info)), _OLDEST_LLVM)
        return False
    return True


def keep_freed_memory() -> bool:
    """Tell glibc to keep the memory that tensors give back; fetching it anew takes up to a third of the time.

    Raises the memory of an idle process, never its peak. Returns whether it was done: without glibc it is not.
    """
    if not sys.platform.startswith('linux') or platform.libc_ver()[0] != 'glibc':
        logger.info('the C library is not glibc: memory is not kept between steps, which costs some speed')
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        logger.info('the C library has no mallopt: memory is not kept between steps, which costs some speed')
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2 ** 31 - 1) and mallopt(_TOP_PAD, 64 << 20))
