"""The sanity check against explainers whose dependence on the weights is known."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import pytest
import torch
from oracles import Linear, SmallNet, Untouched, fails_from, given
from torch import Tensor, nn

from faithmap.metrics import ModelRandomisation
from faithmap.metrics.functional import Randomisation, randomisation, spearman
from faithmap.metrics.functional.randomisation import RandomisationMode, TrainedState, WeightDraw, randomise_layer
from faithmap.model import Classifier
from faithmap.seeds import derived, image_generators
from faithmap.warning_types import EmptyHeatmapWarning, LowConfidenceWarning, warn

MapFunction: TypeAlias = Callable[[nn.Module, Tensor, Any], Tensor]
"""Heatmaps, from a model, images and a target."""


class Explains:
    """An explainer made of a function of model, images and target."""

    def __init__(self, model: nn.Module, function: MapFunction) -> None:
        self.model, self.function = model, function
        self.targets: list[Any] = []

    def __call__(self, images: Tensor, target: object = None) -> Tensor:
        self.targets.append(target)
        return self.function(self.model, images, target)


def brightness(model: nn.Module, images: Tensor, target: object) -> Tensor:
    return images.mean(dim=1)


def gradient(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    model(images).gather(1, target.view(-1, 1)).sum().backward(inputs=images)
    return given(images.grad).abs().sum(dim=1)


def own(layer: str) -> MapFunction:
    """The weights of a layer as a map of every image."""

    def weights(model: nn.Module, images: Tensor, target: object) -> Tensor:
        weight = model.get_parameter(f"{layer}.weight").detach().clone()
        return weight.flatten()[:1024].view(1, 32, 32).expand(len(images), -1, -1)

    return weights


class Everything(nn.Module):
    """Bare parameters at the root, layer norm, attention, a shared module, tied weights, and layers out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.patch = nn.Conv2d(3, 12, 8, stride=8)
        self.shared = nn.Linear(12, 12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.norm = nn.LayerNorm(12)
        self.tied = nn.Linear(12, 12)
        self.tied.weight = self.shared.weight
        self.never = nn.Linear(2, 2)
        self.low = nn.Linear(12, 12).bfloat16()
        self.register_buffer("seen", torch.zeros(1).expand(5))
        with torch.no_grad():
            self.norm.weight.normal_(1, 0.1)
            self.attention.in_proj_bias.normal_()
            self.attention.out_proj.bias.normal_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.patch(x).flatten(2).mT)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.low(x.bfloat16()).float()
        logits: Tensor = self.head(self.tied(self.shared(self.norm(x))).mean(dim=1))
        return logits


@pytest.fixture
def everything() -> Everything:
    torch.manual_seed(0)
    return Everything()


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(initial: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name.removeprefix("module.") for name, value in after.items() if not torch.equal(value, initial[name])}


def watching(model: nn.Module, images: Tensor, **settings: Any) -> tuple[Randomisation, list[dict[str, Tensor]]]:
    """The check, and what the model held at every stage."""
    states: list[dict[str, Tensor]] = []

    def note(model: nn.Module, images: Tensor, target: object) -> Tensor:
        states.append(values(model))
        return brightness(model, images, target)

    return randomisation(Explains(model, note), images, **settings), states


@pytest.mark.parametrize("mode", ["cascading", "independent"])
@pytest.mark.parametrize("draw", ["initialiser", "permutation"])
def test_a_map_that_ignores_the_model_does_not_change(
    small_net: SmallNet, images: Tensor, untouched: Untouched, mode: RandomisationMode, draw: WeightDraw
) -> None:
    checked = randomisation(Explains(untouched(small_net.train()), brightness), images, mode=mode, draw=draw)
    assert checked.layers == ("head", "conv2", "norm", "conv1")
    assert torch.equal(checked.spearman, torch.ones(3, 4))
    assert torch.allclose(checked.ssim, torch.ones(3, 4))
    assert not checked.flat.any()


