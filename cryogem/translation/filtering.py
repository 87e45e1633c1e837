"""The loops of the published network's convolutions on a CPU, with as few products as there may be.

A transposed convolution 4 x 4 of stride 2 is, in each direction, two filters of two taps: one for the even px of the
output, one for the odd. Two px of what such a filter gives take three products instead of four (Winograd 1980; Lavin
and Gray 2016, arXiv 1509.09308, F(2, 2)), from three px of the input:

    g0 d0 + g1 d1 = (d0 - d1) g0 + d1 (g0 + g1)         g0 d1 + g1 d2 = d1 (g0 + g1) - (d1 - d2) g1

In both directions it is 9 products instead of 16. With t even, the even filter gives px 2 t and 2 t + 2, the odd one
2 t - 1 and 2 t + 1, from the px t - 1, t and t + 1 of the input: one tile for all four filters. `POINTS` below are the
nine differences of a tile, `PHASES` the four filters.

Products are summed in float32; rounded to bf16 are differences of the input, sums of weights, and the output. Maps come
as they were stored, with the scale and shift of their norm: `cryogem.translation.doubling.Maps`.
"""

import numpy as np

from cryogem.specimen.compiling import compile_loop
from cryogem.translation.lanes import (
    LANES,
    load,
    make_product,
    rectify,
    rectify_leaky,
    repeat,
    store,
    store_rounded,
    widen,
)

POINTS, PHASES = 9, 4
TILES = 48                                  # at once: their differences and products stay in the second cache
_ROWS, _PX = 6, 24                          # tiles and px in a product
_TAPS = 16                                  # of a kernel of 4 x 4
_PANEL = PHASES * LANES                     # numbers that a tile gives at each point, in `LANES` maps

_multiply, _multiply_one = make_product(_ROWS, PHASES), make_product(_PX, 1)


@compile_loop
def _take_column(maps, shape, row, column, channel, scale, shift):      # type: ignore[no-untyped-def]
    """Return the differences of three px above each other; beyond the frame there is nothing, after the rectifier."""
    height, width, n = shape
    nothing = repeat(np.float32(0))
    if column < 0 or column >= width:
        return nothing, nothing, nothing
    high, middle, low = nothing, nothing, nothing
    start = (row * width + column) * n + channel
    if row > 0:
        high = rectify(widen(maps, start - width * n) * scale + shift)
    if row < height:
        middle = rectify(widen(maps, start) * scale + shift)
    if row + 1 < height:
        low = rectify(widen(maps, start + width * n) * scale + shift)
    return high - middle, middle, middle - low


@compile_loop
def _take_tile(maps, row, column, differences, place, step):            # type: ignore[no-untyped-def]
    """Store the differences of the tile around px (row, column): point p of channel c at ``place + p step + c``."""
    values, shape = maps.values.reshape(-1), maps.values.shape
    for channel in range(0, shape[2], LANES):
        scale, shift, target = load(maps.scale, channel), load(maps.shift, channel), place + channel
        left = _take_column(values, shape, row, column - 1, channel, scale, shift)
        middle = _take_column(values, shape, row, column, channel, scale, shift)
        right = _take_column(values, shape, row, column + 1, channel, scale, shift)
        for kind in range(3):
            store_rounded(differences, target + 3 * kind * step, left[kind] - middle[kind])
            store_rounded(differences, target + (3 * kind + 1) * step, middle[kind])
            store_rounded(differences, target + (3 * kind + 2) * step, middle[kind] - right[kind])


@compile_loop
def _give_tile(products, place, step, row, column, out, shape, channel, sums):  # type: ignore[no-untyped-def]
    """Store 16 px of the output that a tile gives, in `LANES` channels, and add them and their squares to `sums`.

    `products` holds point p of phase f at ``place + p step + f LANES``; the middle of the tile is px (row, column).
    """
    height, width, n = shape
    total, squares = load(sums, 0), load(sums, LANES)
    for phase in range(PHASES):
        first, top, left = place + phase * LANES, 2 * row - phase // 2, 2 * column - phase % 2
        for down in range(2):
            y = top + 2 * down
            if y < 0 or y >= height:
                continue
            # the sum of the upper two points, or the difference of the lower two, in each of the three columns
            sign, near = repeat(np.float32(1 - 2 * down)), first + 3 * down * step
            a = load(products, near) + sign * load(products, near + 3 * step)
            b = load(products, near + step) + sign * load(products, near + 4 * step)
            c = load(products, near + 2 * step) + sign * load(products, near + 5 * step)
            target = (y * width + left) * n + channel
            if 0 <= left < width:
                value = store_rounded(out, target, a + b)
                total, squares = total + value, squares + value * value
            if left + 2 < width:
                value = store_rounded(out, target + 2 * n, b - c)
                total, squares = total + value, squares + value * value
    store(sums, 0, total)
    store(sums, LANES, squares)


@compile_loop
def _multiply_panel(differences, n_maps, n_tiles, filters, panel, products):    # type: ignore[no-untyped-def]
    """Store the products of some tiles with the filters of a panel, point by point."""
    pairs, flat_filters, half = differences.view(np.uint32), filters.reshape(-1), n_maps // 2
    for point in range(POINTS):
        first = (panel * POINTS + point) * half * _PANEL
        for tile in range(0, n_tiles, _ROWS):
            place = point * TILES + tile
            _multiply(pairs, place * half, flat_filters, first, half, products, place * _PANEL)


