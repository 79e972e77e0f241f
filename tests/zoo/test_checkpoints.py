from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from oracles import given
from torch import Tensor, nn

from faithmap.zoo import ModelError, load, state_digest
from faithmap.zoo.loading import recipe_of
from faithmap.zoo.recipe import read_checkpoint

NAME = "torchvision/squeezenet1_1"


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.squeezenet1_1().eval()
    return model


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7)}


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < 400
    return message


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth", "bin"])
def test_every_format_of_a_state_is_read(tmp_path: Path, state: dict[str, Tensor], suffix: str) -> None:
    file = tmp_path / f"w.{suffix}"
    safetensors.torch.save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    name, digest, read = read_checkpoint(file)
    assert (name, digest) == (str(file), hashlib.sha256(file.read_bytes()).hexdigest())
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "args": {"lr": 0.1}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module._orig_mod.{key}": value for key, value in state.items()}},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
    ],
)
def test_wrappers_and_prefixes_of_keys_are_removed(tmp_path: Path, state: dict[str, Tensor], wrap: Callable[..., Any]) -> None:
    torch.save(wrap(state), tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth").state.keys() == state.keys()


def test_a_prefix_that_only_some_keys_have_is_part_of_them(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pth")
    assert list(read_checkpoint(tmp_path / "w.pth").state) == ["module.a", "b"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("write", ["zip", "legacy", "pickle"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, write: str) -> None:
    proof, file = tmp_path / "proof", tmp_path / "w.pth"
    if write == "pickle":
        file.write_bytes(pickle.dumps(Malicious(proof)))
    else:
        torch.save({"a": Malicious(proof)}, file, _use_new_zipfile_serialization=write == "zip")
    message = refusal(file)
    assert not proof.exists()
    assert write == "pickle" or "contains the Python object posix.mkdir" in message or "nt.mkdir" in message
    torch.load(file, weights_only=False) if write != "pickle" else pickle.loads(file.read_bytes())  # noqa: S301
    assert proof.exists()


def test_a_whole_model_is_refused_with_the_remedy(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    message = refusal(tmp_path / "w.pth")
    assert "torch.nn.modules.linear.Linear" in message
    assert message.endswith("save only the weights: torch.save(model.state_dict(), ...)")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_damaged_files_are_refused(tmp_path: Path, state: dict[str, Tensor], suffix: str, keep: int) -> None:
    whole, file = tmp_path / "whole", tmp_path / f"w.{suffix}"
    safetensors.torch.save_file(state, whole) if suffix == "safetensors" else torch.save(state, whole)
    file.write_bytes(whole.read_bytes()[:keep])
    refusal(file)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "missing.pth")
    assert "cannot be read (it is a folder)" in refusal(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert "pipe" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "contains an empty dict instead of a state dict"),
        ([torch.ones(1)], "contains a list instead of a state dict"),
        ({"epoch": 3}, "contains a int under 'epoch'"),
        ({"a": torch.tensor([1.0, float("nan")])}, "a contains NaN or infinite values"),
        ({"model": {"b": torch.tensor(float("inf"))}}, "b contains NaN or infinite values"),
    ],
)
def test_a_file_without_a_state_is_refused(tmp_path: Path, content: dict[str, Any] | list[Tensor], problem: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert problem in refusal(tmp_path / "w.pth")


def test_file_decides_the_weights(tmp_path: Path, trained: Any) -> None:
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(trained.state_dict(), file)
    model = load(NAME, weights=file)
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(image), trained((image - model.mean) / model.std))
    assert model.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert model.label(282) == "tiger cat"


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "timm/resnet18", "lite0"])
def test_file_decides_the_number_of_classes(tmp_path: Path, name: str) -> None:
    torch.save(recipe_of(name).build(5).state_dict(), tmp_path / "w.pth")
    model = load(name, weights=tmp_path / "w.pth", fold_batch_norm=False)
    size = given(model.geometry.crop)
    with torch.no_grad():
        assert model(torch.rand(1, 3, *size)).shape == (1, 5)
    assert model.labels is None
    assert model.label(4) == "class 4"


def test_mismatch_names_the_keys(tmp_path: Path, trained: Any) -> None:
    state = dict(trained.state_dict())
    for index in range(5):
        state[f"extra.{index}"] = torch.zeros(1)
    del state["classifier.1.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ModelError) as caught:
        load(NAME, weights=tmp_path / "w.pth")
    assert str(caught.value) == (
        f"{tmp_path / 'w.pth'}: lacks classifier.1.bias and has extra.0, extra.1, extra.2 and 2 more, which {NAME} does"
        f" not; give weights of {NAME}, or the name of the model that these belong to"
    )


def test_keys_without_a_parameter_are_refused(tmp_path: Path, trained: Any) -> None:
    torch.save({**trained.state_dict(), "extra": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth: has extra, which torchvision/squeezenet1_1 does not; "):
        load(NAME, weights=tmp_path / "w.pth")


def test_mismatch_names_the_shape(tmp_path: Path, trained: Any) -> None:
    state = dict(trained.state_dict())
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"features\.0\.weight has shape \(64, 1, 3, 3\), \(64, 3, 3, 3\) in torchvision"):
        load(NAME, weights=tmp_path / "w.pth")
    state["features.0.weight"] = torch.zeros(32, 3, 3, 3)  # as if it were a classifier of 32 classes
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"has shape"):
        load(NAME, weights=tmp_path / "w.pth")


def test_names_that_do_not_print_are_escaped(tmp_path: Path) -> None:
    file = tmp_path / "a\n\x1b[2J.pth"
    with pytest.raises(ModelError, match=r"a\\n\\x1b\[2J\.pth: cannot be read") as caught:
        read_checkpoint(file)
    assert str(caught.value).isprintable()


def test_state_digest_is_of_the_content() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).requires_grad_(False)
    digest = state_digest(module)
    assert state_digest(module.to(memory_format=torch.channels_last)) == digest
    assert len(digest) == 64
    module.get_parameter("0.weight")[0, 0, 0, 0] += 1e-6
    assert state_digest(module) != digest
    module.register_buffer("spread", torch.ones(1).expand(3))
    spread = state_digest(module)
    module.spread = torch.ones(3)
    assert state_digest(module) == spread
    assert state_digest(module.bfloat16()) != spread


def test_state_digest_known_value() -> None:
    module = nn.Linear(1, 1)
    nn.init.ones_(module.weight)
    nn.init.zeros_(module.bias)
    content = b"bias torch.float32 (1,)\n" + bytes(4) + b"weight torch.float32 (1, 1)\n" + b"\0\0\x80\x3f"
    assert state_digest(module) == hashlib.sha256(content).hexdigest()
