"""Loads beforehand what is needed late, so that no run waits for it."""

import threading

import numpy as np
import torch

from cryogem.specimen.projection import Projector
from cryogem.specimen.silhouettes import paint_silhouettes


def load_in_background() -> None:
    """Load matplotlib and the compiled loops, half a second, in a thread while the first files are read."""
    threading.Thread(target=_load, name='load').start()


def _load() -> None:
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    Projector(torch.zeros((1, 4, 4, 4))).project(torch.eye(3)[None], torch.zeros((1, 2)))
    paint_silhouettes(np.zeros((1, 4, 4), np.float32), [1], np.zeros((1, 2)), (4, 4))
