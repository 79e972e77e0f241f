"""Classifier: any module, made to take [0, 1] pixels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles import SmallNet
from torch import nn

from faithmap import Classifier, Geometry
from faithmap.model import describe, undisturbed

LABELS = ["tench", "tiger cat", "crane", "crane", "12"]


def test_normalisation_is_inside(small_net: SmallNet) -> None:
    images = torch.rand(2, 3, 8, 8)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    small_net.eval()
    expected = small_net((images - mean) / std)
    assert torch.allclose(Classifier(small_net, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])(images), expected, atol=1e-5)


@pytest.mark.parametrize("wrap", [lambda y: y, lambda y: (y, 0), lambda y: {"logits": y}], ids=["tensor", "tuple", "dict"])
def test_outputs_of_every_kind(wrap: Callable[[torch.Tensor], object]) -> None:
    class Wrapped(nn.Module):
        def forward(self, x: torch.Tensor) -> object:
            return wrap(x.mean(dim=(2, 3)))

    images = torch.rand(2, 3, 4, 4)
    assert torch.allclose(Classifier(Wrapped())(images), images.mean(dim=(2, 3)))


def test_half_precision_modules_take_and_give_single(small_net: SmallNet) -> None:
    model = Classifier(small_net.bfloat16().eval())
    assert model.dtype == torch.bfloat16
    assert model(torch.rand(1, 3, 8, 8)).dtype == torch.float32


def test_moving_the_classifier_moves_its_normalisation(small_net: SmallNet) -> None:
    model = Classifier(small_net).to("meta")
    assert model.device.type == "meta"
    assert model.mean.device.type == "meta"
    assert "mean" not in model.state_dict()


def test_preprocessing_is_the_geometry(small_net: SmallNet) -> None:
    model = Classifier(small_net, geometry=Geometry(crop=(4, 4)))
    photo = torch.rand(1, 3, 10, 10)
    assert torch.equal(model.preprocess(photo), photo[:, :, 3:7, 3:7])


@pytest.mark.parametrize(
    ("name", "index"), [("Tiger cat", 1), ("tiger_cat", 1), (" tiger-cat", 1), ("0", 0), ("tench", 0), ("3", 3)]
)
def test_classes_are_found_by_name_or_number(small_net: SmallNet, name: str, index: int) -> None:
    assert Classifier(small_net, labels=LABELS).find(name) == index


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tigre cat", "did you mean 'tiger cat'"),
        ("crane", "names 2 classes: 2, 3; give one of these numbers"),
        ("zebra", "'zebra' is no class of lynx; give a class name or its number"),
        ("99", "'99' is no class"),
    ],
)
def test_unknown_classes_are_refused(small_net: SmallNet, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Classifier(small_net, labels=LABELS, name="lynx").find(name)


def test_labels(small_net: SmallNet) -> None:
    assert Classifier(small_net, labels=LABELS).label(1) == "tiger cat"
    assert Classifier(small_net).label(3) == "class 3"


def test_mean_and_std_must_match(small_net: SmallNet) -> None:
    with pytest.raises(ValueError, match="one positive std for each mean"):
        Classifier(small_net, mean=[0.5], std=[0.0])


def test_undisturbed_restores_mixed_flags(small_net: SmallNet) -> None:
    small_net.train()
    small_net.drop.eval()
    small_net.conv1.weight.requires_grad_(False)
    modes = [m.training for m in small_net.modules()]
    flags = [p.requires_grad for p in small_net.parameters()]

    def disturb() -> None:
        with undisturbed(small_net):
            assert not any(m.training for m in small_net.modules())
            assert not any(p.requires_grad for p in small_net.parameters())
            raise KeyError

    with pytest.raises(KeyError):
        disturb()
    assert modes == [m.training for m in small_net.modules()]
    assert flags == [p.requires_grad for p in small_net.parameters()]


def test_descriptions(small_net: SmallNet) -> None:
    assert describe(Classifier(small_net, name="n", digest="d", labels=LABELS)) == {"name": "n", "digest": "d", "classes": 5}
    assert describe(small_net)["name"] == "SmallNet"
