"""Training of the `fast` preset: setup -> fit -> save, resumable at any moment.

The state of a run is what its checkpoint holds; the crops and positions of a step follow from seed and step alone.
So a run that was killed and continued ends, on a CPU, with the very numbers of an uninterrupted one.
"""

import dataclasses
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryogem.errors import ConfigError, InputError, OutputError, TrainingError
from cryogem.io.checkpoint import load_checkpoint, save_checkpoint
from cryogem.io.files import make_folder
from cryogem.progress import MetricsLog, Progress
from cryogem.translation.learner import LOSSES, Learner, TrainerSettings
from cryogem.translation.pairs import CropBatch
from cryogem.translation.samples import write_sample
from cryogem.translation.translate import save_model

CHECKPOINT, METRICS, SAMPLES = 'checkpoint.pt', 'metrics.csv', 'samples'
COLUMNS = ('step', *LOSSES, 'seconds')
_MAY_CHANGE = ('max_steps', 'max_minutes', 'checkpoint_every', 'device')

logger = logging.getLogger(__name__)


class Sampler(Protocol):
    """Where crops come from."""

    def draw(self, step: int) -> CropBatch:
        """Return the crops of `step`, which follow from `step` alone."""


@dataclass(frozen=True)
class TrainingResult:
    """Where a training ended."""

    step: int                               # steps done, over all runs into this folder
    seconds: float                          # spent in them
    losses: dict[str, float]                # of the last step


def train(
    sampler: Sampler,
    settings: TrainerSettings,
    output_dir: Path,
    resume: bool = False,
    description: dict[str, Any] | None = None,
) -> TrainingResult:
    """Train a residual generator and keep its running average as the model in `output_dir`.

    Ends after ``max_steps``, or after ``max_minutes`` of all runs into this folder together. Every
    ``checkpoint_every`` steps, and at the end, it writes checkpoint, model and a sample picture.

    Parameters
    ----------
    sampler : gives the crops of each step.
    output_dir : becomes a model folder, with ``metrics.csv``, ``samples/`` and ``checkpoint.pt`` beside the model.
    resume : go on from the checkpoint in `output_dir`; without one, begin.
    description : plain JSON values for the model's card, beside steps and seconds.

    Raises
    ------
    OutputError : `output_dir` holds a training and `resume` is not set, or cannot be written.
    ConfigError : a setting differs from that of the run to resume.
    TrainingError : a loss or gradient is not finite; the last checkpoint is kept.
    """
    run = _Run(settings, output_dir, description or {})
    run.setup(resume)
    if run.is_finished:
        logger.info('training in %s is finished already, after %d steps; give more steps or minutes to go on',
                    output_dir, run.step)
    else:
        run.fit(sampler)
    return TrainingResult(run.step, run.seconds, run.losses)


class _Run:
    """One training and its folder."""

    def __init__(self, settings: TrainerSettings, output_dir: Path, description: dict[str, Any]):
        self._settings, self._output_dir, self._description = settings, output_dir, description
        self._checkpoint = output_dir / CHECKPOINT
        self._metrics = MetricsLog(output_dir / METRICS, COLUMNS)
        self._learner = Learner(settings)
        self.step, self.seconds = 0, 0.0
        self.losses: dict[str, float] = {}

    @property
    def is_finished(self) -> bool:
        """Whether the steps or the minutes are used up."""
        minutes = self._settings.max_minutes
        return self.step >= self._settings.max_steps or (minutes is not None and self.seconds >= 60 * minutes)

    def setup(self, resume: bool) -> None:
        """Prepare the folder, and take up the state of the checkpoint."""
        make_folder(self._output_dir / SAMPLES)
        if self._checkpoint.exists():
            if not resume:
                raise OutputError(f'output {str(self._output_dir)!r} holds a training already; '
                                  'say --continue to go on with it, or choose another folder')
            self._load()
        elif resume:
            logger.info('no checkpoint in %s yet, training begins', self._output_dir)
        self._metrics.keep_until('step', self.step)

    def fit(self, sampler: Sampler) -> None:
        """Train until steps or minutes are used up."""
        progress = Progress('training', self._settings.max_steps, self.step)
        started = time.monotonic() - self.seconds
        while not self.is_finished:
            batch = sampler.draw(self.step)
            self.losses = self._learner.learn(batch, self.step)
            self._check_finite()
            self.step += 1
            self.seconds = time.monotonic() - started
            self._metrics.append({'step': self.step, **self.losses, 'seconds': round(self.seconds, 3)})
            if self.is_finished or self.step % self._settings.checkpoint_every == 0:
                self._save(batch)
            progress.update(self.step, ', '.join(f'{key} {value:.4g}' for key, value in self.losses.items()))

    def _check_finite(self) -> None:
        for key, value in self.losses.items():
            if not math.isfinite(value):
                kept = 'the last checkpoint is kept' if self._checkpoint.exists() else 'no checkpoint was written yet'
                raise TrainingError(f'{key} became {value} in step {self.step + 1}, {kept}; '
                                    'check the micrographs, or train with a smaller learning_rate')

    def _save(self, batch: CropBatch) -> None:
        """Write model and sample picture, then the checkpoint that says they are there."""
        self._description.update(steps=self.step, seconds=round(self.seconds, 1))
        save_model(self._output_dir, self._learner.averaged, self._description)
        generated = self._learner.translate(batch.prior[:1])
        write_sample(self._output_dir / SAMPLES / f'step_{self.step:06d}.png',
                     [one[0, 0].cpu().numpy() for one in (batch.prior, generated, batch.real)])
        save_checkpoint(self._checkpoint, {
            'step': self.step, 'seconds': self.seconds, 'losses': self.losses,
            'settings': dataclasses.asdict(self._settings), 'learner': self._learner.state_dict(),
        })

    def _load(self) -> None:
        content = load_checkpoint(self._checkpoint, self._settings.device)
        try:
            before = content['settings']
            self._check_settings(before)
            self._learner.load_state_dict(content['learner'])
            self.step, self.seconds, self.losses = content['step'], content['seconds'], content['losses']
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f'checkpoint {str(self._checkpoint)!r} does not fit this training ({error}); '
                             'train into another folder') from error
        logger.info('continuing after step %d', self.step)

    def _check_settings(self, before: dict[str, Any]) -> None:
        for key, value in dataclasses.asdict(self._settings).items():
            if key not in _MAY_CHANGE and before[key] != value:
                raise ConfigError(f'{key} cannot be {value!r} because this training began with {before[key]!r}; '
                                  'keep that value, or train into another folder')
