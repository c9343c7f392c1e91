"""A run carries this from step to step: the student, the average of its weights, and the best average so far."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from litehrnet_stage2.apps.qat.held_out import HeldOut, Student
from litehrnet_stage2.apps.qat.run_checkpoint import Checkpoint


class RunState:
    """The state of a run; it starts as the calibrated student, which is the best so far.

    Attributes:
        student: what the optimiser moves.
        average: exponential moving average of the student's state.
        best: the average that had the lowest loss on held-out maps, after `best_step` steps.
        first_loss: of the first batch, to tell a divergence by.
    """

    def __init__(self, student: Student, optimizer: torch.optim.Optimizer) -> None:
        self.student, self._optimizer = student, optimizer
        self.average = {name: value.detach().clone() for name, value in student.state_dict().items()}
        self.best = {name: value.clone() for name, value in self.average.items()}
        self.best_step, self.best_loss, self.first_loss = 0, math.inf, math.nan

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Let the average follow the student; integers are taken as they are."""
        for name, value in self.student.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def choose(self, held_out: HeldOut, step: int) -> None:
        """Keep the average as it is after `step` steps, if none before had a lower loss on held-out maps."""
        loss = held_out.choosing_loss(self.student, self.average)
        if loss < self.best_loss:
            self.best_step, self.best_loss = step, loss
            for name, value in self.average.items():
                self.best[name].copy_(value)

    def checkpoint(self, step: int, facts: dict[str, Any]) -> Checkpoint:
        """Everything that a run needs to go on after `step` steps."""
        own = {"student": self.student.state_dict(), "average": self.average, "best": self.best}
        tensors = {f"{kind}/{name}": value for kind, state in own.items() for name, value in state.items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
        moment = {name: getattr(self, name) for name in ("first_loss", "best_step", "best_loss")}
        return Checkpoint(step=step, tensors=tensors, facts=facts | moment)

    def restore(self, found: Checkpoint) -> None:
        """Go back to the moment of a checkpoint of the same run."""
        own = {"student": self.student.state_dict(), "average": self.average, "best": self.best}
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in found.tensors.items():
            kind, _, name = key.partition("/")
            if kind in own:
                own[kind][name].copy_(value)
            else:
                index, _, field = name.partition("/")
                states.setdefault(int(index), {})[field] = value
        self._optimizer.load_state_dict({"state": states, "param_groups": self._optimizer.state_dict()["param_groups"]})
        self.first_loss, self.best_loss = found.facts["first_loss"], found.facts["best_loss"]
        self.best_step = found.facts["best_step"]
