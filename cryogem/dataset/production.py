"""Makes micrographs one by one, in this process or in several, each from its index alone.

In each process three stages overlap: the specimen of one micrograph is imaged while noise is added to the one before
and the one before that is written. Few wait between the stages, so a slow disk holds the others up and memory stays
bounded, whatever the number of micrographs.
"""

import contextlib
import itertools
import logging
import multiprocessing
import os
import pickle
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from cryogem.errors import CryogemError, OutputError
from cryogem.progress import Progress

logger = logging.getLogger(__name__)

_CHUNK = 8                                  # most micrographs that a worker is told to make at once
_WAITING = 1                                # batches that wait for the last stage in each process
_SLOTS = 1024                               # in which workers count; two in one may lose a count now and then
_POLL = 1.0                                 # s between progress lines at least


@dataclass(frozen=True)
class Stages:
    """How a micrograph is made. Stages of different micrographs run at the same time, each in a thread of its own."""

    prepare: Callable[[int], Any]           # from its index to what is developed
    develop: Callable[[list[Any]], list[Any]]           # a batch of what was prepared to what is written
    write: Callable[[Any], None]
    batch_size: int = 1                     # how many are developed together


Maker = Callable[[int], None] | Stages      # a plain function makes and writes one micrograph
_recipes: list[str] = []                    # file that says how a worker process builds its maker
_makers: list[Maker] = []                   # the maker of a worker process, built once for its first index
_counters: list[Any] = []                   # of a worker process: how many each has made, for progress lines alone


def produce(build_maker: Callable[..., Maker], arguments: tuple[Any, ...], indices: Sequence[int], n_total: int,
            n_workers: int, label: str = 'micrographs') -> None:
    """Make the micrographs of `indices`.

    Parameters
    ----------
    build_maker : importable function; called with `arguments` in each process, it returns what makes one index.
    n_total : number of micrographs that `indices` is the missing part of, for the progress lines.
    label : what the progress lines call them.

    Raises
    ------
    CryogemError : a worker died; any exception of a worker is raised here as it is.
    """
    progress = Progress(label, n_total, done=n_total - len(indices))
    progress.update(n_total - len(indices))
    if not indices:
        return

    def tell(n_made: int) -> None:
        progress.update(n_total - len(indices) + n_made)

    if n_workers == 1 or len(indices) < 2:
        _produce_here(build_maker(*arguments), indices, tell)
    else:
        _produce_in_workers(build_maker, arguments, indices, min(n_workers, len(indices)), tell)


def _produce_here(maker: Maker, indices: Sequence[int], tell: Callable[[int], None]) -> None:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)                # as in a worker: the same sums in the same order
    made = itertools.count(1)
    try:
        _run(maker, indices, lambda: tell(next(made)))
    finally:
        torch.set_num_threads(n_threads)


def _produce_in_workers(build_maker: Callable[..., Maker], arguments: tuple[Any, ...], indices: Sequence[int],
                        n_workers: int, tell: Callable[[int], None]) -> None:
    # spawn: a forked process with torch's threads hangs
    context = multiprocessing.get_context('spawn')
    counts = context.RawArray('q', _SLOTS)  # without a lock: a worker that is killed would keep it
    with _keep_recipe(build_maker, arguments) as recipe:
        _run_pool(context, recipe, counts, indices, n_workers, tell)


@contextlib.contextmanager
def _keep_recipe(build_maker: Callable[..., Maker], arguments: tuple[Any, ...]) -> Iterator[str]:
    """Give a file with what workers need.

    Handed over as an argument it would pass through a pipe, and a worker that dies before it has read all of it would
    leave this process waiting for ever.
    """
    with tempfile.NamedTemporaryFile(prefix='cryogem_', suffix='.pickle') as file:
        try:
            pickle.dump((build_maker, arguments), file, protocol=pickle.HIGHEST_PROTOCOL)
            file.flush()
        except OSError as error:
            raise OutputError(f'temporary folder {tempfile.gettempdir()!r} cannot be written: {error.strerror}; '
                              'free space there, or set TMPDIR to another folder') from error
        yield file.name


def _run_pool(context: Any, recipe: str, counts: Any, indices: Sequence[int], n_workers: int,
              tell: Callable[[int], None]) -> None:
    """Let a pool of workers make the micrographs of `indices`."""
    chunks = _split(indices, max(1, min(_CHUNK, len(indices) // (4 * n_workers))))
    with ProcessPoolExecutor(n_workers, context, _start_worker, (recipe, counts)) as pool:
        running: set[Future[None]] = set()
        try:
            for chunk in chunks:
                running.add(pool.submit(_make_in_worker, chunk))
                while len(running) >= 2 * n_workers:        # a task waits for each worker, not all of a long run
                    running = _await_some(running)
                    tell(sum(counts))
            while running:
                running = _await_some(running)
                tell(sum(counts) if running else len(indices))
        except BrokenProcessPool as error:
            raise CryogemError('workers ended before their work was done, perhaps for lack of memory; '
                               'use fewer and continue the run') from error
        finally:
            pool.shutdown(cancel_futures=True)


def _await_some(running: set[Future[None]]) -> set[Future[None]]:
    """Wait for a task or a little while; return the tasks that still run."""
    done, running = wait(running, _POLL, FIRST_COMPLETED)
    for task in done:
        task.result()
    return running


def _split(indices: Sequence[int], length: int) -> Iterator[Sequence[int]]:
    return (indices[i:i + length] for i in range(0, len(indices), length))


def _run(maker: Maker, indices: Sequence[int], count: Callable[[], None]) -> None:
    """Make micrographs in this process and call `count` after each."""
    if isinstance(maker, Stages):
        _run_stages(maker, indices, count)
        return
    for index in indices:
        maker(index)
        count()


def _run_stages(stages: Stages, indices: Sequence[int], count: Callable[[], None]) -> None:
    start_thread = partial(torch.set_num_threads, 1)
    waiting: deque[Future[None]] = deque()

    def write(developed: Future[list[Any]]) -> None:
        for one in developed.result():
            stages.write(one)
            count()

    with ThreadPoolExecutor(1, 'develop', start_thread) as developer, ThreadPoolExecutor(1, 'write', start_thread) as \
            writer:
        try:
            for batch in _split(indices, stages.batch_size):
                prepared = [stages.prepare(index) for index in batch]
                while len(waiting) > _WAITING:
                    waiting.popleft().result()
                waiting.append(writer.submit(write, developer.submit(stages.develop, prepared)))
            while waiting:
                waiting.popleft().result()
        finally:
            _finish_waiting(waiting)


def _finish_waiting(waiting: 'deque[Future[None]]') -> None:
    """Let what was prepared before an error be written, unless that fails, too."""
    while waiting:
        if waiting.popleft().exception() is not None:
            for one in waiting:
                one.cancel()
            return


def _start_worker(recipe: str, counts: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _recipes[:] = [recipe]                              # not built here: an exception would not reach the parent
    _counters[:] = [counts]


def _end_with_parent() -> None:
    """End this worker when the process that started it is gone: nobody would tell it to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_in_worker(indices: Sequence[int]) -> None:
    if not _makers:
        with open(_recipes[0], 'rb') as file:
            build_maker, arguments = pickle.load(file)
        _makers.append(build_maker(*arguments))
    _run(_makers[0], indices, _count)


def _count() -> None:
    _counters[0][os.getpid() % _SLOTS] += 1