@pytest.mark.parametrize("draw", ["initialiser", "permutation"])
@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_a_map_of_a_layers_weights_changes_when_this_layer_is_random(
    small_net: SmallNet, images: Tensor, untouched: Untouched, mode: RandomisationMode, draw: WeightDraw
) -> None:
    """Until then Spearman is 1; then it is that of what is drawn from the layer's own seed; alone, they come back."""
    forgetful = copy.deepcopy(small_net)
    randomise_layer("conv2", forgetful.conv2, 3, draw)
    wanted = spearman(own("conv2")(small_net, images, 0), own("conv2")(forgetful, images, 0))[0].item()
    checked = randomisation(Explains(untouched(small_net), own("conv2")), images, mode=mode, seed=3, draw=draw)
    after = wanted if mode == "cascading" else 1.0
    assert checked.spearman.unique(dim=0).flatten().tolist() == pytest.approx([1.0, wanted, after, after])
    assert abs(wanted) < 0.2


def test_random_values_equal_those_of_the_layers_initialiser(small_net: SmallNet) -> None:
    """The very numbers that torch draws for a new layer at the seed that the layer's name makes; the run's seed counts."""
    torch.manual_seed(derived(7, "conv2"))
    fresh = nn.Conv2d(8, 16, 3, stride=2, padding=1)
    randomise_layer("conv2", small_net.conv2, 7, "initialiser")
    assert torch.equal(small_net.conv2.weight, fresh.weight)
    assert torch.equal(given(small_net.conv2.bias), given(fresh.bias))
    randomise_layer("conv2", small_net.conv2, 8, "initialiser")
    assert not torch.equal(small_net.conv2.weight, fresh.weight)


def test_half_precision_has_the_same_values_rounded(small_net: SmallNet) -> None:
    half = copy.deepcopy(small_net).bfloat16()
    for draw in ("initialiser", "permutation"):
        randomise_layer("conv2", small_net.conv2, 7, draw)
        randomise_layer("conv2", half.conv2, 7, draw)
        assert torch.equal(half.conv2.weight, small_net.conv2.weight.bfloat16())


def test_cascading_ends_in_a_random_model_and_independent_randomises_one_layer_at_a_time(
    small_net: SmallNet, images: Tensor, untouched: Untouched
) -> None:
    with torch.no_grad():
        small_net.norm.weight.uniform_()
        given(small_net.norm.running_var).uniform_()
    initial = values(untouched(small_net))
    checked, (first, *states) = watching(small_net, images)
    _, (_, *alone) = watching(small_net, images, mode="independent")
    assert changed(initial, first) == set()
    layers = {
        "head": {"head.weight", "head.bias"},
        "conv2": {"conv2.weight", "conv2.bias"},
        "norm": {"norm.weight", "norm.running_var"},
        "conv1": {"conv1.weight", "conv1.bias"},
    }
    assert list(checked.layers) == list(layers)
    for i, (state, lonely) in enumerate(zip(states, alone, strict=True)):
        assert changed(initial, state) == set().union(*list(layers.values())[: i + 1])
        assert changed(initial, lonely) == list(layers.values())[i]
        for name in changed(initial, lonely):
            assert torch.equal(lonely[name], states[-1][name]), "a layer forgets alike, alone and with others"
    assert torch.equal(states[-1]["norm.running_var"], torch.ones(8))


def test_every_kind_of_parameter_is_randomised(everything: Everything, images: Tensor, untouched: Untouched) -> None:
    initial = values(untouched(everything))
    checked, (_, *states) = watching(everything, images)
    assert changed(initial, states[-1]) == initial.keys() - {"norm.bias", "seen"}, "0 before and after; no parameter"
    assert torch.equal(states[-1]["token"].flatten().sort().values, initial["token"].flatten().sort().values)
    assert not states[-1]["attention.in_proj_bias"].any(), "torch's attention begins with 0"
    assert torch.equal(states[-1]["tied.weight"], states[-1]["shared.weight"])
    assert torch.equal(states[-1]["norm.weight"], torch.ones(12))
    assert checked.layers[0] == "head"


def test_layers_are_randomised_from_the_output_down(everything: Everything, images: Tensor) -> None:
    """However they are registered: a shared one at its last run, what is not called behind what it is in."""
    checked = randomisation(Explains(everything, brightness), images)
    wanted = ("head", "tied", "shared", "norm", "low", "attention.out_proj", "attention", "patch", "never")
    assert checked.layers == (*wanted, "")


