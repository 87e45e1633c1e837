"""Features of a network that was trained on real micrographs, and distances between sets of them.

The network is the detector that ships in the wheel of topaz-em (Bepler et al. 2019, Nat. Methods 16:1153), built here
from its weights: topaz is not imported, and no code of the file is run. How it is used::

    network = load_topaz_network(find_topaz_weights())
    real = [extract_features(network, draw_crops(image, 4, 256, rng)) for image in real_images]
    compute_frechet_distance(np.concatenate(real), generated)
    measure_null(real, rng)                    # what two halves of the real set differ by, split by micrograph
"""

import importlib.util
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cryogem.errors import InputError

GRID = 4                                    # features are averaged in this many cells along each side of a crop
DEFAULT_CROP = 256                          # px
LEAST_CROP = 84                             # px: below it a cell of the grid has less than one feature
_WEIGHTS = 'pretrained/detector/resnet8_u32.sav'
_PREFIX = 'features.features.'              # of the extractor's tensors in the file
_LEAST_SD = 0.25                            # of the median over channels: a nearly dead channel counts little
_BATCH = 8                                  # crops

Distance = Callable[[np.ndarray, np.ndarray], float]


class TopazNetwork(nn.Module):
    """The feature extractor of Topaz's ResNet8 with 32 units: 128 channels at a quarter of the resolution."""

    def __init__(self, units: int = 32):
        super().__init__()
        self.blocks = nn.Sequential(
            _Convolution(1, units, 7, stride=2),
            _Residual(units, units), _Residual(units, 2 * units, stride=2), _Residual(2 * units, 2 * units),
            _Convolution(2 * units, 4 * units, 5))

    def forward(self, images: Tensor) -> Tensor:
        """Return (b, 128, h', w') features, about (h - 68) / 4 px high, of `images` (b, 1, h, w) of unit sd."""
        return self.blocks(images)


