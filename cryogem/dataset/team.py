"""Which micrographs this process makes, when several make one dataset: ranks of torchrun, and shards of job arrays."""

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from torch import distributed

from cryogem.errors import ConfigError, CryogemError

Result = TypeVar('Result')

_LONGEST_WAIT = datetime.timedelta(days=30)             # for the slowest rank; one that dies ends the wait at once


@dataclass(frozen=True)
class Team:
    """One of `n_ranks` processes that wait for each other, in one of `n_shards` jobs that do not."""

    rank: int = 0
    n_ranks: int = 1
    shard: int = 0
    n_shards: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what the ranks of its job share."""
        return self.rank == 0

    @property
    def is_shared(self) -> bool:
        """Whether other jobs may write into the folder at the same time."""
        return self.n_shards > 1

    @property
    def label(self) -> str:
        """What progress lines say of this process."""
        parts = [f'shard {self.shard + 1} of {self.n_shards}'] if self.n_shards > 1 else []
        parts += [f'rank {self.rank + 1} of {self.n_ranks}'] if self.n_ranks > 1 else []
        return f'micrographs ({", ".join(parts)})' if parts else 'micrographs'

    def list_indices(self, n: int) -> range:
        """Return the indices, of 0 to n - 1, that this process makes: every so manieth, so that all end together."""
        return range(self.shard * self.n_ranks + self.rank, n, self.n_shards * self.n_ranks)

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """Let the first rank work, then all others, who find on disk what it wrote."""
        if not self.is_first:
            self.wait()
        result = work()
        if self.is_first:
            self.wait()
        return result

    def wait(self) -> None:
        """Wait for all ranks.

        Raises
        ------
        CryogemError : one of them has ended.
        """
        if self.n_ranks == 1:
            return
        try:
            distributed.barrier()
        except RuntimeError as error:
            raise CryogemError('another rank ended before its work was done; see its messages, then continue the run'
                               ) from error

    def __enter__(self) -> 'Team':
        if self.n_ranks > 1:
            distributed.init_process_group('gloo', timeout=_LONGEST_WAIT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        if self.n_ranks > 1:
            distributed.destroy_process_group()


def join_team(shard: str) -> Team:
    """Return the place of this process: `shard` is the setting ``I/N`` or empty, ranks come from the environment.

    Raises
    ------
    ConfigError : the environment of torchrun is not whole.
    """
    own, total = map(int, shard.split('/')) if shard else (1, 1)
    if int(os.environ.get('WORLD_SIZE', '1')) == 1:
        return Team(shard=own - 1, n_shards=total)
    missing = [name for name in ('RANK', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
    if missing:
        raise ConfigError(f'WORLD_SIZE is {os.environ["WORLD_SIZE"]} but {missing[0]} is not set; '
                          'start the ranks with torchrun')
    return Team(int(os.environ['RANK']), int(os.environ['WORLD_SIZE']), own - 1, total)
