"""Training: setup -> fit -> save, resumable at any moment.

The state of a run is what its checkpoint holds; the crops and positions of a step follow from seed and step alone.
So a run that was killed and continued ends, on a CPU, with the very numbers of an uninterrupted one. All files are
written by the first process.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cryogem.errors import ConfigError, InputError, OutputError, TrainingError
from cryogem.io.checkpoint import load_checkpoint, save_checkpoint
from cryogem.io.files import make_folder
from cryogem.progress import MetricsLog, Progress
from cryogem.translation.engine import Engine
from cryogem.translation.learner import LOSSES, Learner
from cryogem.translation.model import save_model
from cryogem.translation.pairs import CropBatch, Sampler, stream_crops
from cryogem.translation.samples import write_sample
from cryogem.translation.settings import TrainerSettings
from cryogem.translation.statistics import StatisticsGoal

CHECKPOINT, METRICS, SAMPLES = 'checkpoint.pt', 'metrics.csv', 'samples'
COLUMNS = ('step', *LOSSES, 'realism_model', 'realism_prior', 'seconds')     # realism where it was judged, else empty
_MAY_CHANGE = ('max_steps', 'max_minutes', 'checkpoint_every', 'patience')

Translate = Callable[[Tensor], Tensor]      # (b, n_inputs, h, w) -> (b, 1, h, w), contrast units
Judge = Callable[[Translate], float]        # how far what it makes is from held-out real crops; smaller is better
Watcher = Callable[[int, dict[str, float]], None]       # step, figures by name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """Where a training ended."""

    step: int                               # steps done, over all runs into this folder
    seconds: float                          # spent in them
    losses: dict[str, float]                # of the last step
    best_step: int                          # after which the model that was kept had been trained


@dataclass(frozen=True)
class Support:
    """What a training may be given beside its crops."""

    judge: Judge | None = None              # ends a training early and chooses the model to keep; None: the last
    goal: StatisticsGoal | None = None      # what the texture statistics should become
    watch: Watcher | None = None            # is told every figure
    n_workers: int = 1                      # processes that draw crops


def train(
    sampler: Sampler,
    settings: TrainerSettings,
    output_dir: Path,
    resume: bool = False,
    description: dict[str, Any] | None = None,
    support: Support | None = None,
    engine: Engine | None = None,
) -> TrainingResult:
    """Train a generator and keep its best running average as the model in `output_dir`.

    Ends after ``max_steps``, after ``max_minutes`` of all runs into this folder together, or when ``patience``
    checkpoints in a row have brought no better model. Every ``checkpoint_every`` steps, and at the end, it judges the
    model and writes model (if better), sample picture and checkpoint.

    Parameters
    ----------
    sampler : gives the crops of each step.
    output_dir : becomes a model folder, with ``metrics.csv``, ``samples/`` and ``checkpoint.pt`` beside the model.
    resume : go on from the checkpoint in `output_dir`; without one, begin.
    description : plain JSON values for the model's card, beside steps and seconds.
    engine : the processes, launched; without, this one alone.

    Raises
    ------
    OutputError : `output_dir` holds a training and `resume` is not set, or cannot be written.
    ConfigError : a setting differs from that of the run to resume.
    TrainingError : a loss or gradient is not finite; the last checkpoint is kept.
    """
    engine = engine or Engine()
    run = _Run(settings, output_dir, description or {}, support or Support(), engine)
    run.setup(resume)
    if run.is_finished:
        logger.info('training in %s is finished already, after %d steps; give more steps or minutes to go on',
                    output_dir, run.step)
    else:
        run.fit(sampler)
    engine.wait()
    return TrainingResult(run.step, run.seconds, run.losses, run.best_step)


class _Run:
    """One training and its folder."""

    def __init__(self, settings: TrainerSettings, output_dir: Path, description: dict[str, Any], support: Support,
                 engine: Engine):
        self._settings, self._output_dir, self._description = settings, output_dir, description
        self._support, self._engine = support, engine
        self._checkpoint = output_dir / CHECKPOINT
        self._metrics = MetricsLog(output_dir / METRICS, COLUMNS)
        self._learner = Learner(settings, engine, support.goal)
        self.step, self.seconds = 0, 0.0
        self.losses: dict[str, float] = {}
        self.best_step, self._best = 0, math.inf
        self._prior = math.nan                          # distance of the prior
        self._n_without = 0                             # checks in a row without a better model

    @property
    def is_finished(self) -> bool:
        """Whether steps, minutes or patience are used up."""
        minutes, patience = self._settings.max_minutes, self._settings.patience
        return (self.step >= self._settings.max_steps or (minutes is not None and self.seconds >= 60 * minutes)
                or (patience is not None and self._n_without >= patience))

    def setup(self, resume: bool) -> None:
        """Prepare the folder, and take up the state of the checkpoint."""
        if self._checkpoint.exists():
            if not resume:
                raise OutputError(f'output {str(self._output_dir)!r} holds a training already; '
                                  'say --continue to go on with it, or choose another folder')
            self._load()
        elif resume:
            logger.info('no checkpoint in %s yet, training begins', self._output_dir)
        if self._engine.is_first:
            make_folder(self._output_dir / SAMPLES)
            for left in [*self._output_dir.glob('.*.part'), *(self._output_dir / SAMPLES).glob('.*.part')]:
                with suppress(OSError):     # of a run that was killed while it wrote
                    left.unlink()
            self._metrics.keep_until('step', self.step)
        self._engine.wait()

    def fit(self, sampler: Sampler) -> None:
        """Train until steps, minutes or patience are used up."""
        progress = Progress('training', self._settings.max_steps, self.step)
        started = time.monotonic() - self.seconds
        if self._support.judge and self._engine.is_first and math.isnan(self._prior):
            self._prior = self._support.judge(lambda inputs: inputs[:, :1])
        for batch in stream_crops(sampler, self.step, self._settings.max_steps, self._support.n_workers):
            self.losses = self._learner.learn(batch, self.step)
            self._check_finite()
            self.step += 1
            self.seconds = self._engine.agree(time.monotonic() - started)
            is_due = self.is_finished or self.step % self._settings.checkpoint_every == 0
            distance = self._judge() if is_due else None
            self._report(distance)
            if is_due:
                self._save(batch, distance)
            progress.update(self.step, ', '.join(f'{key} {value:.4g}' for key, value in self.losses.items()))
            if self.is_finished:
                break

    def _report(self, distance: float | None) -> None:
        """Tell the figures of this step to the table and to who watches."""
        if not self._engine.is_first:
            return
        realism = {} if distance is None else {'realism_model': distance, 'realism_prior': self._prior}
        self._metrics.append({'step': self.step, **self.losses, **realism, 'seconds': round(self.seconds, 3)})
        if self._support.watch:
            self._support.watch(self.step, {**self.losses, **realism})

    def _check_finite(self) -> None:
        for key, value in self.losses.items():
            if not math.isfinite(value):
                kept = 'the last checkpoint is kept' if self._checkpoint.exists() else 'no checkpoint was written yet'
                raise TrainingError(f'{key} became {value} in step {self.step + 1}, {kept}; '
                                    'check the micrographs, or train with a smaller learning_rate')

    def _save(self, batch: CropBatch, distance: float | None) -> None:
        """Write the model if it is the best, a sample picture, then the checkpoint that says they are there."""
        is_better = distance is None or distance < self._best
        self._n_without = 0 if is_better else self._n_without + 1
        if is_better:
            self.best_step, self._best = self.step, math.inf if distance is None else distance
        elif self._settings.patience is not None and self._n_without >= self._settings.patience:
            logger.info('no better model in %d checks: training ends, the model of step %d is kept', self._n_without,
                        self.best_step)
        if self._engine.is_first:
            if is_better:
                self._save_model()
            self._write_sample(batch)
            save_checkpoint(self._checkpoint, {
                'step': self.step, 'seconds': self.seconds, 'losses': self.losses, 'best': self._best,
                'best_step': self.best_step, 'prior': self._prior, 'n_without': self._n_without,
                'settings': dataclasses.asdict(self._settings), 'learner': self._learner.state_dict(),
            })
        self._engine.wait()

    def _judge(self) -> float | None:
        """Return, in all processes alike, how far the model is from held-out real crops; None without a judge."""
        if not self._support.judge:
            return None
        distance = math.inf
        if self._engine.is_first:
            distance = self._support.judge(self._learner.translate)
            logger.info('step %d: distance to held-out real crops %.4g, of the prior %.4g', self.step, distance,
                        self._prior)
        return self._engine.agree(distance)

    def _save_model(self) -> None:
        realism = {'model': self._best, 'prior': self._prior} if self._support.judge else None
        save_model(self._output_dir, self._learner.averaged,
                   {**self._description, 'steps': self.step, 'seconds': round(self.seconds, 1), 'realism': realism},
                   f'weights_{self.step:06d}.safetensors')

    def _write_sample(self, batch: CropBatch) -> None:
        write_sample(self._output_dir / SAMPLES / f'step_{self.step:06d}.png', batch,
                     self._learner.translate(batch.inputs[:1]))

    def _load(self) -> None:
        content = load_checkpoint(self._checkpoint, self._engine.device)
        try:
            self._check_settings(content['settings'])
            self._learner.load_state_dict(content['learner'])
            self.step, self.seconds, self.losses = content['step'], content['seconds'], content['losses']
            self.best_step, self._best = content['best_step'], content['best']
            self._prior, self._n_without = content['prior'], content['n_without']
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f'checkpoint {str(self._checkpoint)!r} does not fit this training ({error}); '
                             'train into another folder') from error
        logger.info('continuing after step %d', self.step)

    def _check_settings(self, before: dict[str, Any]) -> None:
        for key, value in dataclasses.asdict(self._settings).items():
            if key not in _MAY_CHANGE and before[key] != value:
                raise ConfigError(f'{key} cannot be {value!r} because this training began with {before[key]!r}; '
                                  'keep that value, or train into another folder')
