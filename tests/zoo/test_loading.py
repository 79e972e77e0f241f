from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from oracles import given
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from faithmap.data import read_image, sample_photo
from faithmap.zoo import ModelError, available, load, names
from faithmap.zoo.loading import recipe_of

TIMM = ["resnet18.a1_in1k", "vit_tiny_patch16_224", "convnext_tiny.in12k_ft_in1k_384", "tf_efficientnetv2_b3.in21k_ft_in1k"]
TORCHVISION = ["vgg19", "mobilenet_v3_small", "efficientnet_b0", "swin_v2_t", "inception_v3", "vit_h_14"]


def photos() -> list[Image.Image]:
    landscape = Image.open(sample_photo("chelsea")).convert("RGB")
    portrait = landscape.transpose(Image.Transpose.ROTATE_90).crop((0, 0, 250, 451))
    return [landscape, portrait, landscape.crop((50, 0, 350, 300)), landscape.resize((90, 70))]


def compare(preprocessed: Any, transform: Any) -> None:
    """What the model is shown, against the library's own transform of the PIL image."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessed.mean, preprocessed.std))
    for photo in photos():
        expected = transform(photo) * std + mean
        got = preprocessed.geometry(pil_to_tensor(photo)[None] / 255)[0]
        assert got.shape == expected.shape
        difference = (got - expected).abs()
        assert float(difference.max()) < 3 / 255
        assert float(difference.mean()) < 0.5 / 255


@pytest.mark.parametrize("name", TIMM)
def test_the_geometry_of_timm_models_is_that_of_timm(name: str) -> None:
    config = resolve_data_config(pretrained_cfg=given(timm.get_pretrained_cfg(name)).to_dict())
    compare(recipe_of(f"timm/{name}").preprocessing, create_transform(**config, is_training=False))


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_geometry_of_torchvision_models_is_that_of_torchvision(name: str) -> None:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    compare(recipe_of(f"torchvision/{name}").preprocessing, weights.transforms())


def test_preprocess_is_the_recipes_geometry(tmp_path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "w.pth")
    model = load("torchvision/squeezenet1_1", weights=tmp_path / "w.pth")
    photo = read_image(sample_photo("coffee"))
    transform = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    expected = transform(Image.open(sample_photo("coffee")).convert("RGB"))
    preprocessed = (model.preprocess(photo) - model.mean) / model.std
    assert float((preprocessed[0] - expected).abs().mean()) < 0.01


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_torchvision_weights_come_from_the_cache(
    torch_home: Path, no_network: None, lived_in: Callable[[nn.Module], Any]
) -> None:
    module = lived_in(torchvision.models.mobilenet_v3_small())
    torch.save(module.state_dict(), torch_home / "mobilenet_v3_small-047dcff4.pth")
    model = load("torchvision/mobilenet_v3_small")
    image = model.read(sample_photo("coffee"))
    with torch.no_grad():
        expected = module((image - model.mean) / model.std)
        torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert model.label(967) == "espresso"


def test_torchvision_download(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = []

    def download(url: Any, file: Any, hash_prefix: Any, progress: Any) -> None:
        requests.append((url, hash_prefix))
        torch.save(torchvision.models.squeezenet1_1().state_dict(), file)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    load("torchvision/squeezenet1_1")
    load("torchvision/squeezenet1_1")
    assert requests == [("https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth", "b8a52dc0")]


def test_torchvision_builds_as_for_published_weights() -> None:
    inception = recipe_of("torchvision/inception_v3").build(10)
    assert inception.transform_input
    assert recipe_of("torchvision/googlenet").build(10).transform_input
    with torch.device("meta"):
        assert recipe_of("torchvision/vit_h_14").build(10).image_size == 518


def test_torchvision_densenet_keys() -> None:
    old = [f"features.denseblock1.denselayer2.{layer}.weight" for layer in ("norm.1", "conv.2")]
    renamed = recipe_of("torchvision/densenet121").rename(dict.fromkeys([*old, "features.norm5.weight"], torch.ones(1)))
    modern = ["features.denseblock1.denselayer2.norm1.weight", "features.denseblock1.denselayer2.conv2.weight"]
    assert list(renamed) == [*modern, "features.norm5.weight"]
    state = torchvision.models.densenet121().state_dict()
    assert list(recipe_of("torchvision/densenet121").rename(state)) == list(state)
    assert set(modern) < set(state)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Path], None]:
    """The hub's cache with a file in it, laid out as huggingface_hub documents."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def put(repo: str, filename: str, file: Path) -> None:
        folder = tmp_path / "cache" / f"models--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "snapshots" / "abc").mkdir(parents=True)
        (folder / "refs" / "main").write_text("abc")
        shutil.copy(file, folder / "snapshots" / "abc" / filename)

    return put


