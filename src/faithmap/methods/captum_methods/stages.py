"""Stages: modules that make the model's calls of torch functions, one per call, so that captum can set its hooks on them.

captum sets hooks on modules, by their type. A function call has no hook, a module that runs twice has wrong gradients, some
types have no rule, and attributes of a failed run stay on the user's modules. The model's calls of torch functions are
therefore intercepted. Calls with a rule are made by stages, in the order of the calls, and captum is given only the stages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from faithmap.capture import Operation, intercept_calls
from faithmap.methods.captum_methods.calls import Call
from faithmap.score import no_gradient


class StagePlan(Protocol):
    """Selects the calls that are made by stages, and creates the stages."""

    def takes(self, call: Call) -> bool:
        """Whether a call is made by a stage."""

    def stage(self, call: Call) -> nn.Module:
        """A new stage for a call; it is called with the tensors that depend on the image."""

    def saw(self, call: Call, stage: nn.Module | None, output: Any) -> None:
        """Called after every call while stages are created; ``stage`` is None if no stage made the call."""


class StatelessPlan:
    """A plan that does not depend on earlier calls."""

    def saw(self, call: Call, stage: nn.Module | None, output: Any) -> None:
        """Do nothing."""


class Stage(nn.Module):
    """Makes one call."""

    call: Call

    def forward(self, *data: Tensor) -> Tensor:
        """The result of the call's function for these tensors."""
        result: Tensor = self.call(*data)
        return result


class Staged(nn.Module):
    """A module that computes the score of images; its only submodules are the stages.

    Args:
        run: the model, from images to its output.
        plan: selects the calls that are made by stages.
        read: from the output to one number per image.
    """

    def __init__(self, run: Callable[[Tensor], Any], plan: StagePlan, read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.run, self.plan, self.read = run, plan, read
        self.stages = nn.ModuleList()
        self.names: list[str] = []

    def record(self, images: Float[Tensor, "m c h w"]) -> Any:
        """Run the model once to create its stages; returns the model's output.

        Raises:
            ValueError: if the output has no gradient to the images.
        """
        images = images.detach().requires_grad_()
        with intercept_calls(_StageCalls(self, recording=True)):
            output = self.run(images)
        if not any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(output)):
            raise no_gradient()
        return output

    def forward(self, images: Float[Tensor, "m c h w"]) -> Float[Tensor, " m"]:
        """One number per image; each selected call is made by its stage."""
        with intercept_calls(_StageCalls(self, recording=False)):
            output = self.run(images)
        score = self.read(output)
        return score if score.requires_grad else score + 0 * images.flatten(1).sum(dim=1)


class _StageCalls:
    """Makes the selected calls of a pass by stages."""

    def __init__(self, staged: Staged, *, recording: bool) -> None:
        self.staged, self.recording, self.turn = staged, recording, 0

    def __call__(self, operation: Operation) -> Any:
        call = Call.of(operation) if torch.is_grad_enabled() else None
        if call is None:
            return operation.run()
        stage = self._stage(call) if self.staged.plan.takes(call) else None
        if isinstance(stage, Stage):
            stage.call = call
        copies = (tensor.clone() for tensor in call.data)  # a tensor has the hooks of one stage only
        output = operation.run() if stage is None else stage(*copies)
        if isinstance(stage, Stage):
            # the graph of these tensors has hooks that have the stage: a cycle that Python cannot free
            stage.call = call.without_data()
        if self.recording:
            self.staged.plan.saw(call, stage, output)
        return output

    def _stage(self, call: Call) -> nn.Module:
        staged = self.staged
        if self.recording:
            staged.stages.append(staged.plan.stage(call))
            staged.names.append(call.name)
        elif self.turn >= len(staged.names) or staged.names[self.turn] != call.name:
            raise ValueError(f"the model calls {call.name} in one pass but not in another; give another method")
        self.turn += 1
        return staged.stages[self.turn - 1]
