"""Work that goes on beside the engine: outputs grow while it runs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FIRST = 0.5                                # seconds to the first time
_SHARE = 0.1                                # of the time at most is spent on the work


@contextmanager
def repeatMeanwhile(work: Callable[[], object], interval: float) -> Iterator[None]:
    """Call `work` in a thread every `interval` seconds while the block runs, and once more at its end, however it ends.

    More often in the beginning, when somebody may be watching; more rarely when the work takes long. What it raises
    ends it and is printed, but does not stop the block.
    """
    isOver = threading.Event()

    def repeat() -> None:
        pause, isLast = min(_FIRST, interval), False
        while not isLast:
            isLast = isOver.wait(pause)
            started = time.monotonic()
            work()
            pause = max(min(2 * pause, interval), (time.monotonic() - started) / _SHARE)

    thread = threading.Thread(target=repeat, name='outputs', daemon=True)
    thread.start()
    try:
        yield
    finally:
        isOver.set()
        thread.join()
