"""Makes micrographs one by one, in this process or in several, each from its index alone."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from cryogem.errors import CryogemError
from cryogem.progress import Progress

Maker = Callable[[int], None]
_recipes: list[tuple[Callable[..., Maker], tuple[Any, ...]]] = []      # how a worker process builds its maker
_makers: list[Maker] = []                   # the maker of a worker process, built once for its first index


def produce(build_maker: Callable[..., Maker], arguments: tuple[Any, ...], indices: Sequence[int], n_total: int,
            n_workers: int) -> None:
    """Make the micrographs of `indices`.

    Parameters
    ----------
    build_maker : importable function; called with `arguments` in each process, it returns what makes one index.
    n_total : number of micrographs of the whole run, for the progress lines.

    Raises
    ------
    CryogemError : a worker died; any exception of a worker is raised here as it is.
    """
    progress = Progress('micrographs', n_total, done=n_total - len(indices))
    progress.update(n_total - len(indices))
    if not indices:
        return
    if n_workers == 1 or len(indices) < 2:
        _produce_here(build_maker(*arguments), indices, n_total, progress)
        return
    # spawn: a forked process with torch's threads hangs
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(min(n_workers, len(indices)), context, _start_worker, (build_maker, arguments)) as pool:
        tasks = [pool.submit(_make_in_worker, index) for index in indices]
        try:
            for n_made, task in enumerate(as_completed(tasks), 1):
                task.result()
                progress.update(n_total - len(indices) + n_made)
        except BrokenProcessPool as error:
            raise CryogemError('workers ended before their work was done, perhaps for lack of memory; '
                               'use fewer and continue the run') from error
        finally:
            pool.shutdown(cancel_futures=True)


def _produce_here(make: Maker, indices: Sequence[int], n_total: int, progress: Progress) -> None:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)                # as in a worker: the same sums in the same order
    try:
        for n_made, index in enumerate(indices, 1):
            make(index)
            progress.update(n_total - len(indices) + n_made)
    finally:
        torch.set_num_threads(n_threads)


def _start_worker(build_maker: Callable[..., Maker], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    _recipes[:] = [(build_maker, arguments)]            # not built here: an exception would not reach the parent


def _make_in_worker(index: int) -> None:
    if not _makers:
        build_maker, arguments = _recipes[0]
        _makers.append(build_maker(*arguments))
    _makers[0](index)
