"""Plots of micrographs, training, angles and defoci; each returns a plotter, which is shown by its caller."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mrcfile
import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.patches import Circle
from PIL import Image
from pwem.viewers import EmPlotter

from cryogem.io.mrc import read_micrograph
from cryogem.io.star import read_tables

_SIDE = 1200                                # px to which a frame is reduced for the screen
_WIDTH, _HEIGHT = 14.5, 8.5                  # inches that a figure may have on a screen
_SHOWN_RANGE = (0.5, 99.5)                  # percentiles of all shown frames mapped to black and white
_YELLOW = '#ffd200'
_FEW_DECADES = 20                           # a ratio: below it the ticks between powers of ten need numbers, too
_MANY_VIEWS, _VIEWS_PER_CELL = 400, 12      # views that are counted in cells, and about how many in each


@dataclass(frozen=True)
class Panel:
    """One micrograph to be shown, with circles around particles and colours on their masks."""

    caption: str
    path: str
    positions: list[tuple[float, float]] = field(default_factory=list)          # x, y in px
    radius: float = 0.0                     # px
    mask: str = ''


def plotMicrographs(panels: Sequence[Panel], title: str, columns: int = 0) -> EmPlotter:
    """Plot micrographs in rows of `columns` (default: up to three), at one grey scale for all."""
    images = [_readReduced(panel.path) for panel in panels]
    columns = columns or min(len(panels), 3)
    rows = -(-len(panels) // columns)
    side = min(5.0, _WIDTH / columns, _HEIGHT / rows)
    plotter = EmPlotter(x=rows, y=columns, windowTitle=title, figsize=(side * columns, 0.6 + (side + 0.3) * rows))
    limits = np.percentile(np.concatenate([image.ravel() for image, _ in images]), _SHOWN_RANGE)
    for panel, (image, reduction) in zip(panels, images, strict=True):
        axes = plotter.createSubPlot(panel.caption, None, None)
        axes.imshow(image, cmap='gray', vmin=limits[0], vmax=limits[1], interpolation='nearest')
        if panel.mask:
            _paintMask(axes, panel.mask, image.shape)
        circles = [Circle((x / reduction, y / reduction), panel.radius / reduction) for x, y in panel.positions]
        axes.add_collection(PatchCollection(circles, facecolor='none', edgecolor=_YELLOW, linewidth=0.8))
    return plotter


def plotColumns(columns: dict[str, list[float]], groups: dict[str, list[str]], xLabel: str, title: str,
                logarithmic: Sequence[str] = ()) -> EmPlotter:
    """Plot columns of numbers over the one called `xLabel`, a subplot for each group; what is no number is left out.

    Parameters
    ----------
    columns : by name; underscores are shown as blanks.
    logarithmic : the groups whose axis is.
    """
    plotter = EmPlotter(x=len(groups), y=1, windowTitle=title, figsize=(7, 0.8 + 3.2 * len(groups)))
    for name, members in groups.items():
        axes = plotter.createSubPlot(name, xLabel, '')
        for member in members:
            x, y = np.array(columns[xLabel]), np.array(columns[member])
            axes.plot(x[np.isfinite(y)], y[np.isfinite(y)], label=member.replace('_', ' '), linewidth=1,
                      marker='o' if np.isfinite(y).sum() < 30 else None, markersize=3)
        if name in logarithmic:
            axes.set_yscale('log')
            low, high = axes.get_ylim()
            axes.yaxis.set_major_formatter('{x:.4g}')
            axes.yaxis.set_minor_formatter('{x:.4g}' if high < _FEW_DECADES * low else '')
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return plotter


def plotViews(starPath: Path, title: str) -> EmPlotter:
    """Plot the directions of view of a particle table on the sphere, equal areas in equal areas."""
    tables = read_tables(starPath)
    rot, tilt = (tables['particles'][name].to_numpy(dtype=float) for name in ('rlnAngleRot', 'rlnAngleTilt'))
    plotter = EmPlotter(windowTitle=title, figsize=(8.5, 5))
    axes = plotter.createSubPlot(f'Views of {len(rot)} particles (rot, tilt)', '', '', projection='mollweide')
    longitude, latitude = np.radians((rot + 180) % 360 - 180), np.radians(90 - tilt)
    if len(rot) > _MANY_VIEWS:
        # steps of sin(latitude) make cells of equal area
        rows = int(np.clip(np.sqrt(len(rot) / (2 * _VIEWS_PER_CELL)), 4, 30))
        counts, edges, heights = np.histogram2d(longitude, np.sin(latitude), bins=(2 * rows, rows),
                                                range=((-np.pi, np.pi), (-1, 1)))
        cells = axes.pcolormesh(edges, np.arcsin(heights), counts.T, cmap='viridis', vmin=0)
        plotter.getFigure().colorbar(cells, ax=axes, shrink=0.7, label='particles')
    else:
        axes.scatter(longitude, latitude, s=6)
    axes.set_yticklabels([f'{90 - degrees}°' for degrees in range(-75, 76, 15)], fontsize=7)
    axes.grid(alpha=0.3)
    return plotter


def plotDefoci(groups: dict[str, list[float]], title: str) -> EmPlotter:
    """Plot histograms of defoci (Å), one colour per group, as shares of each group."""
    plotter = EmPlotter(windowTitle=title, figsize=(7, 4.5))
    axes = plotter.createSubPlot('Defocus of the micrographs', 'mean of U and V (Å)', 'share of the micrographs')
    bins = np.histogram_bin_edges(np.concatenate(list(groups.values())), bins=24)
    for name, values in groups.items():
        axes.hist(values, bins=bins, weights=np.full(len(values), 1 / len(values)), alpha=0.55,
                  label=f'{name} ({len(values)})')
    axes.legend(fontsize=8)
    return plotter


def _readReduced(path: str) -> tuple[np.ndarray, float]:
    """Return an (h, w) float32 image, averaged down to fit the screen, and by how much."""
    image, _ = read_micrograph(Path(path), 1.0)
    factor = max(1, -(-max(image.shape) // _SIDE))
    reduced = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32)).reduce(factor)
    return np.asarray(reduced), float(factor)


def _paintMask(axes, path: str, shape: tuple[int, ...]) -> None:
    """Paint each particle of an instance mask in a colour of its own."""
    mask = np.squeeze(mrcfile.read(path)).astype(np.float32)
    labels = np.asarray(Image.fromarray(mask).resize((shape[1], shape[0]), Image.Resampling.NEAREST))
    axes.imshow(np.ma.masked_equal(labels, 0) % 20, cmap='tab20', alpha=0.6, interpolation='nearest', vmin=0, vmax=19)
