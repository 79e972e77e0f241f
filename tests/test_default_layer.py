"""The default layer and the layout of any layer are found by what they do: small networks of each kind that misled a rule."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.layers import find_layers, target_layers
from faithmap.layout import Layout
from faithmap.methods.cams import ExpectedFusedCAM, GradCAM
from faithmap.methods.masks.rank_descent import RankDescent
from faithmap.model import undisturbed
from faithmap.warning_types import TargetLayerWarning

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning"), pytest.mark.usefixtures("one_thread")]


class Attention(nn.Module):
    """Self-attention with its matrices as the output of a module."""

    def __init__(self, width: int, heads: int = 2, name: str = "matrix") -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width)
        self.add_module(name, nn.Softmax(dim=-1))
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.to_qkv(x).chunk(3, dim=-1))
        matrix = self.get_submodule(self.name)(q @ k.mT / q.shape[-1] ** 0.5)
        out: Tensor = (matrix @ v).transpose(1, 2).flatten(2)
        return out


class Transformer(nn.Module):
    """Patches, blocks without modules for their sums, and the head on a class token or on the mean."""

    def __init__(self, *, mean: bool = False, registers: int = 0, blocks: int = 2, patch: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, patch, patch)
        self.first = nn.Parameter(torch.randn(1, 0 if mean else 1, 16))
        self.last = nn.Parameter(torch.randn(1, registers, 16))
        self.mixing = nn.ModuleList(nn.Sequential(nn.LayerNorm(16), Attention(16, heads)) for _ in range(blocks))
        self.feeding = nn.ModuleList(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU()) for _ in range(blocks))
        self.head = nn.Linear(16, 4)
        self.mean = mean

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).mT
        x = torch.cat([self.first.expand(len(x), -1, -1), x, self.last.expand(len(x), -1, -1)], dim=1)
        for mix, feed in zip(self.mixing, self.feeding, strict=True):
            x = x + mix(x)
            x = x + feed(x)
        logits: Tensor = self.head(x.mean(dim=1) if self.mean else x[:, 0])
        return logits


def grids(model: nn.Module, size: tuple[int, int], layer: Any = None, scales: int = 1) -> dict[str, tuple[int, int]]:
    """The grid of each layer that is found."""
    image = torch.zeros(1, 3, *size)
    with undisturbed(model):
        context = target_layers(model, layer, None, image, scales, "tiles")
    return {name: (len(rows), len(columns)) for name, (rows, columns) in context.centres.items()}


def landed(model: nn.Module, layer: str, size: tuple[int, int], row: int, column: int, pixels: int) -> tuple[int, int]:
    """The cell that changes most when a square of pixels changes."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(3))
    changed = image.clone()
    changed[..., row : row + pixels, column : column + pixels] = 1 - changed[..., row : row + pixels, column : column + pixels]
    with undisturbed(model):
        context = target_layers(model, layer, None, image)
        probe = context.probe(model, torch.cat([image, changed]), "logit", chunk_size=2)
        activation = probe.clean(0, "logit", gradient=False)[2].activation[layer]
    change = (activation[1] - activation[0]).abs().sum(dim=0)
    return divmod(int(change.argmax()), change.shape[1])


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("mean", "registers"), [(False, 0), (False, 3), (True, 0), (True, 3)])
def test_attention_matrices_are_no_picture(heads: int, mean: bool, registers: int) -> None:
    torch.manual_seed(0)
    model = Transformer(mean=mean, registers=registers, heads=heads)
    (layer,) = grids(model, (48, 48), scales=3).items()
    assert layer == ("feeding.1.2" if mean else "mixing.1.0", (6, 6)) or (mean and layer == ("feeding.1.0", (6, 6)))
    with pytest.raises(ValueError, match="a local change of the image is not local in it"):
        grids(model, (48, 48), "mixing.0.1.matrix")


def test_the_matrix_of_a_non_local_head_is_no_picture() -> None:
    class NonLocal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 12, 4, 4), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU())
            self.matrix = nn.Softmax(dim=-1)
            self.head = nn.Linear(12, 3)

        def forward(self, image: Tensor) -> Tensor:
            x = self.body(image).flatten(2)
            x = x + x @ self.matrix(x.mT @ x).mT
            logits: Tensor = self.head(x.mean(dim=2))
            return logits

    torch.manual_seed(0)
    assert grids(NonLocal(), (32, 32)) == {"body": (8, 8)}


@pytest.mark.parametrize("registers", [0, 4])
def test_the_grid_is_found_where_the_number_of_tokens_fits_several(registers: int) -> None:
    """A padded width: 8 x 11 pixels are 14 x 21 patches of 8, and 14 x 20 would fit as well, with more other tokens."""

    class Padded(Transformer):
        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = super().forward(F.pad(image, (0, -image.shape[-1] % 8, 0, -image.shape[-2] % 8)))
            return logits

    torch.manual_seed(0)
    model = Padded(registers=registers)
    assert grids(model, (112, 165)) == {"mixing.1.0": (14, 21)}
    assert landed(model, "mixing.0.0", (112, 165), 40, 112, 8) == (5, 14)


