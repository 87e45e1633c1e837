"""Projections by Fourier slice: sampled from the padded transform straight at the output box."""

import math

import torch
from torch.nn import functional

_CHUNK_POINTS = 400_000                     # points sampled at once: bounds memory, keeps caches warm


class Projector:
    """Projects a set of maps that share a box, all in the same pose (density and mask, say).

    The slice theorem: the transform of a projection is a central slice of the map's transform. The map is padded and
    divided by the transform of the trilinear kernel, so that interpolation between grid points is nearly exact.
    """

    def __init__(self, volumes: torch.Tensor, oversampling: int = 2):
        """Prepare the transforms.

        Parameters
        ----------
        volumes : (c, n, n, n) float32, n even, centre at n // 2, the content inside a sphere of radius n / 2.
        oversampling : padding factor of the transform.
        """
        self.box_size = volumes.shape[-1]
        self._padded = oversampling * self.box_size
        self._oversampling = oversampling
        self._transform = self._compute_transform(volumes)
        self._frequencies = self._list_frequencies(volumes.device)

    def project(self, rotations: torch.Tensor, shifts_yx: torch.Tensor) -> torch.Tensor:
        """Project along z after rotation, then shift.

        Parameters
        ----------
        rotations : (b, 3, 3) matrices A acting on (x, y, z) columns, image = A · volume.
        shifts_yx : (b, 2) px by which the content is moved in the image.

        Returns
        -------
        (b, c, n, n) float32 line integrals, in density times px; the rotation centre is at n // 2 + shift.
        """
        chunk = max(1, _CHUNK_POINTS // len(self._frequencies))
        parts = [self._project_chunk(rotations[i:i + chunk], shifts_yx[i:i + chunk])
                 for i in range(0, len(rotations), chunk)]
        return torch.cat(parts)

    def _compute_transform(self, volumes: torch.Tensor) -> torch.Tensor:
        """Return the (2c, N, N, N/2 + 1) real and imaginary parts, z and y centred, x from zero frequency on."""
        n, padded = self.box_size, self._padded
        positions = (torch.arange(n, device=volumes.device) - n // 2) / padded
        kernel = torch.sinc(positions) ** 2
        corrected = volumes / (kernel[:, None, None] * kernel[:, None] * kernel)
        low, high = padded // 2 - n // 2, padded - n - (padded // 2 - n // 2)
        corrected = functional.pad(corrected, (low, high) * 3)
        spectrum = torch.fft.rfftn(torch.fft.ifftshift(corrected, dim=(-3, -2, -1)), dim=(-3, -2, -1))
        spectrum = torch.fft.fftshift(spectrum, dim=(-3, -2))
        return torch.cat([spectrum.real, spectrum.imag]).contiguous()

    def _list_frequencies(self, device: torch.device) -> torch.Tensor:
        """Return (p, 2) integer (ky, kx) of the half plane inside the Nyquist circle, in 1/box."""
        n = self.box_size
        ky = torch.fft.fftfreq(n, 1 / n, device=device)
        kx = torch.fft.rfftfreq(n, 1 / n, device=device)
        grid = torch.stack(torch.meshgrid(ky, kx, indexing='ij'), dim=-1).reshape(-1, 2)
        return grid[(grid ** 2).sum(-1) < (n // 2) ** 2]

    def _project_chunk(self, rotations: torch.Tensor, shifts_yx: torch.Tensor) -> torch.Tensor:
        n, n_images = self.box_size, len(rotations)
        ky, kx = self._frequencies[:, 0], self._frequencies[:, 1]
        rotations = rotations.to(self._frequencies)
        points = kx[:, None] * rotations[:, None, 0] + ky[:, None] * rotations[:, None, 1]       # (b, p, 3): A^T k
        values = self._sample(points)
        phase = -2 * math.pi / n * (self._frequencies @ shifts_yx.to(ky).T).T[:, None]           # (b, 1, p)
        values = values * torch.polar(torch.ones_like(phase), phase)
        half_plane = values.new_zeros((n_images, values.shape[1], n * (n // 2 + 1)))
        half_plane[..., (ky.long() % n) * (n // 2 + 1) + kx.long()] = values
        images = torch.fft.irfft2(half_plane.unflatten(-1, (n, n // 2 + 1)), s=(n, n))
        return torch.fft.fftshift(images, dim=(-2, -1))

    def _sample(self, points: torch.Tensor) -> torch.Tensor:
        """Interpolate the transforms trilinearly at (b, p, 3) x, y, z frequencies in 1/box; (b, c, p) complex."""
        is_mirrored = points[..., :1] < 0                       # only x >= 0 is stored: F(-k) is conj F(k)
        points = torch.where(is_mirrored, -points, points) * self._oversampling
        half = self._padded // 2
        x = points[..., 0] * (2 / half) - 1
        y, z = ((points[..., i] + half) * (2 / (self._padded - 1)) - 1 for i in (1, 2))
        grid = torch.stack([x, y, z], dim=-1).reshape(1, 1, 1, -1, 3)
        sampled = functional.grid_sample(self._transform[None], grid, align_corners=True)
        sampled = sampled.reshape(2, -1, *points.shape[:2]).movedim(2, 1)                        # (2, b, c, p)
        imaginary = torch.where(is_mirrored[:, None, :, 0], -sampled[1], sampled[1])
        return torch.complex(sampled[0], imaginary)
