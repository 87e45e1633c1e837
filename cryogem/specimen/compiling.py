"""Loops over pixels and points that numpy and torch have no fast words for, compiled by numba."""

import logging
from collections.abc import Callable
from typing import Any

import numba

logger = logging.getLogger(__name__)


def compile_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile when it is first called, and keep the machine code for the next process where there is room for it."""
    try:
        return numba.njit(function, cache=True, fastmath=True, nogil=True)
    except RuntimeError:                    # neither this folder nor that of the user can be written
        logger.info('no folder for compiled code can be written: it is compiled anew in every process, which takes '
                    'some seconds; NUMBA_CACHE_DIR names another')
        return numba.njit(function, fastmath=True, nogil=True)
