"""Central slices of the transform of a map, sampled on a CPU by a kernel that numba compiles.

The time goes into fetching the transform from memory, so the kernel asks for what the next row of a slice needs while
it works on this one. On other devices `cryogem.specimen.projection` samples with torch.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cryogem.specimen.compiling import compile_loop

# what llvm.prefetch is told: for reading, into the second cache, data; the first can wait for fewer lines at a time
_READ, _KEEP, _DATA = 0, 2, 1


def sample_slices(
    transform: torch.Tensor, n: int, rotations: torch.Tensor, limit: float, y_phase: torch.Tensor, x_phase: torch.Tensor
) -> torch.Tensor:
    """Sample slices trilinearly and give each image its phases.

    Parameters
    ----------
    transform : (2k + 1, 2k + 1, k + 1, 2c) float32, real and imaginary parts, zero frequency at k, k, 0.
    n : side of the images, px, even.
    rotations : (b, 3, 3) float32; the slice has ``kx * rotations[:, 0] + ky * rotations[:, 1]`` as x, y, z in points of
        the transform.
    limit : frequencies of this length (1/box) and longer are zero.
    y_phase, x_phase : (b, n) and (b, n // 2 + 1) complex64, factors of rows and columns.

    Returns
    -------
    (b, c, n, n // 2 + 1) complex64, half planes as `torch.fft.rfft2` lays them out.
    """
    out = torch.zeros((len(rotations), transform.shape[-1] // 2, n, n // 2 + 1), dtype=torch.complex64)
    _fill_slices(transform.numpy().reshape(-1), transform.shape[0], transform.shape[2], np.float32(limit ** 2),
                 *(one.contiguous().numpy() for one in (rotations, y_phase, x_phase, out)))
    return out


@intrinsic
def _prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of an element without waiting for it."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        name, kind = 'llvm.prefetch.p0i8', ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(function, [address, *(ir.Constant(number, one) for one in (_READ, _KEEP, _DATA))])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@compile_loop
def _locate_row(transform, side, depth, step, ky, limit2, rotation, corners, rests):        # type: ignore[no-untyped-def]
    """Find what a row of a slice is interpolated from, and ask for it; return the number of its points.

    Of each point, `corners` receives the index of its lowest neighbour, and `rests` how far it lies from there in x, y,
    z and a sign: only x >= 0 is stored, and what lies beyond is the conjugate of the point opposite.
    """
    half, width, plane = np.float32(side // 2), depth * step, side * depth * step
    n_points = 0
    for kx in range(len(corners)):
        if kx * kx + ky * ky >= limit2:
            break
        x = kx * rotation[0, 0] + ky * rotation[1, 0]
        y = kx * rotation[0, 1] + ky * rotation[1, 1]
        z = kx * rotation[0, 2] + ky * rotation[1, 2]
        sign = np.float32(1.0)
        if x < 0:
            sign, x, y, z = np.float32(-1.0), -x, -y, -z
        y, z = y + half, z + half
        x0, y0, z0 = int(x), int(y), int(z)
        corner = z0 * plane + y0 * width + x0 * step
        _prefetch(transform, corner)
        _prefetch(transform, corner + width)
        _prefetch(transform, corner + plane)
        _prefetch(transform, corner + plane + width)
        corners[kx] = corner
        rests[kx, 0], rests[kx, 1], rests[kx, 2] = x - np.float32(x0), y - np.float32(y0), z - np.float32(z0)
        rests[kx, 3] = sign
        n_points += 1
    return n_points


@compile_loop
def _fill_slices(transform, side, depth, limit2, rotations, y_phase, x_phase, out):         # type: ignore[no-untyped-def]
    """Fill `out`; `depth` is the number of points in x, other arguments as for `sample_slices`."""
    n_maps, n = out.shape[1], out.shape[2]
    step, one = 2 * n_maps, np.float32(1.0)
    width, plane = depth * step, side * depth * step
    corners = np.empty((2, n // 2 + 1), np.int64)               # of this row and of the next
    rests = np.empty((2, n // 2 + 1, 4), np.float32)
    for image in range(len(rotations)):
        rotation = rotations[image]
        n_next = _locate_row(transform, side, depth, step, 0, limit2, rotation, corners[0], rests[0])
        for row in range(n):
            n_points, this, other = n_next, row % 2, (row + 1) % 2
            if row + 1 < n:
                ky = row + 1 if row + 1 < n // 2 else row + 1 - n
                n_next = _locate_row(transform, side, depth, step, ky, limit2, rotation, corners[other], rests[other])
            y_real, y_imag = y_phase[image, row].real, y_phase[image, row].imag
            for kx in range(n_points):
                fx, fy, fz, sign = rests[this, kx, 0], rests[this, kx, 1], rests[this, kx, 2], rests[this, kx, 3]
                w00, w01, w10, w11 = (one - fz) * (one - fy), (one - fz) * fy, fz * (one - fy), fz * fy
                x_real, x_imag = x_phase[image, kx].real, x_phase[image, kx].imag
                cos, sin = y_real * x_real - y_imag * x_imag, y_real * x_imag + y_imag * x_real
                for m in range(n_maps):
                    a = corners[this, kx] + 2 * m
                    b, c, d = a + width, a + plane, a + plane + width
                    low = w00 * transform[a] + w01 * transform[b] + w10 * transform[c] + w11 * transform[d]
                    low_imag = (w00 * transform[a + 1] + w01 * transform[b + 1]
                                + w10 * transform[c + 1] + w11 * transform[d + 1])
                    a, b, c, d = a + step, b + step, c + step, d + step
                    high = w00 * transform[a] + w01 * transform[b] + w10 * transform[c] + w11 * transform[d]
                    high_imag = (w00 * transform[a + 1] + w01 * transform[b + 1]
                                 + w10 * transform[c + 1] + w11 * transform[d + 1])
                    real, imag = low + (high - low) * fx, sign * (low_imag + (high_imag - low_imag) * fx)
                    out[image, m, row, kx] = complex(real * cos - imag * sin, real * sin + imag * cos)
