from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from faithmap.data import sample_photo
from faithmap.model import Geometry
from faithmap.probe import class_probabilities
from faithmap.zoo import ModelError, load
from faithmap.zoo.huggingface import preprocessing_of

transformers = pytest.importorskip("transformers")


def vit(**settings: Any) -> Any:
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        **settings,
    )
    return transformers.ViTForImageClassification(config).eval()


def resnet(**settings: Any) -> Any:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **settings)
    return transformers.ResNetForImageClassification(config).eval()


PROCESSORS = {
    "vit": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
    "crop": lambda: transformers.BitImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
    "convnext": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 32}),
    "convnext_large": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "poolformer": lambda: transformers.PoolFormerImageProcessor(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
    ),
    "plain": lambda: transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, resample=3, do_rescale=False, do_normalize=False
    ),
}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """A repository's folder, as save_pretrained writes it."""

    def save(module: Any, processor: str | None = "vit") -> str:
        module.save_pretrained(tmp_path)
        if processor is not None:
            PROCESSORS[processor]().save_pretrained(tmp_path)
        return f"hf/{tmp_path}"

    return save


@pytest.mark.parametrize("kind", PROCESSORS)
def test_geometry_is_the_processors(kind: Any) -> None:
    processor = PROCESSORS[kind]()
    mean, std, geometry = preprocessing_of(processor.to_dict())
    landscape = Image.open(sample_photo("chelsea")).convert("RGB").resize((120, 90))
    for photo in (landscape, landscape.transpose(Image.Transpose.ROTATE_90), landscape.crop((0, 0, 70, 70))):
        expected = processor(images=photo, return_tensors="pt")["pixel_values"]
        got = geometry(torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None] / 255)
        mean_, std_ = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
        assert got.shape == expected.shape
        difference = (got - expected * std_ - mean_).abs()
        assert float(difference.mean()) < 1 / 255
        assert float(difference.max()) < 4 / 255


def test_model_from_a_folder(saved: Any, no_network: None) -> None:
    module = vit(id2label={0: "tench, Tinca tinca", 1: "crane", 2: "crane, bird"})
    model = load(saved(module))
    image = model.read(sample_photo("coffee"))
    assert model.geometry == Geometry((32, 32), None, "bilinear")
    with torch.no_grad():
        torch.testing.assert_close(model(image), module(image * 2 - 1).logits)
    assert model.labels == ("tench", "crane", "crane, bird")
    assert model.find("Tench") == 0
    assert not model.module.training


def test_convolutions_are_folded(saved: Any, lived_in: Callable[[nn.Module], Any]) -> None:
    module = lived_in(resnet(num_labels=3))
    model = load(saved(module, "crop"))
    assert not any(isinstance(child, torch.nn.BatchNorm2d) for child in model.modules())
    image = model.read(sample_photo("coffee"))
    with torch.no_grad():
        expected = module((image - model.mean) / model.std).logits
        torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert model.labels is None


@pytest.mark.parametrize(
    ("problem_type", "outputs"),
    [("multi_label_classification", "sigmoid"), ("single_label_classification", None), (None, None)],
)
def test_the_configuration_says_whether_there_are_several_labels(saved: Any, problem_type: Any, outputs: Any) -> None:
    name = saved(vit(num_labels=3, problem_type=problem_type))
    model = load(name)
    assert model.outputs == outputs
    assert load(name, outputs="probabilities").outputs == "probabilities"
    image = model.read(sample_photo("coffee"))
    with torch.no_grad():
        z = model(image)
    expected = z.sigmoid() if outputs == "sigmoid" else z.softmax(dim=1)
    assert torch.allclose(class_probabilities(model, image), expected)


def test_half_precision_weights_become_single(saved: Any) -> None:
    assert load(saved(vit(num_labels=2).half())).dtype == torch.float32


def test_weights_from_a_file(saved: Any, tmp_path: Path) -> None:
    name = saved(vit(id2label={0: "cat", 1: "dog"}))
    other = vit(num_labels=5)
    torch.save(other.state_dict(), tmp_path / "w.pth")
    model = load(name, weights=tmp_path / "w.pth")
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(image), other(image * 2 - 1).logits)
    assert model.labels is None


def refusal(name: str) -> str:
    with pytest.raises(ModelError) as caught:
        load(name)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_weights_of_another_task_are_refused(saved: Any) -> None:
    headless = transformers.ViTModel(vit().config)
    message = refusal(saved(headless))
    assert "its weights lack classifier.bias, classifier.weight: it was trained for something else" in message


def test_only_safetensors_are_read(saved: Any, tmp_path: Path) -> None:
    module = vit()
    name = saved(module)
    (tmp_path / "model.safetensors").unlink()
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    assert "the weights are not available" in refusal(name)


def test_without_a_processor(saved: Any) -> None:
    assert "its configuration is not available" in refusal(saved(vit(), processor=None))


def test_preprocessing_that_is_something_else(saved: Any, tmp_path: Path) -> None:
    name = saved(vit())
    transformers.LevitImageProcessor().save_pretrained(tmp_path)
    assert "LevitImageProcessor does more than resize, crop the centre and normalise; build it with" in refusal(name)
    transformers.ViTImageProcessor(resample=0).save_pretrained(tmp_path)
    assert "its image processor is not supported" in refusal(name)


def test_missing_folder_network_and_library(tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert "there is no such folder; give one" in refusal(f"hf/{tmp_path}/nowhere")
    assert "hf/google/nothing: its configuration is not available" in refusal("hf/google/nothing")
    monkeypatch.setitem(sys.modules, "transformers", None)
    expected = f"hf/{tmp_path}: needs transformers; pip install 'faithmap[zoo]'"
    assert refusal(f"hf/{tmp_path}") == expected