def test_attention_and_its_projection_are_separate_layers(everything: Everything, images: Tensor) -> None:
    initial = values(everything)
    _, (_, state) = watching(everything, images, layers=["attention.out_proj"])
    assert changed(initial, state) == {"attention.out_proj.weight", "attention.out_proj.bias"}
    randomise_layer("attention", everything.attention, 0, "initialiser")
    assert changed(initial, values(everything)) == {"attention.in_proj_weight", "attention.in_proj_bias"}


def test_an_initialiser_that_makes_new_parameters_leaves_the_old_ones_in_place(images: Tensor) -> None:
    class Made(nn.Linear):
        def reset_parameters(self) -> None:
            self.weight = nn.Parameter(torch.full_like(self.weight, 3.0))
            self.made = "anew"

    layer = Made(3072, 2)
    net = nn.Sequential(nn.Flatten(), layer)
    nn.init.normal_(layer.weight)
    layer.made = "once"
    weight = layer.weight
    _, (_, state) = watching(net, images)
    assert bool((state["1.weight"] == 3).all())
    assert layer.weight is weight
    assert layer.made == "once"
    assert not (weight == torch.tensor(3.0)).any()


def test_parameters_that_the_initialiser_omits_are_permuted() -> None:
    class Scaled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 9)
            self.scale = nn.Parameter(torch.rand(9))

    layer = Scaled()
    initial = values(layer)
    randomise_layer("scaled", layer, 0, "initialiser")
    assert changed(initial, values(layer)) == {"weight", "bias", "scale"}
    assert torch.equal(layer.scale.sort().values, initial["scale"].sort().values)
    assert not torch.equal(layer.weight.flatten().sort().values, initial["weight"].flatten().sort().values)


def test_a_stage_is_a_layer_or_a_block_by_name_or_as_a_module(everything: Everything, images: Tensor) -> None:
    explainer = Explains(Classifier(everything), brightness)
    layers: Sequence[str | nn.Module] = ["patch", everything.attention, "module.head"]
    checked = randomisation(explainer, images, layers=layers)
    assert list(checked.layers) == ["head", "attention", "patch"]
    initial = values(explainer.model)
    _, (_, *states) = watching(explainer.model, images, layers=["attention", everything])
    assert "attention.out_proj.weight" in changed(initial, states[0 if checked.layers[0] == "attention" else 1])
    checked, (_, state) = watching(explainer.model, images, layers=[explainer.model])
    assert checked.layers == ("the whole model",)
    assert len(changed(initial, state)) == len(initial) - 2


def test_a_member_that_is_called_module_keeps_its_name(images: Tensor) -> None:
    torch.manual_seed(0)
    inside = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 4, 4)))
    pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(OrderedDict(module=inside, conv=nn.Conv2d(4, 4, 1), pooling=pooling))
    assert randomisation(Explains(model, brightness), images).layers == ("conv", "module.conv")
    assert randomisation(Explains(Classifier(model), brightness), images).layers == ("conv", "module.conv")
    for name in ("conv", "module.conv"):
        layer = model.get_submodule(name)
        initial = values(model)
        checked, (_, state) = watching(model, images, layers=[name])
        random = [key for key, value in state.items() if not torch.equal(value, initial[key])]
        assert checked.layers == (name,)
        assert random == [f"{name}.weight", f"{name}.bias"]
        assert randomisation(Explains(model, brightness), images, layers=[layer]).layers == (name,)


def test_the_target_is_resolved_once_by_the_trained_model(small_net: SmallNet, images: Tensor) -> None:
    explainer = Explains(small_net, brightness)
    randomisation(explainer, images)
    wanted = small_net.eval()(images).argmax(dim=1)
    assert len(explainer.targets) == 5
    assert all(torch.equal(target, wanted) for target in explainer.targets)
    explainer.targets.clear()
    randomisation(explainer, images, 2, layers=["head"])
    assert [target.tolist() for target in explainer.targets] == [[2, 2, 2]] * 2
    explainer.targets.clear()

    def score(output: Tensor) -> Tensor:
        return output[:, 0]

    randomisation(explainer, images, score, layers=["head"])
    assert explainer.targets == [score] * 2


