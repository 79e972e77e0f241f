"""The one way to run a model: with pixels, masks, or at layers; and Phi, which masks are composed by."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from oracles import Linear, SmallNet

import faithmap
from faithmap.baselines import compose, upsample
from faithmap.probe import InputProbe, LayerProbe, MaskProbe
from faithmap.score import Score

CLASSES = torch.tensor([0, 1, 1])


def engine(model: torch.nn.Module, images: torch.Tensor, chunk_size: int) -> MaskProbe:
    return MaskProbe(model.eval(), Score(classes=CLASSES), images, 0.3 * images + 0.2, chunk_size=chunk_size)


def test_a_mask_of_one_keeps_the_image_and_of_zero_the_baseline(images: torch.Tensor) -> None:
    baseline = 1 - images
    assert torch.allclose(compose(images, baseline, torch.ones(3, 1, 32, 32)), images)
    assert torch.equal(compose(images, baseline, torch.zeros(3, 1, 32, 32)), baseline)


def test_a_mask_of_the_images_size_is_not_resampled() -> None:
    mask = torch.rand(1, 1, 5, 6)
    assert upsample(mask, (5, 6)) is mask


def test_scores_are_those_of_the_composed_images(small_net: SmallNet, images: torch.Tensor) -> None:
    index = torch.tensor([2, 0, 1, 0])
    masks = torch.rand(4, 5, 7)
    scores = engine(small_net, images, 3).scores(masks, index)
    composed = compose(images[index], (0.3 * images + 0.2)[index], upsample(masks.unsqueeze(1), (32, 32)))
    expected = small_net(composed).softmax(1).gather(1, CLASSES[index].unsqueeze(1)).squeeze(1)
    assert torch.allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("resolution", [(4, 4), (1, 6), (32, 32)])
def test_gradients_are_autograds(small_net: SmallNet, images: torch.Tensor, resolution: tuple[int, int]) -> None:
    images, net = images.double(), small_net.double()
    masks = torch.rand(3, *resolution, dtype=torch.float64, requires_grad=True)
    index, shares = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0.5, 1.0, 0.3, 0.7, 0.2], dtype=torch.float64)
    gradients = engine(net, images, 2).gradients(masks, index, shares)
    composed = compose(
        images[index], (0.3 * images + 0.2)[index], upsample((masks[index] * shares.view(-1, 1, 1)).unsqueeze(1), (32, 32))
    )
    score = net(composed).softmax(1).gather(1, CLASSES[index].unsqueeze(1)).sum()
    assert torch.allclose(gradients, torch.autograd.grad(score, masks)[0], atol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 100])
def test_chunks_do_not_matter(small_net: SmallNet, images: torch.Tensor, chunk_size: int) -> None:
    index = torch.tensor([2, 0, 1, 0, 2, 2, 1])
    masks, shares = torch.rand(7, 4, 4), torch.rand(7)
    one, many = engine(small_net, images, 7), engine(small_net, images, chunk_size)
    assert torch.allclose(one.scores(masks, index), many.scores(masks, index), atol=1e-6)
    assert torch.allclose(one.gradients(masks[:3], index, shares), many.gradients(masks[:3], index, shares), atol=1e-6)
    assert many.forward.tolist() == [4, 4, 6]
    assert many.backward.tolist() == [2, 2, 3]


def test_no_pass_is_larger_than_a_chunk(images: torch.Tensor) -> None:
    class Counting(Linear):
        largest = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Counting.largest = max(Counting.largest, len(x))
            return super().forward(x)

    masked = engine(Counting(torch.rand(3, 32, 32)), images, 4)
    masked.scores(torch.rand(11, 2, 2), torch.zeros(11, dtype=torch.long))
    masked.gradients(torch.rand(3, 2, 2), torch.arange(11) % 3, torch.rand(11))
    assert Counting.largest == 4


def test_no_other_file_calls_a_model() -> None:
    """Rules of a pass, such as precision, stand in one place."""
    source = Path(faithmap.__file__).parent
    callers = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
                if name == "model":
                    callers.add(str(path.relative_to(source)))
    assert callers == {"probe.py"}


@pytest.mark.parametrize("chunk_size", [2, 32])
def test_gradients_to_the_pixels_are_autograds(small_net: SmallNet, images: torch.Tensor, chunk_size: int) -> None:
    probe = InputProbe(small_net.eval(), Score("logit", CLASSES), images, chunk_size=chunk_size)
    index = torch.tensor([2, 0, 0, 1, 2])
    z = images[index] + 0.1
    pixels = z.clone().requires_grad_()
    scores = small_net(pixels).gather(1, CLASSES[index].unsqueeze(1)).squeeze(1)
    (expected,) = torch.autograd.grad(scores.sum(), pixels)
    assert torch.allclose(probe.gradients(z, index), expected, atol=1e-6)
    assert torch.allclose(probe.scores(z, index), scores, atol=1e-5)
    assert probe.forward.tolist() == [4, 2, 4]
    assert probe.backward.tolist() == [2, 1, 2]


def test_a_module_inside_counts_passes_together(small_net: SmallNet, images: torch.Tensor) -> None:
    probe = InputProbe(small_net.eval(), Score("logit", CLASSES), images)
    probe.output(images, torch.arange(3))
    probe.inside(small_net.conv1).output(images[:1], torch.tensor([1]))
    assert probe.forward.tolist() == [1, 2, 1]


def test_a_layer_probe_makes_the_target_concrete_in_the_pass_that_it_observes(
    small_net: SmallNet, images: torch.Tensor
) -> None:
    small_net.eval()
    probe = LayerProbe(
        small_net, Score("logit"), images, {"conv2": small_net.conv2}, {"conv2": lambda values: values}, chunk_size=2
    )
    logits, score, results = probe.clean(None, "logit", gradient=True)
    predicted = small_net(images).argmax(dim=1)
    assert logits is not None
    assert score.classes is not None
    assert torch.equal(score.classes, predicted)
    assert torch.allclose(results.score, logits.amax(dim=1))
    again = probe.observe(images, torch.arange(3))
    assert torch.allclose(again.activation["conv2"], results.activation["conv2"], atol=1e-6)
    assert torch.allclose(again.gradient["conv2"], results.gradient["conv2"], atol=1e-6)
    assert (probe.forward.tolist(), probe.backward.tolist()) == ([2, 2, 2], [2, 2, 2])