@compile_loop
def double_tiles(skip, inner, filters, first, last, out, sums):         # type: ignore[no-untyped-def]
    """Fill the part of `out` that blocks of `TILES` tiles give, and their `sums`.

    Parameters
    ----------
    skip, inner : maps (h, w, c) and (h, w, c') side by side.
    filters : (c_out / LANES, POINTS, (c + c') / 2, PHASES, LANES) uint32.
    first, last : blocks.
    out : (2 h, 2 w, c_out) uint16.
    sums : (blocks, 2, c_out) float32, of what each block stores and of its squares: that a constant has no variance is
        true of rounded numbers.
    """
    height, width, n_skip = skip.values.shape
    n_maps = n_skip + inner.values.shape[2]
    across, n_tiles = width // 2 + 1, (height // 2 + 1) * (width // 2 + 1)
    differences = np.zeros(POINTS * TILES * n_maps, np.uint16)
    products = np.empty(POINTS * TILES * _PANEL, np.float32)
    sums_of_panel = np.empty(2 * LANES, np.float32)
    for block in range(first, last):
        start = block * TILES
        n = min(TILES, n_tiles - start)
        for tile in range(n):
            row, column, place = 2 * ((start + tile) // across), 2 * ((start + tile) % across), tile * n_maps
            _take_tile(skip, row, column, differences, place, TILES * n_maps)
            _take_tile(inner, row, column, differences, place + n_skip, TILES * n_maps)
        for panel in range(len(filters)):
            _multiply_panel(differences, n_maps, n, filters, panel, products)
            sums_of_panel[:] = 0
            for tile in range(n):
                row, column = 2 * ((start + tile) // across), 2 * ((start + tile) % across)
                _give_tile(products, tile * _PANEL, TILES * _PANEL, row, column, out.reshape(-1), out.shape,
                           panel * LANES, sums_of_panel)
            sums[block, 0, panel * LANES:(panel + 1) * LANES] = sums_of_panel[:LANES]
            sums[block, 1, panel * LANES:(panel + 1) * LANES] = sums_of_panel[LANES:]


@compile_loop
def _fill_line(maps, row, line, place, step):                           # type: ignore[no-untyped-def]
    """Store the rectified px of a row: channel c of px x at ``place + x step + c``."""
    values, (_, width, n) = maps.values.reshape(-1), maps.values.shape
    for column in range(width):
        for channel in range(0, n, LANES):
            value = widen(values, (row * width + column) * n + channel) * load(maps.scale, channel)
            store_rounded(line, place + column * step + channel, rectify(value + load(maps.shift, channel)))


@compile_loop
def _give_rows(above, own, below, even, odd):                           # type: ignore[no-untyped-def]
    """Sum the rows of the output that a row of the input stands for, from what three rows give to px around them."""
    for column in range(len(even) // 2):
        i = (column + 1) * _TAPS
        before, after = i - _TAPS, i + _TAPS
        even[2 * column] = own[i + 5] + own[before + 7] + above[i + 13] + above[before + 15]
        even[2 * column + 1] = own[i + 6] + own[after + 4] + above[i + 14] + above[after + 12]
        odd[2 * column] = own[i + 9] + own[before + 11] + below[i + 1] + below[before + 3]
        odd[2 * column + 1] = own[i + 10] + own[after + 8] + below[i + 2] + below[after]


@compile_loop
def double_to_one(skip, inner, filters, first, last, out):              # type: ignore[no-untyped-def]
    """Fill the rows of the output that rows `first` to `last` of the input stand for.

    Parameters
    ----------
    skip, inner : maps (h, w, c) and (h, w, c') side by side.
    filters : ((c + c') / 2, 16) uint32.
    out : (2 h, 2 w) float32.
    """
    height, width, n_skip = skip.values.shape
    n_maps, n_steps = n_skip + inner.values.shape[2], -(-width // _PX)
    line = np.zeros(n_steps * _PX * n_maps, np.uint16)
    # what each px of three rows gives to the 16 px around it; on both sides a px that gives nothing
    shares = np.zeros((3, (n_steps * _PX + 2) * _TAPS), np.float32)
    for row in range(max(first - 1, 0), last + 1):
        own = shares[row % 3]
        if row < height:
            _fill_line(skip, row, line, 0, n_maps)
            _fill_line(inner, row, line, n_skip, n_maps)
            for step in range(n_steps):
                _multiply_one(line.view(np.uint32), step * _PX * n_maps // 2, filters.reshape(-1), 0, n_maps // 2, own,
                              (step * _PX + 1) * _TAPS)
        else:
            own[:] = 0
        if row > first:
            _give_rows(shares[row % 3 - 2], shares[row % 3 - 1], own, out[2 * row - 2], out[2 * row - 1])


@compile_loop
def halve_one(image, filters, bias, slope, first, last, out):           # type: ignore[no-untyped-def]
    """Fill rows `first` to `last` of `out` with a convolution of stride 2 and its leaky rectifier.

    Parameters
    ----------
    image : (2 h + 2, 2 w + 2) float32, with its margin.
    filters, bias : (16, c) and (c,) float32.
    out : (h, w, c) uint16.
    """
    width, n_maps = out.shape[1:]
    flat_filters, flat_out, falls = filters.reshape(-1), out.reshape(-1), repeat(np.float32(slope))
    for row in range(first, last):
        for column in range(width):
            for channel in range(0, n_maps, LANES):
                value = load(bias, channel)
                for tap in range(_TAPS):
                    share = repeat(image[2 * row + tap // 4, 2 * column + tap % 4])
                    value = value + share * load(flat_filters, tap * n_maps + channel)
                store_rounded(flat_out, (row * width + column) * n_maps + channel, rectify_leaky(value, falls))
