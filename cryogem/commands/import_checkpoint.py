"""``cryogem import-checkpoint``: a published checkpoint becomes a model folder."""

import logging
from pathlib import Path

from cryogem.config import ImportCheckpointConfig, describe_run
from cryogem.dataset.writer import check_empty
from cryogem.io.files import write_json
from cryogem.translation.published import import_published_checkpoint

logger = logging.getLogger(__name__)


def run(config: ImportCheckpointConfig, output_dir: Path) -> None:
    """Read the published generator and write it to `output_dir` as a model that generate accepts."""
    check_empty(output_dir)
    generator = import_published_checkpoint(Path(config.checkpoint), output_dir)
    write_json(output_dir / 'config.json', describe_run('import-checkpoint', config))
    logger.info('imported a generator of depth %d and width %d into %s', generator.depth, generator.width, output_dir)
