"""The processes of one training: which one this is, and what they tell each other.

With ``devices`` or ``nodes`` above 1, Lightning's DistributedDataParallel trains one copy of the network in each
process and averages the gradients. Every process sees its own samples; losses and counts are summed over all of
them, so that W processes with B patches each take the step of one process with W x B patches.
"""

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment
from torch import Tensor, distributed

from segmentation import SkipSegError
from segmentation.config import TrainSettings


@dataclass(frozen=True)
class Rank:
    """One of the processes of a training.

    Attributes:
        devices: Processes on each machine.
        nodes: Machines.
        node: Which machine this is.
        local: Which process of the machine this is.
        address: Host of the first machine.
        port: Where its first process listens.

    Examples:
        >>> rank = Rank(devices=4, nodes=2, node=1, local=3)
        >>> rank.world, rank.number
        (8, 7)
    """

    devices: int = 1
    nodes: int = 1
    node: int = 0
    local: int = 0
    address: str = "127.0.0.1"
    port: int = 0

    @property
    def world(self) -> int:
        """How many processes there are."""
        return self.devices * self.nodes

    @property
    def number(self) -> int:
        """Which of all processes this is; 0 writes the files."""
        return self.node * self.devices + self.local


def first_rank(settings: TrainSettings, environment: Mapping[str, str] = os.environ) -> Rank:
    """The process that the user started on this machine.

    Args:
        settings: Of the training.
        environment: Says, with ``nodes`` above 1, which machine this is (NODE_RANK, or SLURM_NODEID) and where the
            first one listens (MASTER_ADDR, MASTER_PORT), as PyTorch and Lightning ask.

    Raises:
        SkipSegError: If this machine lacks the GPUs, the network cannot be trained in several processes on a CPU,
            or ``environment`` does not say where the machines meet.

    Examples:
        >>> settings = TrainSettings("dataset", "run", nodes=2, device="cpu")
        >>> told = {"NODE_RANK": "1", "MASTER_ADDR": "node-a", "MASTER_PORT": "29500"}
        >>> first_rank(settings, told)
        Rank(devices=1, nodes=2, node=1, local=0, address='node-a', port=29500)
    """
    devices, nodes = settings.devices, settings.nodes
    if devices * nodes == 1:
        return Rank()
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    if cuda and devices > torch.cuda.device_count():
        raise SkipSegError(f"devices is {devices}, but this machine has {torch.cuda.device_count()} GPUs")
    if not cuda and settings.network.norm == "batch":
        raise SkipSegError(
            "network.norm batch shares its statistics between processes on GPUs only; train it with devices 1, or "
            "choose norm instance, group or layer"
        )
    if nodes == 1:
        return Rank(devices)
    told = {**environment, "NODE_RANK": environment.get("NODE_RANK", environment.get("SLURM_NODEID", ""))}
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if not told.get(name)]
    wrong = [name for name in ("MASTER_PORT", "NODE_RANK") if not told.get(name, "").isdecimal()]
    if missing or wrong or int(told["NODE_RANK"]) >= nodes:
        what = f"lacks {', '.join(missing)}" if missing else f"holds a wrong {' or '.join(wrong or ['NODE_RANK'])}"
        raise SkipSegError(
            f"nodes is {nodes}, but the environment {what}; start the same command on each machine with MASTER_ADDR "
            f"and MASTER_PORT of the first one and NODE_RANK 0 to {nodes - 1}"
        )
    return Rank(devices, nodes, int(told["NODE_RANK"]), 0, told["MASTER_ADDR"], int(told["MASTER_PORT"]))


@dataclass(eq=False)
class RankEnvironment(ClusterEnvironment):
    """Tells Lightning what :class:`Rank` knows, and that it has no process to start.

    Without it, Lightning would find a SLURM job or an MPI run around it, and take its tasks for those of the training.
    """

    rank: Rank = field(default_factory=Rank)

    @property
    def creates_processes_externally(self) -> bool:
        """Yes: :mod:`segmentation.training.follow` does."""
        return True

    @property
    def main_address(self) -> str:
        """Host of the first machine."""
        return self.rank.address

    @property
    def main_port(self) -> int:
        """Where its first process listens."""
        return self.rank.port

    @staticmethod
    def detect() -> bool:
        """Never chosen by Lightning itself."""
        return False

    def world_size(self) -> int:
        """How many processes there are."""
        return self.rank.world

    def set_world_size(self, size: int) -> None:
        """Known already."""

    def global_rank(self) -> int:
        """Which of all processes this is."""
        return self.rank.number

    def set_global_rank(self, rank: int) -> None:
        """Known already."""

    def local_rank(self) -> int:
        """Which process of its machine this is."""
        return self.rank.local

    def node_rank(self) -> int:
        """Which machine this is."""
        return self.rank.node


class EndTogether(pl.Callback):
    """Let the first process of a machine alone answer an interrupt: it ends the others.

    Lightning's own answer to SIGTERM sends a message between the processes from wherever they are, which can
    meet another message and then waits forever.

    Args:
        rank: Which process this is.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank = rank

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signal over; Lightning puts back what was there before the training."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN if self.rank.local else signal.default_int_handler)


def gather(value: Any) -> list[Any]:
    """``value`` of every process, in their order; alone, of this one.

    Examples:
        >>> gather("alone")
        ['alone']
    """
    if not distributed.is_initialized():
        return [value]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


def sum_over_ranks(total: Tensor) -> Tensor:
    """Sum of ``total``, any shape, over all processes, with the gradient of a loss that all of them compute from it.

    While nothing is learnt, each process scores its own patches and ``total`` stays as it is.

    Examples:
        >>> sum_over_ranks(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if not (distributed.is_initialized() and torch.is_grad_enabled()):
        return total
    return _SumOverRanks.apply(total)


class _SumOverRanks(torch.autograd.Function):
    """Sum over processes; each has the same loss L(sum), so the gradients that arrive are equal and add up."""

    @staticmethod
    def forward(ctx: Any, total: Tensor) -> Tensor:
        """Add up."""
        summed = total.detach().clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Gradient of the sum of all processes' losses; averaging it over them gives that of the one loss."""
        return grads[0] * distributed.get_world_size()