def test_tokens_come_first_in_torchs_own_encoder() -> None:
    class TokensFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 8, 8)
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 16), 2, enable_nested_tensor=False)
            self.head = nn.Linear(16, 4)

        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = self.head(self.encoder(self.patches(image).flatten(2).permute(2, 0, 1)).mean(dim=0))
            return logits

    torch.manual_seed(0)
    model = TokensFirst()
    image = torch.rand(2, 3, 40, 56)
    assert grids(model, (40, 56)) == {"encoder.layers.1": (5, 7)}
    together = GradCAM(model, relu=False)(image, 1)
    alone = GradCAM(model, relu=False)(image[1:], 1)
    assert together.resolution == (5, 7)
    assert torch.allclose(together.heatmap[1], alone.heatmap[0], atol=1e-5 * float(alone.heatmap.abs().max()))
    assert ExpectedFusedCAM(model)(image[:1], 1).resolution == (5, 7)
    assert landed(model, "encoder.layers.0", (40, 56), 16, 40, 8) == (2, 5)


class Rearranged(nn.Module):
    """Its input in another arrangement, and back."""

    def __init__(self, *dims: int, unsqueeze: bool = False) -> None:
        super().__init__()
        self.dims, self.unsqueeze = dims, unsqueeze
        self.stage = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.unsqueeze:
            tokens: Tensor = self.stage(x.flatten(2).mT.unsqueeze(1) * 1)
            grid: Tensor = tokens[:, 0].mT.unflatten(2, x.shape[-2:])
            return grid
        moved: Tensor = self.stage(x.permute(self.dims) * 1)
        return moved.permute(torch.tensor(self.dims).argsort().tolist())


@pytest.mark.parametrize(
    ("arranged", "order"),
    [
        (Rearranged(0, 1, 2, 3), (0, 1, 2, 3)),
        (Rearranged(0, 2, 3, 1), (0, 3, 1, 2)),
        (Rearranged(1, 0, 2, 3), (1, 0, 2, 3)),
        (Rearranged(0, 1, 3, 2), (0, 1, 3, 2)),
        (Rearranged(unsqueeze=True), (0, 3, 2)),
    ],
    ids=["as it is", "channels last", "images second", "columns first", "one block of tokens"],
)
@pytest.mark.parametrize("channels", [6, 9, 12])
def test_any_arrangement_is_read_also_with_as_many_channels_as_columns(
    arranged: Rearranged, order: tuple[int, ...], channels: int
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, channels, 4, 4), arranged, nn.Flatten(), nn.Linear(channels * 54, 3))
    image = torch.rand(2, 3, 24, 36)
    upright, read = (GradCAM(model, target_layer=name, relu=False)(image, 0).heatmap for name in ("0", "1.stage"))
    assert torch.equal(upright, read)
    reshape = target_layers(model, "1.stage", None, image[:1]).reshape["1.stage"]
    assert isinstance(reshape, Layout)
    assert reshape.order == order


def test_a_norm_of_the_channels_in_front_is_not_turned_where_there_are_as_many_columns() -> None:
    """A LayerNorm2d whose ``normalized_shape`` is the width: (n, k, h, w), not (n, h, w, k)."""

    class LayerNorm2d(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 4, 4), LayerNorm2d(12), nn.Flatten(), nn.Linear(12 * 144, 3))
    assert landed(model, "1", (48, 48), 32, 8, 4) == (8, 2)


@pytest.mark.parametrize(
    "end", [nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(4), nn.AdaptiveAvgPool2d(8), nn.Upsample(scale_factor=2)]
)
def test_a_pooling_or_resizing_at_the_end_is_no_layer(end: nn.Module) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), end)
    model = nn.Sequential(OrderedDict(features=body, flat=nn.Flatten(), head=nn.LazyLinear(3)))
    model(torch.rand(1, 3, 32, 32))
    assert grids(model, (32, 32)) == {"features.3": (8, 8)}