def test_the_similarity_of_a_linear_model_is_that_of_its_permuted_weights(images: Tensor) -> None:
    """The gradient's map is |w|, the similarity that of the permuted weights."""
    model = Linear(torch.randn(1, 9, 9))
    pictures = torch.rand(2, 1, 9, 9)
    checked = randomisation(Explains(model, gradient), pictures, keep_heatmaps=True)
    turned = copy.deepcopy(model)
    randomise_layer("", turned, 0, "initialiser")
    assert torch.equal(turned.weight.flatten().sort().values, model.weight.flatten().sort().values)
    assert torch.equal(checked.heatmaps[0].heatmap[0], turned.weight[0].abs().detach())
    assert torch.allclose(checked.spearman, spearman(model.weight.abs(), turned.weight.abs()).expand(2, 1))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("call", [0, 1, 3])
@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_the_model_is_left_unchanged_after_every_error_of_the_explainer(
    everything: Everything,
    images: Tensor,
    untouched: Untouched,
    error: type[BaseException],
    call: int,
    mode: RandomisationMode,
) -> None:
    everything.train().patch.eval()
    everything.head.weight.requires_grad_(False)
    untouched(everything)

    def fails(model: nn.Module, images: Tensor, target: object) -> Tensor:
        model.train()
        model.requires_grad_(True)
        if len(explainer.targets) == call + 1:
            raise error
        return brightness(model, images, target)

    explainer = Explains(everything, fails)
    with pytest.raises(error):
        randomisation(explainer, images, mode=mode)
    explainer.targets.append(None)
    randomisation(Explains(everything, brightness), images, mode=mode)


def test_the_model_is_left_unchanged_after_errors_of_progress_and_initialisers(
    small_net: SmallNet, images: Tensor, untouched: Untouched
) -> None:
    untouched(small_net)
    with pytest.raises(ZeroDivisionError):
        randomisation(Explains(small_net, brightness), images, progress=fails_from(3))

    class Broken(nn.Linear):
        armed = False

        def reset_parameters(self) -> None:
            if self.armed:
                nn.init.zeros_(self.weight)
                raise ZeroDivisionError

    layer = Broken(3072, 2)
    net = nn.Sequential(nn.Flatten(), layer)
    nn.init.ones_(layer.weight)
    layer.armed = True
    untouched(net)
    with pytest.raises(ZeroDivisionError):
        randomisation(Explains(net, brightness), images)


def test_no_state_of_a_random_generator_changes(everything: Everything, images: Tensor) -> None:
    def noisy(model: nn.Module, images: Tensor, target: object) -> Tensor:
        return torch.rand(len(images), 8, 8)

    initial = torch.get_rng_state()
    checked = randomisation(Explains(everything, noisy), images)
    assert torch.equal(torch.get_rng_state(), initial)
    assert torch.equal(checked.spearman, torch.ones_like(checked.spearman)), "the same noise at every stage"


def test_an_earlier_graph_of_the_caller_stays_valid(small_net: SmallNet, images: Tensor) -> None:
    small_net.eval()
    loss = small_net(images).sum()
    randomisation(Explains(small_net, brightness), images)
    loss.backward()
    again = torch.autograd.grad(small_net(images).sum(), small_net.conv1.weight)[0]
    assert torch.equal(given(small_net.conv1.weight.grad), again)


