"""Projections by Fourier slice: sampled from the padded transform straight at the output box."""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch.nn import functional

from cryogem.errors import InputError
from cryogem.specimen.slices import sample_slices

_CHUNK_POINTS = 100_000                     # points sampled at once: bounds memory, keeps caches warm
_MOST_BYTES = 2 ** 30                       # of all transforms of a sample
_SMALL_BOX = 100                            # px: of coarser maps an error of 0.8 % is less than pixels do themselves
_MASK_BANDWIDTH = 0.9                       # a soft mask holds hardly anything beyond, and its edge is blurred anyway
_MASK_OVERSAMPLING = 2


class Projector:
    """Projects a set of maps that share a box, all in the same pose (density and mask, say).

    The slice theorem: the transform of a projection is a central slice of the map's transform. The map is padded and
    divided by the transform of the trilinear kernel, so that interpolation between grid points is nearly exact.
    """

    def __init__(self, volumes: torch.Tensor, oversampling: int = 3, bandwidth: float = 1.0):
        """Prepare the transforms.

        Parameters
        ----------
        volumes : (c, n, n, n) float32, n even, centre at n // 2, the content inside a sphere of radius n / 2.
        oversampling : padding factor of the transform: 3 leaves an error of 0.4 % of the projection, 2 one of 0.8 %
            for a third of the memory (benchmarks/projection.py).
        bandwidth : share of the Nyquist frequency up to which the projections are made.
        """
        self.box_size = volumes.shape[-1]
        self._n_maps = len(volumes)
        self._padded = oversampling * self.box_size
        self._oversampling = oversampling
        self._limit = bandwidth * (self.box_size // 2)                                  # in 1/box
        self._transform = self._compute_transform(volumes)
        self._frequencies = self._list_frequencies(volumes.device)

    @property
    def n_bytes(self) -> int:
        """Memory of the transforms."""
        return self._transform.numel() * self._transform.element_size()

    @torch.inference_mode(False)            # whatever the caller's mode is, that of the threads below is another
    def project(self, rotations: torch.Tensor, shifts_yx: torch.Tensor) -> torch.Tensor:
        """Project along z after rotation, then shift.

        Parameters
        ----------
        rotations : (b, 3, 3) matrices A acting on (x, y, z) columns, image = A · volume.
        shifts_yx : (b, 2) px by which the content is moved in the image.

        Returns
        -------
        (b, c, n, n) float32 line integrals, in density times px; the rotation centre is at n // 2 + shift.

        Raises
        ------
        InputError : `rotations` hold something else, which would be looked for outside the transform.
        """
        if not (rotations.norm(dim=-1) < 1 + 1e-3).all():           # nor is it for a nan
            raise InputError('poses hold values that are no rotations; check the angles')
        n, device = self.box_size, self._transform.device
        rotations = rotations.to(self._frequencies) * self._oversampling
        phases = self._compute_phases(shifts_yx.to(self._frequencies))
        images = torch.empty((len(rotations), self._n_maps, n, n), device=device)
        n_threads = torch.get_num_threads() if device.type == 'cpu' else 1
        chunk = max(1, min(_CHUNK_POINTS // len(self._frequencies), math.ceil(len(rotations) / n_threads)))

        def fill(first: int) -> None:
            part = slice(first, first + chunk)
            torch.fft.irfft2(self._sample(rotations[part], *(one[part] for one in phases)), s=(n, n), out=images[part])

        starts = range(0, len(rotations), chunk)
        if n_threads == 1 or len(starts) < 2:
            for first in starts:
                fill(first)
            return images
        # torch's own threads would stand in the way of the kernel's: each of these has but one
        with ThreadPoolExecutor(n_threads, initializer=partial(torch.set_num_threads, 1)) as pool:
            list(pool.map(fill, starts))
        return images

    def _compute_transform(self, volumes: torch.Tensor) -> torch.Tensor:
        """Return (2k + 1, 2k + 1, k + 1, 2c): real and imaginary parts, -k to k in z and y, x from 0.

        k is where the bandwidth ends, at most half of the padded side.
        """
        n, padded = self.box_size, self._padded
        positions = (torch.arange(n, device=volumes.device) - n // 2) / padded
        kernel = torch.sinc(positions) ** 2
        corrected = volumes / (kernel[:, None, None] * kernel[:, None] * kernel)
        low, high = padded // 2 - n // 2, padded - n - (padded // 2 - n // 2)
        corrected = functional.pad(corrected, (low, high) * 3)
        spectrum = torch.fft.rfftn(torch.fft.ifftshift(corrected, dim=(-3, -2, -1)), dim=(-3, -2, -1))
        spectrum = torch.fft.fftshift(spectrum, dim=(-3, -2))
        # zero frequency is a grid point in every pose: nothing is interpolated there, so nothing is to be made up for
        spectrum[:, padded // 2, padded // 2, 0] = volumes.sum(dim=(-3, -2, -1)).to(spectrum.dtype)
        spectrum = torch.cat([spectrum, spectrum[:, :1]], dim=1)        # periodic: the last plane is the first again
        spectrum = torch.cat([spectrum, spectrum[:, :, :1]], dim=2)
        reach = min(padded // 2, math.ceil(self._limit * self._oversampling) + 1)
        kept = slice(padded // 2 - reach, padded // 2 + reach + 1)
        spectrum = spectrum[:, kept, kept, :reach + 1]
        return torch.view_as_real(spectrum.movedim(0, -1).contiguous()).flatten(-2)

    def _list_frequencies(self, device: torch.device) -> torch.Tensor:
        """Return (p, 2) integer (ky, kx) of the half plane inside the circle of the bandwidth, in 1/box."""
        n = self.box_size
        ky = torch.fft.fftfreq(n, 1 / n, device=device)
        kx = torch.fft.rfftfreq(n, 1 / n, device=device)
        grid = torch.stack(torch.meshgrid(ky, kx, indexing='ij'), dim=-1).reshape(-1, 2)
        return grid[(grid ** 2).sum(-1) < self._limit ** 2]

    def _sample(self, rotations: torch.Tensor, y_phase: torch.Tensor, x_phase: torch.Tensor) -> torch.Tensor:
        """Return the half planes (b, c, n, n // 2 + 1) of images."""
        if self._transform.device.type == 'cpu':
            return sample_slices(self._transform, self.box_size, rotations, self._limit, y_phase, x_phase)
        return self._sample_with_torch(rotations, y_phase, x_phase)

    def _sample_with_torch(self, rotations: torch.Tensor, y_phase: torch.Tensor, x_phase: torch.Tensor) -> torch.Tensor:
        """Do what `sample_slices` does, on any device."""
        n, (ky, kx) = self.box_size, self._frequencies.T
        points = kx[:, None] * rotations[:, None, 0] + ky[:, None] * rotations[:, None, 1]       # (b, p, 3): A^T k
        values = torch.view_as_complex(_gather(self._transform, points).unflatten(-1, (self._n_maps, 2)))
        half_plane = values.new_zeros((len(rotations), self._n_maps, n * (n // 2 + 1)))
        half_plane[..., (ky.long() % n) * (n // 2 + 1) + kx.long()] = values.movedim(-1, 1)
        return half_plane.unflatten(-1, (n, n // 2 + 1)) * y_phase[:, None, :, None] * x_phase[:, None, None, :]

    def _compute_phases(self, shifts_yx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the phases (b, n) of rows and (b, n // 2 + 1) of columns that shift the content of an image.

        The move of the centre from index 0 to n // 2 is in them.
        """
        n = self.box_size
        ky = torch.fft.fftfreq(n, 1 / n, device=shifts_yx.device)
        kx = torch.fft.rfftfreq(n, 1 / n, device=shifts_yx.device)
        turns = [-2 * math.pi / n * (shift[:, None] + n // 2) * k
                 for shift, k in zip(shifts_yx.unbind(-1), (ky, kx), strict=True)]
        return torch.polar(torch.ones_like(turns[0]), turns[0]), torch.polar(torch.ones_like(turns[1]), turns[1])


class ParticleProjector:
    """Projects a map and its mask in the same pose; the mask, which is soft, from the lower part of its spectrum."""

    def __init__(self, density: torch.Tensor, mask: torch.Tensor, oversampling: int = 3):
        """Prepare the transforms of (n, n, n) density and mask; the rest as for `Projector`."""
        self._density = Projector(density[None], oversampling)
        self._mask = Projector(mask[None], _MASK_OVERSAMPLING, _MASK_BANDWIDTH)

    @property
    def box_size(self) -> int:
        """Box of the projections, px."""
        return self._density.box_size

    @property
    def n_bytes(self) -> int:
        """Memory of the transforms."""
        return self._density.n_bytes + self._mask.n_bytes

    def project(self, rotations: torch.Tensor, shifts_yx: torch.Tensor) -> torch.Tensor:
        """Return (b, 2, n, n) density and mask, projected as by `Projector.project`."""
        return torch.cat([one.project(rotations, shifts_yx) for one in (self._density, self._mask)], dim=1)


def choose_oversampling(box_size: int, n_maps: int) -> int:
    """Return the padding factor for `n_maps` maps of box `box_size`: 2 for small boxes, 3 unless memory forbids it."""
    padded = 3 * box_size
    n_bytes = n_maps * (padded + 1) ** 2 * (padded // 2 + 1) * 8
    return 3 if box_size > _SMALL_BOX and n_bytes <= _MOST_BYTES else 2


def _gather(transform: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Interpolate the half transform (2k + 1, 2k + 1, k + 1, 2c) trilinearly at (b, p, 3) x, y, z; (b, p, 2c)."""
    half = transform.shape[2] - 1
    is_mirrored = points[..., :1] < 0                           # only x >= 0 is stored: F(-k) is conj F(k)
    points = torch.where(is_mirrored, -points, points)
    grid = torch.stack([points[..., 0] * (2 / half) - 1, points[..., 1] / half, points[..., 2] / half], dim=-1)
    # one sample per image, all views of the same transform: threads share the work by samples
    channels_first = transform.permute(3, 0, 1, 2)[None].expand(len(points), -1, -1, -1, -1)
    sampled = functional.grid_sample(channels_first, grid[:, None, None], align_corners=True)       # (b, 2c, 1, 1, p)
    return _conjugate(sampled[:, :, 0, 0].movedim(1, -1), is_mirrored)


def _conjugate(values: torch.Tensor, is_mirrored: torch.Tensor) -> torch.Tensor:
    """Turn the sign of the imaginary parts, the odd channels of (b, p, 2c), where (b, p, 1) says so."""
    is_imaginary = torch.arange(values.shape[-1], device=values.device) % 2 == 1
    return torch.where(is_mirrored & is_imaginary, -values, values)