class _Convolution(nn.Module):
    def __init__(self, above: int, below: int, size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(above, below, size, stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.conv(features))


class _Residual(nn.Module):
    """Two 3x3 convolutions, the second over every other px, without padding; the shortcut is cut to fit."""

    def __init__(self, above: int, below: int, stride: int = 1, dilation: int = 2):
        super().__init__()
        self.proj = nn.Conv2d(above, below, 1, stride=stride, bias=False) if above != below else None
        self.conv0 = nn.Conv2d(above, above, 3)
        self.conv1 = nn.Conv2d(above, below, 3, stride=stride, dilation=dilation)
        self.edge = 1 + dilation

    def forward(self, features: Tensor) -> Tensor:
        shortcut = features[..., self.edge:-self.edge, self.edge:-self.edge]
        if self.proj is not None:
            shortcut = self.proj(shortcut)
        return functional.relu(self.conv1(functional.relu(self.conv0(features))) + shortcut)


def find_topaz_weights(given: str = '') -> Path | None:
    """Return the file of the detector's weights.

    Parameters
    ----------
    given : the file, or the folder of topaz-em or of the environment it was installed in; empty: of the topaz in this
        Python's path, else of the program `topaz`, if any.

    Returns
    -------
    The file, or None where nothing was given and there is no topaz.

    Raises
    ------
    InputError : what was given holds no weights.
    """
    if given:
        found = _find_below(Path(given).expanduser())
        if found is None:
            raise InputError(f'topaz_weights {given!r} holds no {Path(_WEIGHTS).name}; '
                             'give that file, or the folder topaz-em is installed in')
        return found
    package, program = importlib.util.find_spec('topaz'), shutil.which('topaz')
    folders = [Path(one) for one in (package.submodule_search_locations or ())] if package else []
    folders += [Path(program).resolve().parents[1]] if program else []
    return next(filter(None, map(_find_below, folders)), None)


def _find_below(path: Path) -> Path | None:
    """Return the weights that `path` is or holds: itself, in the package, where it was installed, in an environment."""
    if path.is_file():
        return path
    installed = sorted(path.glob(f'lib/python*/site-packages/topaz/{_WEIGHTS}'))
    return next((one for one in (path / _WEIGHTS, path / 'topaz' / _WEIGHTS, *installed) if one.is_file()), None)


def load_topaz_network(path: Path, device: str | torch.device = 'cpu') -> TopazNetwork:
    """Build the network from its file; only tensors are read, code in the file is refused.

    Raises
    ------
    InputError : not readable as tensors, or of another network.
    """
    try:
        tensors = torch.load(path, map_location='cpu', weights_only=True)
        network = TopazNetwork()
        network.blocks.load_state_dict({name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()
                                        if name.startswith(_PREFIX)})
    except (OSError, RuntimeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f'topaz_weights {str(path)!r} are not the tensors of the detector resnet8_u32 '
                         f'({type(error).__name__}); give resnet8_u32.sav of topaz-em') from error
    return network.to(device).eval().requires_grad_(False)


def draw_crops(image: np.ndarray, count: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Cut `count` random (side, side) crops from an (h, w) micrograph and give each zero mean and unit sd.

    Raises
    ------
    InputError : the micrograph is smaller than a crop.
    """
    if min(image.shape) < side:
        raise InputError(f'micrographs are {image.shape[1]} x {image.shape[0]} px, less than crops of {side}; '
                         'use larger ones')
    corners = [rng.integers(length - side + 1, size=count) for length in image.shape]
    crops = np.stack([image[y:y + side, x:x + side] for y, x in zip(*corners, strict=True)]).astype(np.float32)
    crops -= crops.mean(axis=(1, 2), keepdims=True)
    return crops / np.maximum(crops.std(axis=(1, 2), keepdims=True), 1e-12)


@torch.inference_mode()
def extract_features(network: nn.Module, crops: np.ndarray) -> np.ndarray:
    """Return the features of (n, h, w) crops in 4 x 4 cells: (16 n, d) float64, cells of one crop together.

    Raises
    ------
    InputError : crops are too small for the grid.
    """
    if min(crops.shape[-2:]) < LEAST_CROP:
        raise InputError(f'crops of {crops.shape[-1]} x {crops.shape[-2]} px are too small for the network; '
                         f'use at least {LEAST_CROP} px')
    device = next(network.parameters()).device
    parts = []
    for first in range(0, len(crops), _BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(crops[first:first + _BATCH, None], dtype=np.float32))
        cells = functional.adaptive_avg_pool2d(network(batch.to(device)), GRID)
        parts.append(cells.flatten(2).transpose(1, 2).flatten(0, 1).cpu())
    return torch.cat(parts).double().numpy()


def compute_frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the Fréchet distance of Gaussians fitted to (n, d) and (m, d) features, per dimension.

    Channels are scaled by the sd of the real ones, so that all count alike, with a floor for those that hardly ever
    answer. Grows as 1/n for small sets: compare equal numbers (Heusel et al. 2017, arXiv 1706.08500).
    """
    real, generated = _scale_channels(real, generated)
    difference = real.mean(axis=0) - generated.mean(axis=0)
    centered = [(one - one.mean(axis=0)) / np.sqrt(len(one) - 1) for one in (real, generated)]
    variances = sum(float((one ** 2).sum()) for one in centered)
    return float(difference @ difference + variances - 2 * _trace_root(*centered)) / real.shape[1]


def _trace_root(first: np.ndarray, second: np.ndarray) -> float:
    """Return tr sqrt(A B) of A = XᵀX and B = YᵀY, X (n, d) and Y (m, d), on the smaller side."""
    n, d = first.shape
    if max(n, len(second)) < d:             # the same singular values as sqrt(A) sqrt(B) has
        return float(np.linalg.svd(first @ second.T, compute_uv=False).sum())
    # tr sqrt(sqrt(A) B sqrt(A)), of a symmetric matrix: no complex square root of a matrix is needed
    values, vectors = np.linalg.eigh(first.T @ first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(root @ (second.T @ second) @ root), 0)).sum())


def compute_kernel_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the squared maximum mean discrepancy of (n, d) and (m, d) features, cubic kernel, without bias.

    May be a little below zero for equal distributions (Binkowski et al. 2018, arXiv 1801.01401).
    """
    real, generated = _scale_channels(real, generated)
    n, m, d = len(real), len(generated), real.shape[1]

    def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (first @ second.T / d + 1) ** 3

    own = [(matrix.sum() - np.trace(matrix)) / (size * (size - 1))
           for matrix, size in ((kernel(real, real), n), (kernel(generated, generated), m))]
    return float(sum(own) - 2 * kernel(real, generated).mean())


def measure_null(
    real: Sequence[np.ndarray], rng: np.random.Generator, distance: Distance = compute_frechet_distance,
    n_splits: int = 12,
) -> np.ndarray:
    """Measure what two halves of the real set differ by: the floor of every distance.

    Parameters
    ----------
    real : (k, d) features of each real micrograph; they are split by micrograph, never by crop.

    Returns
    -------
    (n_splits,) distances of random halves; compare a generated set of half as many micrographs with them.

    Raises
    ------
    InputError : fewer than two micrographs.
    """
    if len(real) < 2:
        raise InputError('real holds 1 micrograph and its floor needs two halves; give at least 2')
    half = len(real) // 2
    distances = []
    for _ in range(n_splits):
        order = rng.permutation(len(real))
        halves = [np.concatenate([real[i] for i in part]) for part in (order[:half], order[half:2 * half])]
        distances.append(distance(*halves))
    return np.array(distances)


def _scale_channels(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, sd = real.mean(axis=0), real.std(axis=0)
    alive = sd[sd > 0]
    sd = np.maximum(sd, _LEAST_SD * float(np.median(alive)) if len(alive) else 1.0)
    return (real - mean) / sd, (generated - mean) / sd
