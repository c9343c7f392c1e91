"""Tells ranks apart where several processes train, and keeps equal what has to be equal on all of them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among the `count` that `torchrun` started; 0 of 1 without it."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this rank is the one that writes."""
        return self.rank == 0

    def wrapped(self, student: nn.Module) -> nn.Module:
        """`student`, its gradients averaged over the ranks."""
        if self.count == 1:
            return student
        devices = [self.device.index] if self.device.type == "cuda" else None
        # The buffers are ranges, equal on all ranks already.
        return nn.parallel.DistributedDataParallel(student, device_ids=devices, broadcast_buffers=False)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values`, of any shape, over the ranks."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def agree(self, model: nn.Module) -> bool:
        """Whether `model` has the same state, to the bit, on every rank."""
        if self.count == 1:
            return True
        flat = torch.cat([t.detach().double().flatten() for t in model.state_dict().values()])
        return torch.equal(self.highest(flat.clone()), -self.highest(-flat))

    def highest(self, values: Tensor) -> Tensor:
        """The highest of each of `values` that any rank has."""
        if self.count > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values


def join_ranks() -> Ranks:
    """Join what `torchrun` started (NCCL on CUDA, gloo on CPU), or stand alone. CUDA is used when present."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if count > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(rank, count, device)


def leave_ranks() -> None:
    """Undo `join_ranks`."""
    if dist.is_initialized():
        dist.destroy_process_group()
