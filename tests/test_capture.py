"""A layer's activation and gradient, held against the whole graph's, and every way in which hooks have gone wrong elsewhere."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from oracles import SmallNet, Untouched, given
from torch import Tensor, nn

from faithmap.capture import Capture
from faithmap.methods.cams import GradCAM
from faithmap.model import undisturbed


class Residual(nn.Module):
    """The layer returns its own input, changed in place; the block then adds to that very tensor in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        after = self.act(y)
        y += 1
        logits: Tensor = (after * torch.arange(1.0, 3.0).view(1, 2, 1, 1)).sum(dim=(2, 3))
        return logits


def watched(model: nn.Module, images: Tensor, *names: str) -> tuple[Capture, Tensor]:
    capture = Capture({name: model.get_submodule(name) for name in names})
    with undisturbed(model), capture.watch():
        score = model(images)[:, 0].sum()
    return capture, score


def test_gradients_are_those_of_the_whole_graph(small_net: SmallNet, images: Tensor, untouched: Untouched) -> None:
    untouched(small_net)
    capture, score = watched(small_net, images, "conv1", "norm", "conv2")
    found = capture.gradients(score)
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def hook(module: nn.Module, args: object, output: Tensor) -> Tensor:
            output.retain_grad()
            kept[name] = output
            return output.clone()

        return hook

    handles = [small_net.get_submodule(name).register_forward_hook(keep(name)) for name in found]
    with undisturbed(small_net):
        small_net(images.clone().requires_grad_())[:, 0].sum().backward()
    for handle in handles:
        handle.remove()
    for name, output in kept.items():
        assert torch.equal(capture.activations[name], output), name
        assert torch.allclose(found[name], given(output.grad), atol=1e-6), name


def test_layers_before_the_target_layer_have_no_graph(small_net: SmallNet, images: Tensor) -> None:
    operations = []
    handle = small_net.conv1.register_forward_hook(lambda module, args, output: operations.append(output.requires_grad))
    watched(small_net, images, "conv2")
    handle.remove()
    assert operations == [False]


def test_in_place_operations_reach_nothing_that_is_kept() -> None:
    model, image = Residual(), torch.rand(1, 1, 4, 4)
    capture, score = watched(model, image, "act")
    (gradient,) = capture.gradients(score).values()
    assert torch.equal(capture.activations["act"], model.conv(image).relu())
    assert torch.equal(gradient, torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand_as(gradient))


def test_a_layer_that_the_score_does_not_depend_on_has_zero_gradient(small_net: SmallNet, images: Tensor) -> None:
    capture = Capture({"conv1": small_net.conv1, "conv2": small_net.conv2})
    with undisturbed(small_net), capture.watch():
        small_net(images)
        score = capture.activations["conv1"].sum() * 2
    gradients = capture.gradients(score)
    assert (gradients["conv1"] == 2).all()
    assert not gradients["conv2"].any()
    with pytest.raises(ValueError, match="the score has no gradient to the model"):
        capture.gradients(torch.ones((), requires_grad=True) * 2)


def test_a_shared_module_has_no_single_activation(small_net: SmallNet, images: Tensor, untouched: Untouched) -> None:
    untouched(small_net)
    with pytest.raises(ValueError, match="'relu' runs several times in one forward pass"):
        watched(small_net, images, "relu")


def test_a_layer_that_does_not_run(small_net: SmallNet, images: Tensor) -> None:
    small_net.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="'unused' does not run"):
        watched(small_net, images, "unused")