def test_explainers_run_with_gradients_and_in_evaluation_mode(
    small_net: SmallNet, images: Tensor, untouched: Untouched
) -> None:
    modes = []

    def asks(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
        modes.append(model.training)
        return gradient(model, images, target)

    with torch.no_grad():
        randomisation(Explains(untouched(small_net.train()), asks), images)
    assert modes == [False] * 5


def test_a_compiled_model_has_the_values_of_the_plain_one(small_net: SmallNet, images: Tensor, untouched: Untouched) -> None:
    plain = randomisation(Explains(untouched(small_net.eval()), gradient), images)
    compiled = cast(nn.Module, torch.compile(small_net, backend="eager"))
    compiled(images)
    checked = randomisation(Explains(compiled, gradient), images)
    assert checked.layers == plain.layers
    assert torch.allclose(checked.spearman, plain.spearman, atol=1e-4)
    torch._dynamo.reset()


def test_the_values_of_an_image_do_not_depend_on_the_other_images(small_net: SmallNet, images: Tensor) -> None:
    together = randomisation(Explains(small_net, gradient), images)
    for i in range(3):
        alone = randomisation(Explains(small_net, gradient), images[i : i + 1])
        assert torch.allclose(alone.spearman, together.spearman[i : i + 1], atol=1e-4)
        assert torch.allclose(alone.ssim, together.ssim[i : i + 1], atol=1e-4)
        assert torch.equal(together[i].spearman, together.spearman[i : i + 1])
    chunked = randomisation(Explains(small_net, gradient), images, chunk_size=2)
    assert chunked.layers == together.layers
    assert torch.equal(chunked.spearman, together.spearman)
    assert together[-1].original.heatmap.shape == (1, 32, 32)


def test_signs_are_compared_unless_absolute_is_set(small_net: SmallNet, images: Tensor) -> None:
    """The second map is the first with its signs turned."""

    def turning(model: nn.Module, images: Tensor, target: object) -> Tensor:
        maps = images.mean(dim=1) - 0.5
        return maps if len(explainer.targets) == 1 else -maps

    for absolute, wanted in ((False, -1.0), (True, 1.0)):
        explainer = Explains(small_net, turning)
        checked = randomisation(explainer, images, layers=["head"], absolute=absolute)
        assert torch.equal(checked.spearman, torch.full((3, 1), wanted))
        assert (checked.ssim.min() > 0.99) == absolute
        assert checked.absolute == absolute


def test_a_map_that_becomes_constant_is_flagged(small_net: SmallNet, images: Tensor) -> None:
    def dying(model: nn.Module, images: Tensor, target: object) -> Tensor:
        return images.mean(dim=1) * (len(explainer.targets) == 1)

    explainer = Explains(small_net, dying)
    checked = randomisation(explainer, images, layers=["head"])
    assert checked.flat.all()
    assert not checked.spearman.any()


def test_warnings_about_random_models_are_not_passed_on(small_net: SmallNet, images: Tensor) -> None:
    def warns(model: nn.Module, images: Tensor, target: object) -> Tensor:
        first = len(explainer.targets) == 1
        warn("doubtful", LowConfidenceWarning if first else EmptyHeatmapWarning)
        return brightness(model, images, target)

    explainer = Explains(small_net, warns)
    with pytest.warns(LowConfidenceWarning) as caught:
        randomisation(explainer, images)
    assert len(caught) == 1


def test_heatmaps_of_the_stages_are_kept_and_progress_is_reported(small_net: SmallNet, images: Tensor) -> None:
    updates = []
    checked = randomisation(
        Explains(small_net, gradient),
        images,
        keep_heatmaps=True,
        progress=lambda done, total: updates.append((done, total)),
    )
    assert updates == [(i, 5) for i in range(1, 6)]
    assert len(checked.heatmaps) == 4
    assert torch.equal(spearman(checked.original, checked.heatmaps[2]), checked.spearman[:, 2])
    assert torch.equal(checked[1].heatmaps[2].heatmap, checked.heatmaps[2].heatmap[1:2])
    assert randomisation(Explains(small_net, gradient), images).heatmaps == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "downwards"}, "mode is 'downwards'; give 'cascading' or 'independent'"),
        ({"draw": "normal"}, "draw is 'normal'"),
        ({"layers": ["conv3"]}, "layers names 'conv3', .*its last are head, conv2, norm"),
        ({"layers": ["drop"]}, "no module of the model with parameters"),
        ({"layers": [nn.Linear(2, 2)]}, "no module of the model"),
        ({"layers": []}, "layers is empty"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"target": [1]}, "1 entry for 3 images"),
    ],
)
def test_invalid_settings_are_refused(
    small_net: SmallNet, images: Tensor, untouched: Untouched, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        randomisation(Explains(untouched(small_net), brightness), images, **settings)


def test_invalid_explainers_are_refused(small_net: SmallNet, images: Tensor, untouched: Untouched) -> None:
    no_explainer: Any = lambda images, target: images[:, 0]  # noqa: E731
    with pytest.raises(TypeError, match="function is no explainer; give a callable with the attribute model"):
        randomisation(no_explainer, images)
    with pytest.raises(ValueError, match="has no parameters"):
        randomisation(Explains(nn.Flatten(), brightness), images)
    with pytest.raises(ValueError, match="NaN"):
        randomisation(Explains(untouched(small_net), lambda m, x, t: x.mean(dim=1) * torch.nan), images)


def test_the_metric_class_compares_with_the_last_stage(small_net: SmallNet, images: Tensor, untouched: Untouched) -> None:
    whole = randomisation(Explains(untouched(small_net), gradient), images).spearman[:, -1]
    metric = ModelRandomisation(Explains(small_net, gradient))
    for part in images.split(1):
        metric.update(part)
    assert torch.allclose(metric.per_image(), whole, atol=1e-4)
    last = ModelRandomisation(Explains(small_net, gradient), layers=["conv2", "head"], seed=3, draw="permutation")
    last.update(images=images, target=1)
    wanted = randomisation(Explains(small_net, gradient), images, 1, layers=["head", "conv2"], seed=3, draw="permutation")
    assert torch.equal(last.per_image(), wanted.spearman[:, 1])
    assert ModelRandomisation.higher_is_better is False
    assert not list(metric.parameters())


def test_each_image_has_its_own_generator_for_every_batching(small_net: SmallNet, images: Tensor) -> None:
    drawn: list[Tensor] = []

    class Noisy(Explains):
        seed = 5

        def __call__(self, images: Tensor, target: object = None, *, generator: Sequence[torch.Generator] = ()) -> Tensor:
            drawn.append(torch.stack([torch.rand(8, 8, generator=one) for one in generator]))
            return drawn[-1]

    metric = ModelRandomisation(Noisy(small_net, brightness))
    metric.update(images[:1])
    metric.update(images[1:])
    wanted = torch.stack([torch.rand(8, 8, generator=one) for one in image_generators(5, range(3))])
    assert torch.equal(torch.cat(drawn[0::2]), wanted)
    assert torch.equal(torch.cat(drawn[1::2]), wanted), "each stage draws what the first one drew"


def test_a_model_with_folded_batch_norm_is_checked_and_restored(images: Tensor, untouched: Untouched) -> None:
    from faithmap.methods.cams import GradCAM
    from faithmap.zoo.folding import fold_batch_norm

    plain = SmallNet()
    with torch.no_grad():
        given(plain.norm.running_mean).normal_(0, 0.1)
        plain.norm.bias.uniform_()
    folded = Classifier(untouched(fold_batch_norm(plain, (3, 32, 32))))
    assert isinstance(folded.module.norm, nn.Identity)
    explainer = GradCAM(folded, relu=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        initial = explainer(images).heatmap
        checked = randomisation(explainer, images, layers=["conv2", "conv1", "head"], keep_heatmaps=True)
        fresh = randomisation(GradCAM(folded, relu=False), images)
        after = explainer(images).heatmap
    assert checked.layers == fresh.layers == ("head", "conv2", "conv1")
    assert torch.equal(checked.spearman, fresh.spearman), "what an explainer remembers of a layer is not its weights"
    assert torch.equal(initial, after)
    assert torch.equal(given(checked.original.target), folded(images).argmax(dim=1))


def test_values_are_put_back_in_place(small_net: SmallNet) -> None:
    """No parameter is exchanged: an optimiser of the user's still holds the right ones."""
    initial = {name: (id(p), p.data_ptr()) for name, p in small_net.named_parameters()}
    trained = TrainedState(small_net)
    with trained.restored():
        randomise_layer("conv2", small_net.conv2, 0, "initialiser")
    assert {name: (id(p), p.data_ptr()) for name, p in small_net.named_parameters()} == initial
