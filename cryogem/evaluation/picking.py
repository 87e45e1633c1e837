"""Picking proof: Topaz, trained on a set, picks real micrographs; its average precision against people's picks."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.optimize import linear_sum_assignment

from cryogem.evaluation.frames import Frame
from cryogem.evaluation.pickers import Picks
from cryogem.evaluation.programs import ProgramError, run_program
from cryogem.imaging.resampling import resample_centers, resample_image
from cryogem.io.files import make_folder, write_text
from cryogem.io.mrc import write_image

logger = logging.getLogger(__name__)

RADIUS_PX = 8                               # of a particle in the micrographs Topaz sees: its field of view is 71 px
TRAINED_RADIUS = 4                          # px around a centre that count as particle in training
_MINIBATCH, _POSITIVE_SHARE = 48, 0.25
_SHIPPED = 'resnet8_u32'


@dataclass(frozen=True)
class Training:
    """One way to train the picker."""

    arm: str                                # what it is trained on
    is_pretrained: bool                     # starts from the shipped weights, else from random ones
    iterations: int                         # 0: the shipped weights as they are
    seed: int


@dataclass(frozen=True)
class Course:
    """A training of the picker that is stopped and judged at some lengths on its way."""

    arm: str
    is_pretrained: bool
    lengths: tuple[int, ...]                # iterations, as in `Training`
    seed: int

    def list_stages(self) -> list[Training]:
        """Return the shorter trainings that this one contains, shortest first, and itself."""
        return [Training(self.arm, self.is_pretrained, length, self.seed) for length in sorted(set(self.lengths))]


@dataclass(frozen=True)
class PickingResult:
    """How one trained picker did on the real micrographs."""

    training: Training
    average_precision: float


@dataclass(frozen=True)
class Matches:
    """Picks and targets of one micrograph, matched one to one."""

    is_hit: np.ndarray                      # (n,) bool, of the picks
    is_found: np.ndarray                    # (m,) bool, of the targets


def match_picks(picks_yx: np.ndarray, targets_yx: np.ndarray, radius: float) -> Matches:
    """Match picks to targets one to one so that the sum of squared distances below `radius` px is best.

    As Topaz does it: pairs at `radius` and beyond do not match.
    """
    cost = np.minimum(((picks_yx[:, None] - targets_yx[None]) ** 2).sum(axis=-1) - radius ** 2, 0)
    rows, columns = linear_sum_assignment(cost)
    is_match = cost[rows, columns] < 0
    is_hit, is_found = np.zeros(len(picks_yx), dtype=bool), np.zeros(len(targets_yx), dtype=bool)
    is_hit[rows[is_match]], is_found[columns[is_match]] = True, True
    return Matches(is_hit, is_found)


def compute_average_precision(is_hit: np.ndarray, scores: np.ndarray, n_targets: int) -> float:
    """Return the area under the precision-recall curve as Topaz computes it (Bepler et al. 2019).

    Picks of all micrographs by falling score, equal scores together; the sum of precision times hits over `n_targets`,
    so missed targets count against it.
    """
    if not len(scores):
        return 0.0
    scores = np.asarray(scores, dtype=np.float32)
    order = np.argsort(-scores, kind='stable')
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(np.asarray(is_hit, dtype=int)[order])[ends]
    precision = hits / (ends + 1)
    return float((precision * np.diff(hits, prepend=0)).sum() / n_targets)


def score_picks(picks: Sequence[Picks], targets: Sequence[np.ndarray], radius: float) -> float:
    """Return the average precision of the picks of some micrographs against their (m, 2) targets.

    Micrographs without any target are left out, as Topaz leaves them out.
    """
    judged = [(one, places) for one, places in zip(picks, targets, strict=True) if len(places)]
    hits = [match_picks(one.centers_yx, places, radius).is_hit for one, places in judged]
    return compute_average_precision(np.concatenate(hits), np.concatenate([one.scores for one, _ in judged]),
                                     sum(len(places) for _, places in judged))


def find_best_threshold(picks: Sequence[Picks], targets: Sequence[np.ndarray], radius: float) -> float:
    """Return the score above which picks have the best F1: where pictures of picks are cut."""
    hits = np.concatenate([match_picks(one.centers_yx, places, radius).is_hit
                           for one, places in zip(picks, targets, strict=True)])
    scores = np.concatenate([one.scores for one in picks])
    order = np.argsort(-scores)
    found = np.cumsum(hits[order])
    f1 = 2 * found / (np.arange(1, len(order) + 1) + sum(map(len, targets)))
    return float(scores[order][int(np.argmax(f1))]) if len(order) else 0.0


def summarise(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean over seeds and its 95 % confidence interval (Student's t); the mean alone for a single seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def count_labelled(centers_yx: np.ndarray, shape: tuple[int, ...]) -> int:
    """Count the px of an (h, w) micrograph that Topaz takes for particles: those near the (n, 2) integer centres."""
    steps = np.arange(-TRAINED_RADIUS, TRAINED_RADIUS + 1)
    disc = np.stack(np.meshgrid(steps, steps, indexing='ij'), axis=-1).reshape(-1, 2)
    disc = disc[(disc ** 2).sum(axis=1) <= TRAINED_RADIUS ** 2]
    places = (np.asarray(centers_yx, dtype=int).reshape(-1, 1, 2) + disc).reshape(-1, 2)
    is_inside = ((places >= 0) & (places < np.array(shape))).all(axis=1)
    return len(np.unique(places[is_inside], axis=0))


class TopazPicker:
    """Topaz as a program: it sees micrographs binned until a particle has a radius of 8 px, as its authors advise.

    Parameters
    ----------
    program : the words that start it.
    folder : for its files.
    """

    def __init__(self, program: Sequence[str], folder: Path, diameter_px: float):
        self._program, self._folder = program, folder
        self._binning = max(1.0, diameter_px / 2 / RADIUS_PX)
        self._shapes: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        self._shares: dict[str, float] = {}
        make_folder(folder)

    def add_set(self, arm: str, frames: Sequence[Frame]) -> None:
        """Write the micrographs of a set, binned, zero-mean and of unit sd, and the centres on them."""
        folder = self._folder / arm
        make_folder(folder)
        lines, shapes = ['image_name\tx_coord\ty_coord'], []
        n_labelled = n_px = 0
        for i, frame in enumerate(frames):
            small = resample_image(frame.contrast, 1.0, self._binning)
            shapes.append((frame.contrast.shape, small.shape))
            write_image(folder / f'm{i:05d}.mrc', ((small - small.mean()) / small.std()).astype(np.float32), 1.0)
            centers = np.rint(resample_centers(frame.centers_yx, frame.contrast.shape, small.shape)).astype(int)
            is_inside = ((centers >= 0) & (centers < small.shape)).all(axis=1)
            lines += [f'm{i:05d}\t{x}\t{y}' for y, x in centers[is_inside]]
            n_labelled += count_labelled(centers[is_inside], small.shape)
            n_px += small.size
        write_text(folder / 'targets.txt', '\n'.join(lines) + '\n')
        self._shapes[arm], self._shares[arm] = shapes, n_labelled / max(1, n_px)

    def train(self, course: Course) -> dict[Training, str]:
        """Train on a set that was added; return the models for `pick`, one for each length.

        All particles of a set are labelled, so the rest counts as background (Topaz's method PN), in the share it has.
        The share is given outright: from a number of particles, topaz-em 0.3.20 takes 2 r + 1 times the share there is
        (`pixels_given_radius` counts a disc once for each plane of a cube), which exceeds 1 on crowded micrographs, and
        then everything becomes a particle. Topaz writes its model after every epoch and learns at one rate, so that a
        shorter training is the beginning of a longer one.

        Raises
        ------
        ProgramError : Topaz fails, or its loss runs away.
        """
        stages = course.list_stages()
        longest = stages[-1].iterations
        if longest == 0:
            return {stages[-1]: _SHIPPED}
        folder = self._folder / course.arm
        start = '--pretrained' if course.is_pretrained else '--no-pretrained'
        prefix = f'{start.strip("-")}_{course.seed}'
        epoch = math.gcd(*(one.iterations for one in stages))
        # Topaz takes no seed, it draws another one at every start: `course.seed` only tells repetitions apart
        run_program([*self._program, 'train', '-d', '-1', '-j', '1', '--method', 'PN', '--pi',
                     f'{self._shares[course.arm]:.6f}', '-r', str(TRAINED_RADIUS), '--model', 'resnet8', '--units',
                     '32', start, '--epoch-size', str(epoch), '--num-epochs', str(longest // epoch),
                     '--minibatch-size', str(_MINIBATCH), '--minibatch-balance', str(_POSITIVE_SHARE),
                     '--train-images', '.', '--train-targets', 'targets.txt', '--save-prefix', prefix, '-o',
                     f'{prefix}.tsv'], folder)
        _check_losses(folder / f'{prefix}.tsv')
        return {one: str(_find_epoch(folder, prefix, one.iterations // epoch)) for one in stages}

    def pick(self, model: str, arm: str) -> list[Picks]:
        """Pick the micrographs of a set that was added; centres in px of the frames that were given.

        Raises
        ------
        ProgramError : Topaz fails.
        """
        folder, shapes = self._folder / arm, self._shapes[arm]
        names = [f'm{i:05d}' for i in range(len(shapes))]
        run_program([*self._program, 'extract', '-d', '-1', '-j', '1', '-r', str(RADIUS_PX), '-m', model, '-o',
                     'picks.txt', *(f'{name}.mrc' for name in names)], folder)
        rows = [line.split('\t') for line in (folder / 'picks.txt').read_text().splitlines()[1:]]
        found = []
        for name, (large, small) in zip(names, shapes, strict=True):
            own = np.array([(float(y), float(x), float(score)) for image, x, y, score in rows if image == name])
            own = own.reshape(-1, 3)
            found.append(Picks(resample_centers(own[:, :2], small, large), own[:, 2]))
        return found


def _find_epoch(folder: Path, prefix: str, number: int) -> Path:
    """Return the model after an epoch; Topaz pads the numbers to the length of the last one, more or less."""
    for path in folder.glob(f'{prefix}_epoch*.sav'):
        if int(path.stem.rpartition('epoch')[2]) == number:
            return path.resolve()
    raise ProgramError(f'Topaz left no model of epoch {number} of {prefix}')


def _check_losses(path: Path) -> None:
    """Refuse a training whose loss, a cross entropy, is not finite or falls below zero: its model is worth nothing."""
    header, *lines = [line.split('\t') for line in path.read_text().splitlines()]
    losses = np.array([float(line[header.index('loss')]) for line in lines])
    if not len(losses) or not (np.isfinite(losses) & (losses >= 0)).all():
        raise ProgramError(f"the loss of Topaz's training ran away ({path.name})")


def prove_picking(
    picker: TopazPicker, courses: Iterable[Course], sets: dict[str, Sequence[Frame]], test: Sequence[Frame],
    radius: float,
) -> tuple[list[PickingResult], dict[str, list[Picks]]]:
    """Train on each set in each way and pick the test micrographs.

    Parameters
    ----------
    sets : training micrographs with centres, by arm.
    test : real micrographs with people's picks.
    radius : px within which a pick matches.

    Returns
    -------
    The results, and of each arm the picks of its best-scored training.
    """
    picker.add_set('test', test)
    for arm, frames in sets.items():
        picker.add_set(arm, frames)
    targets = [one.centers_yx for one in test]
    results: list[PickingResult] = []
    picks: dict[str, tuple[float, list[Picks]]] = {}
    for course in courses:
        try:
            found = {stage: picker.pick(model, 'test') for stage, model in picker.train(course).items()}
        except ProgramError as error:
            logger.warning('picking proof, %s: %s', course, error)
            continue
        for stage, own in found.items():
            score = score_picks(own, targets, radius)
            results.append(PickingResult(stage, score))
            logger.info('picking: trained on %s, %s, %d iterations, seed %d: average precision %.3f', stage.arm,
                        'shipped weights' if stage.is_pretrained else 'from scratch', stage.iterations, stage.seed,
                        score)
            if stage.arm not in picks or score > picks[stage.arm][0]:
                picks[stage.arm] = score, own
    return results, {arm: found for arm, (_, found) in picks.items()}