class Recurrent(nn.Module):
    """Its first layer returns a tuple, its second one of another kind."""

    Pair = namedtuple("Pair", "picture memory")

    class First(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return 2 * x, x

    class Second(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return Recurrent.Pair(3 * x, x)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = self.First(), self.Second()

    def forward(self, x: Tensor) -> Tensor:
        picture, _ = self.first(x)
        logits: Tensor = self.second(picture).picture.sum(dim=(1, 2, 3)).unsqueeze(1)
        return logits


def test_the_first_tensor_of_a_tuple_is_captured() -> None:
    image = torch.rand(1, 1, 2, 2)
    capture, score = watched(Recurrent(), image, "first", "second")
    gradients = capture.gradients(score)
    assert torch.equal(capture.activations["second"], 6 * image)
    assert gradients["first"].unique().tolist() == [3]
    assert gradients["second"].unique().tolist() == [1]


def test_a_layer_without_a_tensor(images: Tensor) -> None:
    class Wordy(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"features": x}

    model = nn.Sequential(Wordy())
    with pytest.raises(ValueError, match="'0' returns dict; give a layer that returns a tensor"):
        watched(model, images, "0")


def test_hooks_are_removed_when_the_model_fails(small_net: SmallNet, untouched: Untouched) -> None:
    untouched(small_net)
    with pytest.raises(RuntimeError, match="expected"):
        watched(small_net, torch.rand(1, 7, 8, 8), "conv2")


def test_a_compiled_model_is_watched_too(small_net: SmallNet, images: Tensor) -> None:
    capture, score = watched(small_net, images, "conv2")
    plain = capture.gradients(score)["conv2"]
    compiled = torch.compile(small_net, backend="eager")
    with undisturbed(small_net):
        compiled(images)
    inner = Capture({"conv2": small_net.conv2})
    with undisturbed(small_net), inner.watch():
        score = compiled(images)[:, 0].sum()
    assert torch.equal(inner.gradients(score)["conv2"], plain)


def test_the_output_of_the_layer_can_be_replaced(small_net: SmallNet, images: Tensor) -> None:
    capture = Capture({"conv2": small_net.conv2})
    with undisturbed(small_net), capture.watch(torch.zeros_like):
        logits = small_net(images)
    assert torch.allclose(logits, 20 * small_net.head.bias.expand_as(logits))
    assert capture.activations["conv2"].any()


class OwnMode(nn.Module):
    """Sets the mode of gradients by itself: nowhere, before the layer, around it, or around it and part of what follows."""

    def __init__(self, where: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.layer, self.top = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3)
        self.where = where

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad() if self.where == "before" else nullcontext():
            x = self.stem(x).relu()
        with torch.enable_grad() if self.where in ("around", "partly") else nullcontext():
            inner = self.layer(x)
            one = self.top(inner.tanh()).square().sum(dim=(2, 3))
            other = None if self.where == "around" else self.top(inner.sigmoid()).sum(dim=(2, 3))
        outer = self.top(inner.sigmoid()).sum(dim=(2, 3)) if other is None or self.where == "partly" else other
        logits: Tensor = one + outer
        return logits


@pytest.mark.parametrize(("where", "passes"), [("nowhere", 1), ("before", 1), ("around", 2), ("partly", 2)])
def test_models_that_set_the_mode_of_gradients_by_themselves(
    where: str, passes: int, images: Tensor, untouched: Untouched
) -> None:
    model, plain = OwnMode(where).eval(), OwnMode("nowhere").eval()
    untouched(model)
    with torch.no_grad():
        found = GradCAM(model, target_layer="layer", relu=False)(images, lambda logits: logits[:, 0])
        assert not torch.is_grad_enabled()
    layer, score = watched(plain, images, "layer")
    slope = layer.gradients(score)["layer"].mean(dim=(2, 3), keepdim=True)
    assert torch.allclose(found.heatmap, (slope * layer.activations["layer"]).sum(dim=1), atol=1e-6)
    assert {d["forward_passes"] for d in found.diagnostics} == {passes}
    assert torch.is_grad_enabled()


def test_gradients_are_recorded_only_behind_the_target_layer(small_net: SmallNet, images: Tensor) -> None:
    modes = []
    handles = [m.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled())) for m in small_net.children()]
    GradCAM(small_net, target_layer="conv2")(images, 0)
    for handle in handles:
        handle.remove()
    before_and_at, behind = modes[-7:-3], modes[-3:]  # conv1, norm, relu, conv2; relu, drop, head
    assert not any(before_and_at)
    assert all(behind)