class TwoHeads(nn.Module):
    """A segmenter with an auxiliary head that only training uses, its output enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU())
        self.classifier = nn.Conv2d(8, 5, 1)
        self.aux = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.backbone(image)
        out, aux = (F.interpolate(head(x), scale_factor=4.0, mode="bilinear") for head in (self.classifier, self.aux))
        return OrderedDict(out=out, aux=aux)


def test_neither_an_auxiliary_head_nor_the_output_is_explained() -> None:
    torch.manual_seed(0)
    model = TwoHeads()
    assert grids(model, (32, 32)) == {"backbone": (8, 8)}
    explanation = GradCAM(model)(torch.rand(1, 3, 32, 32), lambda output: output["out"][:, 1].mean(dim=(1, 2)))
    assert explanation.diagnostics[0]["target_layer"] == ["backbone"]


def test_a_text_tower_is_not_explained() -> None:
    class TwoTowers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = Transformer()
            self.words = nn.Parameter(torch.randn(1, 36, 16))
            self.text = nn.LayerNorm(16)

        def forward(self, image: Tensor) -> Tensor:
            features = self.visual(image)
            read = self.text(self.words.expand(len(image), -1, -1)).mean(dim=(1, 2), keepdim=True)[:, 0]
            logits: Tensor = features * read
            return logits

    torch.manual_seed(0)
    assert grids(TwoTowers(), (48, 48)) == {"visual.mixing.1.0": (6, 6)}


def test_a_dict_of_maps_gives_its_finest() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse = nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 6, 2, 2)

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            fine = self.fine(image)
            return OrderedDict(coarse=self.coarse(fine), fine=fine)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = Pyramid()

        def forward(self, image: Tensor) -> Tensor:
            maps = self.backbone(image)
            logits: Tensor = maps["fine"].mean(dim=(2, 3)) + maps["coarse"].square().mean(dim=(2, 3))
            return logits

    torch.manual_seed(0)
    model, image = Model(), torch.rand(2, 3, 32, 32)
    assert grids(model, (32, 32), "backbone") == {"backbone": (8, 8)}
    explanation = GradCAM(model, target_layer="backbone", relu=False)(image, 1)
    assert explanation.resolution == (8, 8)
    assert explanation.diagnostics[0]["layer_found_by"] == "given"


def test_a_map_that_is_returned_beside_what_the_score_is_computed_from_is_not_explained() -> None:
    """As the base models of Transformers: they return the last map, and its mean, which the classifier reads."""

    class Base(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1))

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            last = self.encoder(image)
            return OrderedDict(last_hidden_state=last, pooler_output=last.mean(dim=(2, 3)))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = Base(), nn.Linear(6, 3)

        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = self.head(self.base(image)["pooler_output"])
            return logits

    torch.manual_seed(0)
    model, image = Model(), torch.rand(2, 3, 32, 32)
    assert grids(model, (32, 32)) == {"base.encoder": (8, 8)}
    expected = GradCAM(model, target_layer="base.encoder.2", relu=False)(image, 1).heatmap
    assert torch.equal(GradCAM(model, relu=False)(image, 1).heatmap, expected)
    assert expected.std() > 0


def test_two_last_layers_are_both_named() -> None:
    class TwoPaths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = (
                nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1)) for _ in "ab"
            )
            self.head = nn.Linear(12, 3)

        def forward(self, image: Tensor) -> Tensor:
            both = [path(image).relu().mean(dim=(2, 3)) for path in (self.left, self.right)]
            logits: Tensor = self.head(torch.cat(both, dim=1))
            return logits

    torch.manual_seed(0)
    with pytest.warns(TargetLayerWarning, match="'right', which is explained, and 'left'") as caught:
        explanation = GradCAM(TwoPaths())(torch.rand(2, 3, 32, 32))
    assert [warning.category for warning in caught].count(TargetLayerWarning) == 1  # of a layer, not of each image
    for image in explanation.diagnostics:
        assert image["target_layer"] == ["right"]
        assert "'left'" in image["warnings"][0]
    with pytest.warns(TargetLayerWarning, match="^in the prior, .*'right', which is explained, and 'left'") as caught:
        RankDescent(TwoPaths(), resolution=4, iterations=1)(torch.rand(2, 3, 32, 32))
    assert [warning.category for warning in caught].count(TargetLayerWarning) == 1


def test_a_network_at_which_no_change_shows_is_explained_with_a_warning() -> None:
    """The second convolution's signal is lost in rounding beside its bias; the third one's is zero, whatever the image."""
    lost, zero = nn.Conv2d(6, 6, 1), nn.Conv2d(3, 6, 4, 4)
    nn.init.constant_(lost.weight, 1e-12)
    nn.init.zeros_(zero.weight)
    image, head = torch.rand(1, 3, 32, 32), (nn.Flatten(), nn.Linear(6 * 64, 3))
    with pytest.warns(TargetLayerWarning, match="do not show behind '0', which is explained, as at '1'"):
        assert GradCAM(nn.Sequential(nn.Conv2d(3, 6, 4, 4), lost, *head))(image).diagnostics[0]["target_layer"] == ["0"]
    context = target_layers(nn.Sequential(zero, *head).eval(), None, None, image)
    assert list(context.layers) == ["0"]
    assert "show at no layer" in str(context.doubt)


class Mixing(nn.Module):
    """Positions are mixed at random, as by attention with random weights; a library may name the result."""

    def __init__(self, cells: int = 8) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU())
        self.mix = nn.Linear(cells * cells, cells * cells)
        self.stage = nn.Conv2d(6, 6, 1)

    def forward(self, image: Tensor) -> Tensor:
        mixed: Tensor = self.mix(self.patches(image).flatten(2)).unflatten(2, (8, 8))
        return self.stage(mixed)  # type: ignore[no-any-return]


class Classifying(nn.Module):
    """A head on the base model."""

    def __init__(self, base_model_prefix: str = "") -> None:
        super().__init__()
        self.base, self.head, self.base_model_prefix = Mixing(), nn.Linear(6, 3), base_model_prefix

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.base(image).relu().mean(dim=(2, 3)))
        return logits


@pytest.mark.parametrize(
    ("prefix", "info", "layer", "rule"),
    [
        ("", None, "base.patches", "the last layer whose positions follow the image"),
        ("", [{"module": "patches"}, {"module": "stage"}], "base.stage", "the last entry of timm's feature_info"),
        ("base", None, "base", "the last hidden state of a Transformers model"),
        ("", [{"module": "patches"}], "base.patches", "the last layer whose positions follow the image"),
        ("", [{"module": "no module"}], "base.patches", "the last layer whose positions follow the image"),
    ],
)
def test_a_feature_map_that_a_library_names_is_explained_where_random_weights_hide_the_places(
    prefix: str, info: Any, layer: str, rule: str
) -> None:
    torch.manual_seed(0)
    model = Classifying(prefix)
    model.base.feature_info = info
    with undisturbed(model):
        context = target_layers(model, None, None, torch.zeros(1, 3, 32, 32))
    assert list(context.layers) == [layer]
    assert context.found_by == rule
    assert next(len(rows) for rows, _ in context.centres.values()) == 8
    assert (context.doubt is not None and f"{layer!r}, which is explained because" in context.doubt) == ("follow" not in rule)


def test_an_mlp_over_tokens_counts_as_attention() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.models.mlp_mixer.MlpMixer(num_classes=4, img_size=32, patch_size=4, embed_dim=16, num_blocks=2)
    assert grids(model.eval(), (32, 32)) == {"blocks.1.norm1": (8, 8)}


@pytest.mark.parametrize("family", ["swin_transformer", "swin_transformer_v2"])
def test_the_output_of_attention_in_windows_is_refused(family: str) -> None:
    """Its first dimension is that of the windows of all images."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    small = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (1, 2), "num_heads": (1, 2), "num_classes": 4}
    model = getattr(getattr(timm.models, family), "SwinTransformerV2" if "v2" in family else "SwinTransformer")(**small)
    with pytest.raises(
        ValueError, match=r"'layers\.0\.blocks\.0\.attn' returns .* not one entry for each; give the block"
    ) as caught:
        GradCAM(model, target_layer="layers.0.blocks.0.attn")(torch.rand(1, 3, 32, 32))
    assert "\n" not in str(caught.value)


