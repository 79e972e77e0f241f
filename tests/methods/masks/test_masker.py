"""The learned mask: its objective, a patch that it has to find, resumed training, and files from other programs."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from oracles import Patch, SmallNet
from torch import Tensor, nn

from faithmap import Classifier
from faithmap.baselines import compose, upsample
from faithmap.methods.masks import LearnedMask, Masker
from faithmap.methods.masks.base import total_variation
from faithmap.methods.masks.masker_files import MaskerError, read_masker, read_training, save_masker
from faithmap.methods.masks.masker_training import MaskerSettings, Training, random_baselines, train_masker

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"), pytest.mark.usefixtures("one_thread")]

SMALL = MaskerSettings(channels=4, batch=2)


def patches() -> Tensor:
    """Noise, with a patch that is bright in every other image."""
    photos = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    bright = torch.tensor([0.6, 0.0]).repeat(12).view(-1, 1, 1, 1)
    photos[:, :, 8:16, 16:24] = photos[:, :, 8:16, 16:24] * 0.4 + bright
    return photos


@pytest.fixture(scope="module")
def trained() -> Training:
    torch.set_num_threads(1)
    settings = MaskerSettings(channels=8, learning_rate=3e-3)
    return train_masker(Patch(slice(8, 16), slice(16, 24)), patches(), steps=300, settings=settings)


def test_after_a_few_hundred_steps_the_mask_lies_on_the_patch(trained: Training) -> None:
    model, photos = Patch(slice(8, 16), slice(16, 24)), patches()
    explanation = LearnedMask(model, masker=trained.masker)(photos)
    masks = explanation.heatmap
    assert explanation.target is not None
    assert masks.shape == (24, 16, 16)
    assert float(masks[:, 4:8, 8:12].mean()) > 0.8
    assert float(masks[:, 3:9, 7:13].sum() / masks.sum()) > 0.7, "or next to it: the edges are soft"
    assert float(masks.mean()) < 0.2
    absent = LearnedMask(model, masker=trained.masker)(photos, 1 - explanation.target).heatmap
    assert float(absent[:, 4:8, 8:12].mean()) < 0.5 * float(masks[:, 4:8, 8:12].mean()), "of a class that is not there"
    assert sum(trained.losses[-50:]) < 0.95 * sum(trained.losses[:50])
    assert explanation.diagnostics[0]["area"] == pytest.approx(float(masks[0].mean()))
    assert (explanation.diagnostics[0]["forward_passes"], explanation.diagnostics[0]["backward_passes"]) == (1, 0)


def test_the_loss_is_its_equation() -> None:
    masks = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(0))
    kept, removed = torch.tensor([0.9, 0.5]), torch.tensor([0.01, 0.3])
    settings = MaskerSettings(variation=2.0, area=3.0, removed=5.0, exponent=0.3, presence=0.7)
    odds, present = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([True, True, False])
    log_loss = -(odds[:2].sigmoid().log().sum() + (1 - odds[2].sigmoid()).log())
    expected = (
        0.7 * log_loss
        + (2 * total_variation(masks) + 3 * masks.mean(dim=(1, 2))).sum()
        - kept.log().sum()
        + 5 * removed.pow(0.3).sum()
    )
    assert torch.allclose(settings.loss(masks, odds, present, kept.log(), removed.log()), expected / 3)


def test_one_step_is_adam_on_the_objective_written_out(small_net: SmallNet, images: Tensor) -> None:
    """With no absent classes; the draws are those of the seed."""
    from faithmap.seeds import derived

    settings = MaskerSettings(channels=4, batch=3, absent=0.0)
    net = small_net.eval()
    start = train_masker(net, images, steps=1, settings=settings)
    initial = {k: v.clone() for k, v in start.masker.state_dict().items()}
    after = train_masker(net, images, steps=2, resume=start)
    again = Masker(5, 4)
    again.load_state_dict(initial)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(derived(0, "round 1")))
    batch = images[order]
    generator = torch.Generator().manual_seed(derived(0, "step 1"))
    torch.rand(3, generator=generator)
    torch.randint(1, 5, (3,), generator=generator)
    removed = random_baselines(batch, generator)
    classes = net(batch).argmax(dim=1)
    up = upsample(again(batch, classes).unsqueeze(1), (32, 32))
    logs = [net(compose(batch, removed, m)).log_softmax(1).gather(1, classes[:, None])[:, 0] for m in (up, 1 - up)]
    loss = settings.loss(*again.masks_and_odds(batch, classes), torch.ones(3, dtype=torch.bool), *logs)
    assert loss.item() == pytest.approx(after.losses[-1], rel=1e-5)
    assert any(not torch.equal(value, initial[name]) for name, value in after.masker.state_dict().items())


def test_baselines_are_drawn_for_each_image(images: Tensor) -> None:
    many = images[:1].expand(200, -1, -1, -1)
    made = random_baselines(many, torch.Generator().manual_seed(0))
    blurred = (made.mean(dim=(1, 2, 3)) - images[0].mean()).abs() < 0.02
    assert 60 < int(blurred.sum()) < 140
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1
    assert len(made.flatten(1).unique(dim=0)) == 200


def test_a_resumed_training_is_bit_for_bit_one_that_was_not_interrupted(
    small_net: SmallNet, images: Tensor, tmp_path: Path
) -> None:
    """Through the file: weights, moments, and what is drawn."""
    whole = train_masker(small_net, images, steps=7, settings=SMALL)
    part = train_masker(small_net, images, steps=3, settings=SMALL)
    save_masker(part, tmp_path / "part")
    rest = train_masker(small_net, images, steps=7, resume=read_training(tmp_path / "part"))
    save_masker(whole, tmp_path / "whole")
    save_masker(rest, tmp_path / "rest")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "rest").read_bytes()
    assert rest.losses == whole.losses[3:]
    other = train_masker(small_net, images, steps=7, settings=MaskerSettings(channels=4, batch=2, seed=1))
    save_masker(other, tmp_path / "other")
    assert (tmp_path / "whole").read_bytes() != (tmp_path / "other").read_bytes()


def test_the_training_is_saved_every_few_steps(small_net: SmallNet, images: Tensor, tmp_path: Path) -> None:
    """A training saved in between can be resumed as well as one saved at the end."""
    calls: list[int] = []

    def save(training: Training) -> None:
        calls.append(training.done)
        save_masker(training, tmp_path / f"{training.done}")

    steps: list[tuple[int, int]] = []
    train_masker(
        small_net, images, steps=5, settings=SMALL, every=2, save=save, progress=lambda done, total: steps.append((done, total))
    )
    assert calls == [2, 4, 5]
    assert steps == [(i, 5) for i in range(1, 6)]
    train_masker(small_net, images, steps=5, resume=read_training(tmp_path / "2"), save=save)
    train_masker(small_net, images, steps=5, resume=read_training(tmp_path / "4"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4", "5"]


def test_the_classifier_is_left_unchanged(
    small_net: SmallNet, images: Tensor, untouched: Callable[[nn.Module], nn.Module]
) -> None:
    untouched(small_net.train())
    images.requires_grad_()
    training = train_masker(small_net, images, steps=2, settings=SMALL)
    assert images.grad is None
    assert all(p.grad is None for p in training.masker.parameters())
    untouched(training.masker)
    assert not LearnedMask(small_net, masker=training.masker)(images).heatmap.requires_grad

    class Broken:
        def __getitem__(self, index: int) -> Tensor:
            return images[index // (index == 0)]

        def __len__(self) -> int:
            return 3

    with pytest.raises(ZeroDivisionError):
        train_masker(small_net, Broken(), steps=2, settings=SMALL)


def test_a_mask_depends_neither_on_the_chunks_nor_on_the_other_images(trained: Training) -> None:
    model, photos = Patch(slice(8, 16), slice(16, 24)), patches()[:4]
    whole = LearnedMask(model, masker=trained.masker)(photos).heatmap
    assert torch.allclose(LearnedMask(model, masker=trained.masker, chunk_size=3)(photos).heatmap, whole, atol=1e-6)
    assert torch.allclose(LearnedMask(model, masker=trained.masker)(photos[3:]).heatmap, whole[3:], atol=1e-6)
    assert torch.allclose(LearnedMask(model, masker=trained.masker)(photos.flip(0)).heatmap, whole.flip(0), atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (1, 5)])
def test_masks_have_half_the_resolution_of_any_image(size: tuple[int, int]) -> None:
    masks = Masker(3, 4)(torch.rand(2, 3, *size), torch.tensor([0, 2])).detach()
    assert masks.shape == (2, (size[0] + 1) // 2, (size[1] + 1) // 2)
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1


def test_the_filter_of_a_class_reaches_the_mask() -> None:
    """The features at the coarsest level are multiplied by their similarity to the class, written out."""
    masker = Masker(2, 4).double().eval()
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    _, odds = masker.masks_and_odds(image, torch.tensor([1]))
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, 32).double()] * 2, indexing="ij")
    features = [torch.cat([image * 2 - 1, torch.stack([rows, columns])[None]], dim=1)]
    for block in masker.down:
        features.append(block(features[-1]))
    similar = (features[-1] * masker.embedding.weight[1].view(1, -1, 1, 1)).sum(dim=1, keepdim=True) / 32**0.5
    assert torch.allclose(odds, similar.exp().sum().log())
    passed = similar.sigmoid()
    x = features[-1] * passed
    for block, skip in zip(masker.up, features[-2:0:-1], strict=True):
        coarse = nn.functional.interpolate(torch.cat([x, 2 * passed - 1], dim=1), skip.shape[-2:], mode="nearest")
        x, passed = block(torch.cat([coarse, skip], dim=1)), nn.functional.interpolate(passed, skip.shape[-2:], mode="nearest")
    assert torch.allclose(masker(image, torch.tensor([1])), masker.head(x)[:, 0].sigmoid())


def test_a_masker_is_for_one_classifier(small_net: SmallNet, images: Tensor, tmp_path: Path) -> None:
    model = Classifier(small_net, name="one", digest="a" * 64)
    training = train_masker(model, images, steps=1, settings=SMALL)
    save_masker(training, tmp_path / "m")
    masker = read_masker(tmp_path / "m", model)
    assert LearnedMask(model, masker=masker)(images).settings["masker"]["steps"] == 1
    for other in (Classifier(small_net, name="two", digest="a" * 64), Classifier(small_net, name="one", digest="b" * 64)):
        with pytest.raises(ValueError, match="was trained for one with weights aaaaaaaaaaaa, not for"):
            LearnedMask(other, masker=masker)(images)
        with pytest.raises(ValueError, match="was trained for one"):
            train_masker(other, images, steps=2, resume=training)
        with pytest.raises(MaskerError, match=r"m: the masker was trained for one") as caught:
            read_masker(tmp_path / "m", other)
        assert str(caught.value).isprintable()


def test_maskers_images_and_settings_that_do_not_fit_are_refused(
    small_net: SmallNet, images: Tensor, trained: Training
) -> None:
    with pytest.raises(ValueError, match="masker is None; train one"):
        LearnedMask(small_net)(images)
    other_classes = Masker(7, 4)
    with pytest.raises(ValueError, match="the masker has 7 classes and 3 colours, the model has 5"):
        LearnedMask(small_net, masker=other_classes)(images)
    with pytest.raises(ValueError, match="target is a callable"):
        LearnedMask(small_net, masker=Masker(5, 4))(images, lambda output: output[:, 0])
    with pytest.raises(ValueError, match="give photos of one size"):
        train_masker(small_net, [images[0], images[1][:, :30]], steps=1, settings=SMALL)
    with pytest.raises(ValueError, match="give at least 1 of each"):
        train_masker(small_net, images[:0], steps=1)
    with pytest.raises(ValueError, match="resume it with the same settings"):
        train_masker(Patch(slice(8, 16), slice(16, 24)), images, steps=999, settings=SMALL, resume=trained)
    with pytest.raises(ValueError, match="has done 300 steps already"):
        train_masker(Patch(slice(8, 16), slice(16, 24)), images, steps=5, resume=trained)
    refused_settings: tuple[tuple[dict[str, Any], str], ...] = (
        ({"channels": 6}, "multiple of 4"),
        ({"batch": 0}, "at least 1 image"),
        ({"absent": 1.0}, "a share of absent classes below 1"),
        ({"area": float("nan")}, "area is nan"),
    )
    for settings, message in refused_settings:
        with pytest.raises(ValueError, match=message):
            MaskerSettings(**settings)


def test_a_training_needs_at_least_one_image_and_one_step(small_net: SmallNet, images: Tensor) -> None:
    assert train_masker(small_net, images[:1], steps=1, settings=SMALL, every=1).done == 1
    for photos, steps, every in ((images[:0], 1, 1), (images, 0, 1), (images, 1, 0)):
        with pytest.raises(ValueError, match="give at least 1 of each"):
            train_masker(small_net, photos, steps=steps, settings=SMALL, every=every)


def test_a_masker_on_another_device_is_refused(small_net: SmallNet, images: Tensor) -> None:
    with pytest.raises(ValueError, match="images are on cpu, the masker is on meta; move one of them"):
        LearnedMask(small_net, masker=Masker(5, 4).to("meta"))(images)


@pytest.fixture
def file(small_net: SmallNet, images: Tensor, tmp_path: Path) -> Path:
    save_masker(train_masker(small_net, images, steps=1, settings=SMALL), tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def rewritten(file: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], Any]) -> None:
    """The same file with other tensors, or another record."""
    state, data = safetensors.torch.load(file.read_bytes()), file.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    record = json.loads(header["__metadata__"]["faithmap"])
    change(state, record)
    file.write_bytes(safetensors.torch.save(state, {"faithmap": json.dumps(record)}))


def refused(file: Path) -> str:
    with pytest.raises(MaskerError) as caught:
        read_training(file)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert message.isprintable()
    assert len(message) < 400
    return message


def test_a_file_that_is_read_and_saved_is_the_same(file: Path) -> None:
    training = read_training(file)
    save_masker(training, file.with_name("again"))
    assert file.with_name("again").read_bytes() == file.read_bytes()
    assert training.settings == SMALL
    assert (training.done, training.masker.steps) == (1, 1)
    assert all(parameter.requires_grad for parameter in training.masker.parameters()), "so that its training can be resumed"


@pytest.mark.parametrize("keep", [0, 5, 60, 2000, -1])
def test_a_truncated_file_is_refused(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    assert "is damaged, or no file of a masker" in refused(file)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"a": Malicious(tmp_path / "proof")}, tmp_path / "zip")
    (tmp_path / "pickle").write_bytes(pickle.dumps(Malicious(tmp_path / "proof")))
    for name in ("zip", "pickle"):
        assert "is damaged, or no file of a masker" in refused(tmp_path / name)
    assert not (tmp_path / "proof").exists()


def test_paths_that_are_no_regular_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    assert "cannot be read (No such file or directory)" in refused(tmp_path / "missing")
    assert "it is no regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "it is no regular file" in refused(tmp_path / "pipe")
    monkeypatch.setattr("faithmap.methods.masks.masker_files.MAX_BYTES", 100)
    assert "bytes are more than 100" in refused(file)


HOSTILE: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "another schema": (lambda s, r: r.update(schema="faithmap.result/1"), "is no file of a masker"),
    "no schema": (lambda s, r: r.clear(), "is no file of a masker"),
    "sizes of another kind": (lambda s, r: r.update(masker=[1]), "holds sizes that no masker has"),
    "huge sizes": (lambda s, r: r["masker"].update(channels=10**9), "holds sizes that no masker has"),
    "many classes": (lambda s, r: r["masker"].update(classes=10**6), "has shape"),
    "negative sizes": (lambda s, r: r["masker"].update(classes=-1), "holds sizes that no masker has"),
    "true for a number": (lambda s, r: r["masker"].update(classes=True), "holds sizes that no masker has"),
    "odd channels": (lambda s, r: r["masker"].update(channels=5), "holds settings that no training has"),
    "steps of another kind": (lambda s, r: r.update(done="1"), "holds sizes that no masker has"),
    "no settings": (lambda s, r: r.pop("settings"), "holds settings that no training has"),
    "settings of another kind": (lambda s, r: r["settings"].update(batch="8"), "holds settings that no training has"),
    "settings that are not ours": (lambda s, r: r["settings"].update(evil=1), "holds settings that no training has"),
    "settings that are no numbers": (lambda s, r: r["settings"].update(area=float("nan")), "holds settings that no training"),
    "no model": (lambda s, r: r.pop("model"), "does not say which model it is for"),
    "a model of another kind": (lambda s, r: r.update(model={"name": 1, "digest": None}), "does not say which model"),
    "photos of another kind": (lambda s, r: r.update(photos=[]), "does not say which model"),
    "a tensor too few": (lambda s, r: s.pop("weights.head.bias"), "lacks tensors of a masker, or holds others"),
    "a moment too few": (lambda s, r: s.pop("second.head.bias"), "lacks tensors of a masker, or holds others"),
    "a tensor too many": (lambda s, r: s.update(extra=torch.ones(1)), "holds tensors that no masker has"),
    "another shape": (lambda s, r: s.update({"weights.head.bias": torch.ones(3)}), "head.bias has shape (3,)"),
    "another dtype": (lambda s, r: s.update({"weights.head.bias": torch.ones(1).half()}), "torch.float16"),
    "nan": (lambda s, r: s["weights.head.bias"].fill_(float("nan")), "head.bias holds NaN or infinite values"),
    "a negative second moment": (lambda s, r: s["second.head.bias"].fill_(-1), "holds a second moment below 0"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_no_training_could_have_written_is_refused(file: Path, name: str) -> None:
    change, problem = HOSTILE[name]
    rewritten(file, change)
    assert problem in refused(file)


def test_safetensors_without_our_entry_or_with_a_deep_one(file: Path) -> None:
    file.write_bytes(safetensors.torch.save({"a": torch.ones(1)}))
    refused(file)
    file.write_bytes(safetensors.torch.save({"a": torch.ones(1)}, {"faithmap": "[" * 100_000}))
    refused(file)


def test_a_failed_write_leaves_the_existing_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, initial = read_training(file), file.read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_masker(training, file)
    assert file.read_bytes() == initial
    assert [path.name for path in file.parent.iterdir()] == [file.name]
