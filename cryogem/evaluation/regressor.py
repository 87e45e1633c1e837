"""A small pose regressor: can a network learn the poses of generated particles at all? A smoke test, no contest.

For the real thing export the particles and train CryoPARES or cryoDRGN on a GPU.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cryogem.conventions import euler_to_matrix
from cryogem.dataset.tables import select_particles
from cryogem.evaluation.frames import Frame
from cryogem.evaluation.pose import PoseErrors, cut_particles, measure_pose_errors, summarise_errors
from cryogem.imaging.resampling import resample_image

SIDE = 32                                   # px that particles are binned to
LEAST_PARTICLES = 64
_BATCH, _LEARNING_RATE = 64, 2e-3
_TESTED = 0.2                               # share of the micrographs kept for the test
_WIDTHS = (1, 32, 64, 128, 192)


def learn_poses(
    frames: Sequence[Frame], box_size: int, group: np.ndarray, n_steps: int, seed: int
) -> PoseErrors | None:
    """Train on the particles of most micrographs and measure the errors on the others.

    Parameters
    ----------
    box_size : px, of the particles before they are binned.
    group : (m, 3, 3) rotations that leave the map unchanged.

    Returns
    -------
    None where there are too few particles or micrographs.
    """
    n_tested = max(1, round(_TESTED * len(frames)))
    train, test = (_gather(part, box_size) for part in (frames[n_tested:], frames[:n_tested]))
    if len(train[0]) < LEAST_PARTICLES or not len(test[0]):
        return None
    network = _train(*train, group, n_steps, seed)
    with torch.inference_mode():
        found = to_rotation(network(test[0])).double().numpy()
    labels = test[1].double().numpy()
    return summarise_errors(measure_pose_errors(found, labels, group), labels, group, np.random.default_rng(seed))


def to_rotation(values: Tensor) -> Tensor:
    """Turn (b, 6) values into (b, 3, 3) rotations by Gram-Schmidt (Zhou et al. 2019, arXiv 1812.07035)."""
    first = functional.normalize(values[:, :3], dim=1)
    second = values[:, 3:] - (first * values[:, 3:]).sum(dim=1, keepdim=True) * first
    second = functional.normalize(second, dim=1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=1)


def _gather(frames: Sequence[Frame], box_size: int) -> tuple[Tensor, Tensor]:
    """Return (n, 1, SIDE, SIDE) particles of unit sd and their (n, 3, 3) poses."""
    images, poses = [], []
    for frame in frames:
        if frame.record is None:
            continue
        images += [resample_image(one, 1.0, box_size / SIDE) for one in cut_particles(frame, box_size)]
        poses += [(one.rot, one.tilt, one.psi) for one in select_particles(frame.record)]
    stack = torch.from_numpy(np.stack(images) if images else np.empty((0, SIDE, SIDE), dtype=np.float32))[:, None]
    stack = (stack - stack.mean(dim=(2, 3), keepdim=True)) / (stack.std(dim=(2, 3), keepdim=True) + 1e-6)
    return stack, torch.from_numpy(euler_to_matrix(np.array(poses).reshape(-1, 3))).float()


def _train(images: Tensor, poses: Tensor, group: np.ndarray, n_steps: int, seed: int) -> nn.Module:
    rng = torch.Generator().manual_seed(seed)
    network = _build_network(rng)
    symmetry = torch.from_numpy(group).float()
    optimizer = torch.optim.AdamW(network.parameters(), _LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, n_steps)
    for _ in range(n_steps):
        chosen = torch.randint(len(images), (_BATCH,), generator=rng)
        batch, labels = turn_batch(images[chosen], poses[chosen], int(torch.randint(4, (1,), generator=rng)))
        found = to_rotation(network(batch))
        equivalent = labels[:, None] @ symmetry
        loss = ((found[:, None] - equivalent) ** 2).sum(dim=(2, 3)).min(dim=1).values.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def turn_batch(images: Tensor, poses: Tensor, quarters: int) -> tuple[Tensor, Tensor]:
    """Turn a batch by quarters from the x to the y axis, and its poses with it."""
    angle = np.pi / 2 * quarters
    c, s = float(np.cos(angle)), float(np.sin(angle))
    # y points down: rot90 turns y towards x, its negative number of times x towards y
    return torch.rot90(images, -quarters, (2, 3)), torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]) @ poses


def _build_network(rng: torch.Generator) -> nn.Module:
    layers: list[nn.Module] = []
    for i, (above, below) in enumerate(zip(_WIDTHS[:-1], _WIDTHS[1:], strict=True)):
        layers += [nn.Conv2d(above, below, 3, stride=1 if i == 0 else 2, padding=1), nn.BatchNorm2d(below), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(_WIDTHS[-1] * (SIDE // 8) ** 2, 256), nn.ReLU(),
                            nn.Linear(256, 6))
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, generator=rng)
    return network
