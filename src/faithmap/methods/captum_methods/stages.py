"""Stages: a module of its own for every call that a rule speaks of, so that captum's hooks meet each of them once.

captum sets its hooks on modules, by their type. What is called as a function escapes them, a module that runs twice confuses
them, some types it does not know, and what it leaves on a module after a failure is the user's to find. So the user's model is
none of its business here. The model runs with its calls of torch functions watched; those that a rule speaks of go to stages,
in the order of the calls, and stages are all that captum is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.capture import Operation, intercept_calls
from faithmap.methods.captum_methods.calls import Call


class StagePlan(Protocol):
    """Which calls a method sends to stages, and what these are."""

    def takes(self, call: Call) -> bool:
        """Whether a call goes to a stage."""

    def stage(self, call: Call) -> nn.Module:
        """A fresh stage for it, called with the tensors that hang on the image."""

    def saw(self, call: Call, stage: nn.Module | None, output: Any) -> None:
        """Told of every call while stages are made, whether it went to one or not."""


class Blind:
    """A plan that looks at each call alone."""

    def saw(self, call: Call, stage: nn.Module | None, output: Any) -> None:
        """Nothing is kept."""


class Stage(nn.Module):
    """Makes the call that was sent to it."""

    call: Call

    def forward(self, *data: Tensor) -> Tensor:
        """The call's function of these data."""
        made: Tensor = self.call(*data)
        return made


class Staged(nn.Module):
    """A score of images in which captum finds stages, and nothing of the user's.

    Args:
        ask: the model, from images to its output.
        plan: what goes to stages.
        read: from the output to one number per image.
    """

    def __init__(self, ask: Callable[[Tensor], Any], plan: StagePlan, read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.ask, self.plan, self.read = ask, plan, read
        self.stages = nn.ModuleList()
        self.names: list[str] = []

    def record(self, images: Float[Tensor, "m c h w"]) -> Any:
        """Run the model once, to make its stages; returns the model's output."""
        images = images.detach().requires_grad_()
        with intercept_calls(_Sending(self, recording=True)):
            return self.ask(images)

    def forward(self, images: Float[Tensor, "m c h w"]) -> Float[Tensor, " m"]:
        """One number per image; each call that the plan takes runs in its stage."""
        with intercept_calls(_Sending(self, recording=False)):
            output = self.ask(images)
        score = self.read(output)
        return score if score.requires_grad else score + 0 * images.flatten(1).sum(dim=1)


class _Sending:
    """Sends the calls of a pass to stages."""

    def __init__(self, staged: Staged, *, recording: bool) -> None:
        self.staged, self.recording, self.turn = staged, recording, 0

    def __call__(self, operation: Operation) -> Any:
        call = Call.of(operation) if torch.is_grad_enabled() else None
        if call is None:
            return operation.run()
        stage = self._stage(call) if self.staged.plan.takes(call) else None
        if isinstance(stage, Stage):
            stage.call = call
        copies = (tensor.clone() for tensor in call.data)  # no two stages' hooks are on the same tensor
        output = operation.run() if stage is None else stage(*copies)
        if self.recording:
            self.staged.plan.saw(call, stage, output)
        return output

    def _stage(self, call: Call) -> nn.Module:
        staged = self.staged
        if self.recording:
            staged.stages.append(staged.plan.stage(call))
            staged.names.append(call.name)
        elif self.turn >= len(staged.names) or staged.names[self.turn] != call.name:
            raise ValueError(f"the model calls {call.name} in one pass where it does not in another; give another method")
        self.turn += 1
        return staged.stages[self.turn - 1]


def check_watchable(model: nn.Module) -> None:
    """Raise TypeError for a model whose calls cannot be watched."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"module {name!r} is TorchScript, into which hooks do not reach; give the model as it was written")