def test_attention_that_puts_its_windows_together_is_a_map() -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    sizes = {"depths": [1, 2], "num_heads": [1, 2], "window_size": [4, 4], "patch_size": [4, 4], "embed_dim": 16}
    model = torchvision.models.SwinTransformer(**sizes, num_classes=4).eval()
    assert grids(model, (32, 32), "features.1.0.attn") == {"features.1.0.attn": (8, 8)}


def test_a_member_that_is_called_module_keeps_its_name() -> None:
    class Members(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 4, 4)})
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = self.conv(self.module["conv"](image)).mean(dim=(2, 3))
            return logits

    model, image = Members(), torch.rand(1, 3, 32, 32)
    inner = model.module["conv"]
    assert find_layers(model, "conv", image) == {"conv": model.conv}
    assert find_layers(model, ["module.conv", "conv"], image) == {"module.conv": inner, "conv": model.conv}
    assert find_layers(nn.DataParallel(model), ["module.module.conv", "conv"], image) == {
        "module.conv": inner,
        "conv": model.conv,
    }


def test_an_exchanged_layer_is_looked_for_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4 * 64, 3))
    image = torch.rand(1, 3, 32, 32)
    named, default = GradCAM(model, target_layer="1", relu=False), GradCAM(model, relu=False)
    assert torch.equal(named(image, 0).heatmap, default(image, 0).heatmap)
    model[1] = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 2, 2))
    model[3] = nn.Linear(4 * 16, 3)
    fresh = GradCAM(model, relu=False)(image, 0)
    assert fresh.resolution == (4, 4)
    assert torch.equal(named(image, 0).heatmap, fresh.heatmap)
    assert torch.equal(default(image, 0).heatmap, fresh.heatmap)
