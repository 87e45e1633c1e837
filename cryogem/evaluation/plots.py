"""The figures of the report, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from cryogem.evaluation.ctf_check import CtfAgreement
from cryogem.evaluation.frames import Frame
from cryogem.evaluation.gallery import Exhibit, draw_exhibit
from cryogem.evaluation.picking import Matches, summarise
from cryogem.evaluation.signal import Signal
from cryogem.evaluation.similarity import SimilarityMap
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.io.files import replace_when_done

REAL = 'real'
_HIT, _MISS, _EXCESS = (40, 200, 90), (255, 70, 60), (255, 190, 0)
_MARKERS = 'osD^vP'                         # of arms, so that points on one another are seen
_CROP_GAP = 6                               # px
_LEGIBLE = 0.1                              # correlation with the twin below which an amplitude is chance alone


def plot_spectra(path: Path, spectra: Mapping[str, np.ndarray], pixel_size: float) -> None:
    """Plot the (n, shells) power of each arm: all real micrographs as thin lines, the means of the others thick."""
    figure = Figure(figsize=(9, 5), layout='constrained')
    axes = figure.add_subplot()
    frequency = _frequencies(pixel_size)
    for one in spectra.get(REAL, ()):
        axes.semilogy(frequency[1:], one[1:], color='0.75', linewidth=0.7)
    for arm, power in spectra.items():
        mean = np.exp(np.log(np.maximum(power, 1e-12)).mean(axis=0))
        axes.semilogy(frequency[1:], mean[1:], label=arm, color='black' if arm == REAL else None,
                      linewidth=2 if arm == REAL else 1.3)
    axes.set(xlabel='spatial frequency (1/Å)', ylabel='power per px (contrast units²)')
    axes.legend(fontsize=8)
    _save(figure, path)


def plot_signal(path: Path, signals: Mapping[str, Signal], pixel_size: float) -> None:
    """Plot correlation with the clean twin and, where the twin is seen at all, amplitude transfer of each arm."""
    figure = Figure(figsize=(11, 4.2), layout='constrained')
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    frequency = _frequencies(pixel_size)
    end = find_last_legible_shell([one.correlation for one in signals.values()]) + 1
    for arm, signal in signals.items():
        left.plot(frequency, signal.correlation, label=arm)
        right.plot(frequency[:end], signal.transfer[:end], label=arm)
    left.set(xlabel='spatial frequency (1/Å)', ylabel='correlation with the clean twin', ylim=(-0.2, 1))
    right.set(xlabel='spatial frequency (1/Å)', ylabel='amplitude of the signal', ylim=(-0.5, 2),
              xlim=left.get_xlim())
    right.axhline(1, color='0.7', linewidth=0.8)
    left.legend(fontsize=8)
    _save(figure, path)


def find_last_legible_shell(correlations: Sequence[np.ndarray]) -> int:
    """Return the last shell where any (shells,) correlation, averaged over five shells, is more than chance."""
    best = max((np.convolve(one, np.full(5, 0.2), mode='same') for one in correlations), key=np.sum,
               default=np.zeros(1))
    legible = np.flatnonzero(best > _LEGIBLE)
    return int(legible[-1]) if len(legible) else 0


def plot_ctfs(path: Path, agreements: Mapping[str, CtfAgreement]) -> None:
    """Plot the fitted against the labelled defocus of each micrograph; faint where the rings are not clear.

    Real micrographs are open rings, as many points lie on one another where fits agree.
    """
    figure = Figure(figsize=(5.5, 5), layout='constrained')
    axes = figure.add_subplot()
    for color, (arm, agreement) in enumerate(agreements.items()):
        look: dict[str, Any] = {'marker': _MARKERS[color % len(_MARKERS)], 'color': f'C{color}', 's': 26}
        if arm == REAL:
            look = {'marker': 'o', 'facecolors': 'none', 'edgecolors': 'black', 's': 60}
        for is_trusted in (True, False):
            chosen = [one for one in agreement.checks if one.is_trusted == is_trusted]
            axes.scatter([one.labelled for one in chosen], [one.fitted for one in chosen], **look,
                         alpha=0.9 if is_trusted else 0.25, label=arm if is_trusted else None)
    ends = [axes.get_xlim()[0], axes.get_xlim()[1]]
    axes.plot(ends, ends, color='0.7', linewidth=0.8)
    axes.set(xlabel='labelled defocus (Å)', ylabel='fitted defocus (Å)')
    axes.legend(fontsize=8)
    _save(figure, path)


def plot_picking(path: Path, scores: Mapping[str, Sequence[float]]) -> None:
    """Plot the average precision of each training as one dot, the mean as a bar, its 95 % interval as a line."""
    figure = Figure(figsize=(8, 0.45 * len(scores) + 1.2), layout='constrained')
    axes = figure.add_subplot()
    for row, values in enumerate(scores.values()):
        mean, low, high = summarise(values)
        axes.barh(row, mean, color='0.85')
        axes.plot([low, high], [row, row], color='C0', linewidth=2)
        axes.plot(values, [row] * len(values), 'k.', markersize=5)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.set(xlabel='average precision on real micrographs', xlim=(0, 1.02))
    _save(figure, path)


def draw_crops_of_arms(path: Path, arms: Mapping[str, Sequence[Frame]], side: int) -> None:
    """Draw the middle of a few micrographs of each arm, one row per arm, px for px at one grey mapping."""
    shown = max(1, min(4, *(len(frames) for frames in arms.values())))
    labels = 150
    sheet = Image.new('RGB', (labels + shown * (side + _CROP_GAP), len(arms) * (side + _CROP_GAP)), 'white')
    for row, (arm, frames) in enumerate(arms.items()):
        top = row * (side + _CROP_GAP)
        ImageDraw.Draw(sheet).text((4, top + side // 2), arm, fill='black')
        for column, frame in enumerate(frames[:shown]):
            y, x = ((length - min(side, length)) // 2 for length in frame.contrast.shape)
            grey = (np.clip(frame.contrast[y:y + side, x:x + side] / 3, -1, 1) + 1) * 127.5
            sheet.paste(Image.fromarray(grey.astype(np.uint8)), (labels + column * (side + _CROP_GAP), top))
    with replace_when_done(path) as temporary:
        sheet.save(temporary, format='PNG')


def draw_picks(
    path: Path, pictures: Sequence[tuple[str, Frame, np.ndarray, Matches]], diameter_px: float, columns: int
) -> None:
    """Draw picks on micrographs, arms side by side: matches green, misses red, excess picks yellow.

    Parameters
    ----------
    pictures : caption, micrograph with targets, (n, 2) picks, and how they match.
    """
    drawn = []
    for caption, frame, picks_yx, matches in pictures:
        picture = draw_exhibit(Exhibit(caption, frame.contrast, np.empty((0, 2))), diameter_px)
        scale = picture.width / frame.contrast.shape[1]
        caption_height = picture.height - round(frame.contrast.shape[0] * scale)
        words = picture.crop((0, 0, picture.width, caption_height))
        pen = ImageDraw.Draw(picture)
        for places, color in ((picks_yx[matches.is_hit], _HIT), (picks_yx[~matches.is_hit], _EXCESS),
                              (frame.centers_yx[~matches.is_found], _MISS)):
            for y, x in (places + 0.5) * scale:
                r = diameter_px / 2 * scale
                pen.ellipse((x - r, y - r + caption_height, x + r, y + r + caption_height), outline=color, width=3)
        picture.paste(words)                # circles of particles at the upper edge reach into them
        drawn.append(picture.resize((picture.width * 2 // 3, picture.height * 2 // 3), Image.Resampling.LANCZOS))
    _tile(path, drawn, columns)


def draw_similarity(path: Path, frame: Frame, maps: Sequence[SimilarityMap]) -> None:
    """Draw similarity maps beside their micrograph; the query is the cross."""
    figure = Figure(figsize=(4.2 * (len(maps) + 1), 4.6), layout='constrained')
    axes = [figure.add_subplot(1, len(maps) + 1, i + 1) for i in range(len(maps) + 1)]
    axes[0].imshow(np.clip(frame.contrast, -3, 3), cmap='gray')
    axes[0].set_title(frame.name, fontsize=8)
    axes[0].scatter(frame.centers_yx[:, 1], frame.centers_yx[:, 0], s=12, facecolors='none', edgecolors='gold')
    for panel, one in zip(axes[1:], maps, strict=True):
        panel.imshow(one.similarity, cmap='coolwarm', vmin=-1, vmax=1)
        panel.plot(one.query_yx[1], one.query_yx[0], 'k+', markersize=12, markeredgewidth=2)
        score = '' if one.auc is None else f', ROC area {one.auc:.2f}'
        panel.set_title(f'{one.encoder}\n{one.query} query{score}', fontsize=8)
    for panel in axes:
        panel.set(xticks=[], yticks=[])     # an axis that is off keeps no room for its title
    _save(figure, path)


def _frequencies(pixel_size: float) -> np.ndarray:
    return np.arange(N_SHELLS) / N_SHELLS / (2 * pixel_size)


def _tile(path: Path, pictures: Sequence[Image.Image], columns: int) -> None:
    width, height = (max(getattr(one, side) for one in pictures) + _CROP_GAP for side in ('width', 'height'))
    rows = -(-len(pictures) // columns)
    sheet = Image.new('RGB', (columns * width, rows * height), 'white')
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    with replace_when_done(path) as temporary:
        sheet.save(temporary, format='PNG')


def _save(figure: Figure, path: Path) -> None:
    with replace_when_done(path) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, format='png', dpi=110)