def test_timm_weights_come_from_the_cache(
    tmp_path: Path,
    hub_cache: Any,
    no_network: None,
    lived_in: Callable[[nn.Module], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = huggingface_hub.hf_hub_download

    def without_asking(*args: Any, local_files_only: bool, **options: Any) -> str:
        assert local_files_only, "the hub's client would send six requests"
        path: str = find(*args, local_files_only=True, **options)
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", without_asking)
    module = lived_in(timm.create_model("resnet18"))
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(module.state_dict(), file)
    hub_cache("timm/resnet18.a1_in1k", "model.safetensors", file)
    model = load("timm/resnet18")
    image = model.read(sample_photo("coffee"))
    with torch.no_grad():
        expected = module((image - model.mean) / model.std)
        torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert model.digest == load("timm/resnet18", weights=file).digest
    assert model.label(967) == "espresso"


def test_timm_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), file)
    requests = []

    def download(repo: str, filename: str, **options: Any) -> str:
        requests.append((repo, filename, options))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "model_info", lambda repo, timeout: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    model = load("timm/vit_tiny_patch16_224")
    repo = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert requests == [(repo, "model.safetensors", {"revision": None, "local_files_only": False})]
    assert model.digest == load("timm/vit_tiny_patch16_224", weights=file).digest


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"label_names": ["n1", "n2"], "label_descriptions": {"n1": "cat, Felis"}}, ("cat", "n2")),
        ({"label_names": None, "num_classes": 512}, None),
    ],
)
def test_timm_labels(config: dict[str, Any], labels: tuple[str, str] | None) -> None:
    from faithmap.zoo.timm_models import labels_of

    assert labels_of(config) == labels


def test_labels_of_larger_imagenets() -> None:
    labels = recipe_of("timm/convnext_tiny.fb_in22k").labels
    assert labels is not None
    assert len(labels) == 21841
    assert labels[359] == "tench"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "timm/resnet18",
            "timm/resnet18: the weights are not in the cache, and the Hugging Face hub does not respond; connect",
        ),
        ("torchvision/resnet18", "torchvision/resnet18: the weights cannot be downloaded (<urlopen error there is no network"),
        (
            "timm/resnt18",
            "timm/resnt18: is no model of timm; did you mean timm/resnet18",
        ),
        ("timm/resnet18.nope", "timm/resnet18.nope: is no model of timm; did you mean timm/resnet18"),
        (
            "timm/qqqqqqq",
            "timm/qqqqqqq: is no model of timm; timm.list_models() lists them",
        ),
        ("timm/efficientnet_b6", "timm/efficientnet_b6: was published without weights; "),
        ("timm/vit_small_patch14_dinov2", "timm/vit_small_patch14_dinov2: was published without a classifier; "),
        ("timm/vit_base_patch16_sapiens2", "timm/vit_base_patch16_sapiens2: "),
        ("torchvision/resnet19", "torchvision/resnet19: is no classifier of torchvision; did you mean torchvision/resnet18 or"),
        ("torchvision/qqqqqqq", "torchvision/qqqqqqq: is no classifier of torchvision; torchvision.models.list_models"),
        ("vgg19", "'vgg19': is no model; did you mean torchvision/vgg19 or timm/vgg19?"),
        ("efficientnet_lite_0", "'efficientnet_lite_0': is no model; did you mean efficientnet_lite0 or"),
        ("qqqqqqq", "'qqqqqqq': is no model; give efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, timm/NAME,"),
        ("", "'': is no model; give efficientnet_lite0"),
        ("timm/", "'timm/': is no model; "),
        ("a\nb", "'a\\nb': is no model; "),
    ],
)
def test_refusals_are_one_line(name: str, message: str, no_network: None, torch_home: Path, hub_cache: Any) -> None:
    with pytest.raises(ModelError) as caught:
        load(name)
    assert str(caught.value).startswith(message)
    assert str(caught.value).isprintable()


def test_a_missing_repository_and_a_missing_network_have_different_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    from faithmap.zoo import hub

    def missing(repo: Any, timeout: Any) -> None:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "model_info", missing)
    with pytest.raises(ModelError, match=r"^timm/x: the Hugging Face hub has no repository a/b for you; check the name"):
        hub.reachable("timm/x", "a/b")


def test_a_repository_without_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    from faithmap.zoo import hub

    def missing(*args: Any, **kwargs: Any) -> None:
        raise EntryNotFoundError.__new__(EntryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "model_info", lambda repo, timeout: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", missing)
    with pytest.raises(ModelError, match=r"^x: a/b has no model\.safetensors or pytorch_model\.bin; give weights=FILE$"):
        hub.hub_file("x", "a/b@main", None)


def test_a_missing_device_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^device 'nonsense': is not available on this computer"):
        load(device="nonsense")


def test_names_and_available() -> None:
    assert names() == ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
    everything = available()
    assert everything[:3] == names()
    assert {"torchvision/vgg19", "timm/resnet18.a1_in1k"} < set(everything)
    assert "timm/vit_small_patch14_dinov2.lvd142m" not in everything
    assert available("efficientnet") == names()
    assert available("t") == everything[3:]
    assert available("torchvision/resnet1") == ["torchvision/resnet101", "torchvision/resnet152", "torchvision/resnet18"]
    assert available("timm/resnet18.a") == ["timm/resnet18.a1_in1k", "timm/resnet18.a2_in1k", "timm/resnet18.a3_in1k"]
    assert available("nothing") == []
