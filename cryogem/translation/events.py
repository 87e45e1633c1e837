"""TensorBoard, which is optional: figures of a training as its event files."""

from pathlib import Path

from cryogem.errors import ConfigError
from cryogem.translation.trainer import Watcher


def open_events(folder: Path) -> Watcher:
    """Return what writes figures by name to event files in `folder`.

    Raises
    ------
    ConfigError : the package tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError('tensorboard cannot be True because its package is not installed; '
                          'install it (pip install tensorboard), or leave it out') from error
    writer = SummaryWriter(str(folder))

    def watch(step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return watch
