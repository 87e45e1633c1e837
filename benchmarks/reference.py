"""The computation of the published code, written plainly by us, to be timed beside ours on the same machine.

Trilinear rotate-and-sum of the whole map for each particle, one at a time; particles placed by a search of all free
pixels of the frame. What it costs was found to be within 1.07 to 1.36 times what the published code costs.
"""

import numpy as np
import torch
from torch.nn import functional


def project_by_rotation(volume: torch.Tensor, rotation: torch.Tensor, box_size: int) -> torch.Tensor:
    """Rotate a whole (n, n, n) map with trilinear interpolation, sum along z, and Fourier-crop to `box_size`."""
    n = volume.shape[0]
    axis = torch.arange(n) - n // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing='ij')
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3).float() @ rotation        # A^T (x, y, z)
    grid = ((points + n // 2) * (2 / (n - 1)) - 1).reshape(1, n, n, n, 3)
    rotated = functional.grid_sample(volume[None, None], grid, align_corners=True)[0, 0]
    return crop_in_fourier_space(rotated.sum(dim=0), box_size)


def crop_in_fourier_space(image: torch.Tensor, box_size: int) -> torch.Tensor:
    """Fourier-crop an (n, n) image to `box_size`, through the full complex transform."""
    n = image.shape[0]
    if n == box_size:
        return image
    spectrum = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image)))
    low = n // 2 - box_size // 2
    cropped = spectrum[low:low + box_size, low:low + box_size]
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(cropped))).real * (box_size / n) ** 2


def place_by_search(shape: tuple[int, int], count: int, radius: int, rng: np.random.Generator) -> np.ndarray:
    """Place particles one by one on a pixel drawn from the list of all free pixels of the frame."""
    is_free = np.ones(shape, dtype=bool)
    placed = []
    for _ in range(count):
        rows, columns = np.where(is_free)
        if not len(rows):
            break
        chosen = rng.integers(len(rows))
        y, x = int(rows[chosen]), int(columns[chosen])
        placed.append((y, x))
        is_free[max(0, y - radius):y + radius, max(0, x - radius):x + radius] = False
    return np.array(placed)
