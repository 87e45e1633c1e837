"""The processes of a training: one, several on one computer, or several computers, through Lightning Fabric.

Fabric starts the processes, finds the others under SLURM, torchrun or its own launcher, and moves numbers between
them. Gradients are averaged here and not by its wrapper of DistributedDataParallel: a step runs the encoder alone, and
the discriminator without its gradients, which that wrapper takes for unused parts.
"""

import logging
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from cryogem.errors import ConfigError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)


class Engine:
    """The processes of one training. All of them run the same program; the first (`is_first`) writes.

    Parameters
    ----------
    device : of this process, as chosen by the user; with several devices only its type counts.
    n_devices : processes on each computer, each with a GPU of its own or on the CPU.
    n_nodes : computers.
    """

    def __init__(self, device: torch.device | str = 'cpu', n_devices: int = 1, n_nodes: int = 1):
        self._fabric = None if n_devices * n_nodes == 1 else _make_fabric(torch.device(device), n_devices, n_nodes)
        self._device = torch.device(device)

    def launch(self) -> None:
        """Start the other processes, or join them. What follows runs in all of them."""
        if self._fabric is None:
            return
        self._fabric.launch()
        if not self.is_first:
            logging.getLogger('cryogem').setLevel(logging.WARNING)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self._device if self._fabric is None else self._fabric.device

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        return 0 if self._fabric is None else self._fabric.global_rank

    @property
    def n_processes(self) -> int:
        """Number of processes."""
        return 1 if self._fabric is None else self._fabric.world_size

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients of `parameters` by their mean over all processes."""
        if self._fabric is None:
            return
        gradients = [one.grad for one in parameters if one.grad is not None]
        if not gradients:
            return
        flat = self.average(torch.cat([one.flatten() for one in gradients]))
        for gradient, mean in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def gather(self, batch: Tensor) -> Tensor:
        """Return the batches (b, ...) of all processes in the order of the crops' numbers; gradients flow back to each.

        Process r of n holds the crops r, r + n, r + 2 n, ...
        """
        if self._fabric is None:
            return batch
        return cast(Tensor, self._fabric.all_gather(batch, sync_grads=True)).transpose(0, 1).flatten(0, 1)

    def average(self, numbers: Tensor) -> Tensor:
        """Return the mean of `numbers` over all processes, without gradients."""
        if self._fabric is None:
            return numbers
        return cast(Tensor, self._fabric.all_reduce(numbers.detach().clone(), reduce_op='mean'))

    def agree(self, value: float) -> float:
        """Return the `value` of the first process in all of them."""
        return value if self._fabric is None else float(self._fabric.broadcast(value))

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self._fabric is not None:
            self._fabric.barrier()


def _make_fabric(device: torch.device, n_devices: int, n_nodes: int) -> 'Fabric':
    """Build Fabric's plan of the processes.

    Raises
    ------
    ConfigError : more GPUs are asked for than there are.
    """
    from lightning_fabric import Fabric  # takes a second: only those who need it wait

    if device.type == 'cuda' and n_devices > torch.cuda.device_count():
        raise ConfigError(f'devices cannot be {n_devices}: torch sees {torch.cuda.device_count()} GPUs; ask for fewer')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return Fabric(accelerator='cuda' if device.type == 'cuda' else 'cpu', devices=n_devices, num_nodes=n_nodes,
                      strategy='ddp')
