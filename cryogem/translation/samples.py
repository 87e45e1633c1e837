"""Pictures of training: what the generator was given, what it made, and what it should look like."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from cryogem.io.files import replace_when_done
from cryogem.translation.pairs import CropBatch

_SPREAD = 3.0                               # sd of the real crop on either side of its mean, black to white
_GAP = 4                                    # px of white between crops


def write_sample(path: Path, batch: CropBatch, generated: Tensor) -> None:
    """Write crops side by side as an 8 bit PNG: the first of `batch`, what is clean (if known), prior, generated, real.

    `generated` is the translation (b, 1, h, w) of the first. All have the grey mapping of the last one, the real crop:
    its mean ± 3 sd from black to white.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    clean = [] if batch.signal is None else [batch.signal]
    crops = [one[0, 0].cpu().numpy() for one in (*clean, batch.prior, generated, batch.real)]
    mean, sd = float(crops[-1].mean()), max(float(crops[-1].std()), 1e-6)
    shown = [np.clip((crop - mean) / (2 * _SPREAD * sd) + 0.5, 0, 1) for crop in crops]
    frames = [np.pad(one, ((0, 0), (0, _GAP)), constant_values=1.0) for one in shown[:-1]] + [shown[-1]]
    picture = Image.fromarray((np.concatenate(frames, axis=1) * 255).round().astype(np.uint8))
    with replace_when_done(path) as temporary:
        picture.save(temporary, format='PNG')
