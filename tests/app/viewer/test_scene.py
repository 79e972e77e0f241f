"""The scene: plain data, with the library's own order, counts and places."""

from __future__ import annotations

import base64
import json
import math
from io import BytesIO
from typing import Any, Literal

import numpy as np
import pytest
import torch
from oracles import Patch
from PIL import Image
from torch import Tensor
from viewer_tools import HOSTILE

from faithmap import Explanation, Geometry, deletion_insertion
from faithmap.app.viewer.scene import MapPanel, PanelAreas, scene
from faithmap.metrics.functional import DeletionInsertion
from faithmap.metrics.functional.curves import PROTOCOLS, Curve

SIZE = (8, 12)
VIEW = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(3))
PHOTO = Image.new("RGB", (12, 8), "grey")


def made(*panels: MapPanel, **settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = scene(PHOTO, None, VIEW, torch.zeros_like(VIEW), panels, **settings)
    return found


def numbers(text: str, kind: str) -> list[float]:
    found: list[float] = np.frombuffer(base64.b64decode(text), kind).tolist()
    return found


def pixels(uri: str) -> Tensor:
    image = Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def curves(fractions: list[float], deletion: list[float], insertion: list[float], **settings: Any) -> DeletionInsertion:
    at = torch.tensor(fractions)
    first, second = (Curve(at, torch.tensor([scores])) for scores in (deletion, insertion))
    given: dict[str, Any] = {"protocol": PROTOCOLS["igos"], "resolution": (2, 3), **settings}
    return DeletionInsertion(first, second, **given)


def test_equal_cells_are_ranked_in_reading_order() -> None:
    panel = made(MapPanel("a", "cat", torch.tensor([[1.0, 2.0, 1.0], [2.0, 0.0, 1.0]])))["panels"][0]
    assert numbers(panel["places"], "<i4") == [2, 0, 3, 1, 5, 4]
    assert panel["ranked"] == [2, 3]
    assert numbers(panel["values"], "<f4") == [1, 2, 1, 2, 0, 1]


def test_steps_are_those_of_the_curves() -> None:
    measured = curves([0, 1 / 3, 1], [0.9, 0.5, 0.1], [0.1, 0.6, 0.9])
    found = made(MapPanel("a", "cat", torch.rand(2, 3), curves=measured, random=PanelAreas(0.5, 0.25)))
    panel = found["panels"][0]
    assert found["steps"] == 2
    assert panel["counts"] == [0, 2, 6]
    deletion, insertion = panel["curves"]["deletion"], panel["curves"]["insertion"]
    assert deletion["scores"] == pytest.approx([0.9, 0.5, 0.1])
    assert deletion["area"] == pytest.approx(1 / 3 * 0.7 + 2 / 3 * 0.3, abs=1e-6)
    assert insertion["area"] == pytest.approx(1 / 3 * 0.35 + 2 / 3 * 0.75, abs=1e-6)
    assert (deletion["random_area"], insertion["random_area"]) == (0.5, 0.25)


def test_an_unfinished_map_has_steps() -> None:
    found = made(MapPanel("a", "cat", torch.rand(2, 3)))
    assert (found["steps"], found["panels"][0]["curves"]) == (50, None)
    assert found["panels"][0]["counts"] == [0, 1, 2, 3, 4, 5, 6]


def test_counts_and_places_are_those_of_the_metric() -> None:
    model = Patch(slice(0, 4), slice(0, 6))
    explanation = Explanation(torch.rand(1, 5, 7), SIZE)
    protocols: tuple[tuple[Literal["igos", "rise"], int], ...] = (("igos", 35), ("rise", 96))
    for protocol, cells in protocols:
        proof = deletion_insertion(model, VIEW, explanation, 0, protocol=protocol, steps=9)
        panel = made(MapPanel("a", "cat", explanation.heatmap[0], explanation, proof))["panels"][0]
        assert len(numbers(panel["places"], "<i4")) == cells
        assert panel["counts"] == [round(cells * i / 9) for i in range(10)]


def test_cells_with_positions_are_ranked_as_in_the_metric() -> None:
    placed = Explanation(
        torch.tensor([[[0.0, 2.0, 8.0]]]), (9, 9), rows=torch.tensor([4.0]), columns=torch.tensor([1.0, 2.0, 8.0])
    )
    view = torch.zeros(1, 3, 9, 9)
    found: Any = scene(Image.new("RGB", (9, 9)), None, view, view, [MapPanel("a", "cat", placed.heatmap[0], placed)])
    panel = found["panels"][0]
    assert (panel["rows"], panel["columns"]) == ([4], [1, 2, 8])
    assert numbers(panel["places"], "<i4") == [2, 1, 0]
    assert placed.cells.flatten().tolist() == [0, 4, 8]


def test_curves_of_another_resolution_rank_the_map_at_it() -> None:
    explanation = Explanation(torch.tensor([[[0.0, 4.0], [2.0, 6.0]]]), SIZE)
    measured = curves([0, 1], [1, 0], [0, 1], resolution=(1, 3))
    panel = made(MapPanel("a", "cat", explanation.heatmap[0], explanation, measured))["panels"][0]
    assert panel["ranked"] == [1, 3]
    assert numbers(panel["places"], "<i4") == [2, 1, 0]


def test_the_input_of_the_model_is_lossless() -> None:
    found = made(MapPanel("a", "cat", torch.rand(2, 3)))
    assert torch.equal(pixels(found["view"]), VIEW[0].mul(255).round().byte())
    assert int(pixels(found["blurred"]).max()) == 0


def test_the_window_is_the_geometrys() -> None:
    geometry = Geometry(10, (8, 8))
    view = geometry(torch.zeros(1, 3, 40, 20))
    found: Any = scene(Image.new("RGB", (20, 40)), geometry, view, view, [MapPanel("a", "cat", torch.rand(4, 4))])
    # 40 x 20 becomes 20 x 10, of which rows 6 to 14 and columns 1 to 9 are seen
    assert found["window"] == pytest.approx([0.3, 0.1, 0.4, 0.8])


def test_a_large_photograph_is_sent_small() -> None:
    view = torch.zeros(1, 3, 8, 8)
    found: Any = scene(Image.new("RGB", (3000, 2000)), Geometry((8, 8)), view, view, [MapPanel("a", "cat", torch.rand(4, 4))])
    assert found["size"] == [640, 960]
    assert len(json.dumps(found)) < 50_000


def test_a_scene_is_plain_data_also_with_nan_and_infinity() -> None:
    values = torch.tensor([[math.nan, 1.0], [math.inf, 2.0]])
    measured = curves([0, 1], [math.nan, 0], [0, 1], resolution=(2, 2))
    panels = [
        MapPanel("a", "cat", values, curves=measured, random=PanelAreas(math.nan, 0.5)),
        MapPanel("b", "cat", torch.ones(2, 2)),
    ]
    found = made(*panels, agreement=[[1, math.nan], [math.nan, 1]])
    json.dumps(found, allow_nan=False)
    first, second = found["panels"]
    assert first["flaw"] == "values that are not finite: ranks nothing"
    assert second["flaw"] == "one value everywhere: ranks nothing"
    assert (first["ends"], second["ends"]) == (None, None)
    assert first["curves"]["deletion"]["scores"] == [None, 0]
    assert found["agreement"] == [[1, None], [None, 1]]


def test_text_becomes_one_line_and_is_otherwise_unchanged() -> None:
    panel = made(MapPanel(HOSTILE + "\n", "a\x1bb", torch.rand(2, 2), facts={"x\r": "y\0"}, warnings=["no\nline"]))["panels"][0]
    assert panel["name"] == HOSTILE + "\\n"
    assert panel["target"] == "a\\x1bb"
    assert (panel["facts"], panel["warnings"]) == ([["x\\r", "y\\x00"]], ["no\\nline"])


@pytest.mark.parametrize(
    ("level", "kind"),
    [("supported", "good"), ("mixed", "mixed"), ("undecided", "mixed"), ("unsupported", "bad"), ("unrecognised", "bad")],
)
def test_the_verdict_is_that_of_the_jury(level: Any, kind: str) -> None:
    view = torch.zeros(1, 3, 8, 8)
    panel = MapPanel("Grad-CAM", "tabby", torch.rand(4, 4), verdict=(level, "for all jurors"))
    made: Any = scene(Image.new("RGB", (8, 8)), None, view, view, [panel])
    assert made["panels"][0]["verdict"] == [kind, "Jury: for all jurors."]


def test_random_maps_have_a_mean() -> None:
    at = torch.tensor([0.0, 1.0])
    two = DeletionInsertion(
        Curve(at, torch.tensor([[1.0, 0.0], [0.5, 0.0]])),
        Curve(at, torch.tensor([[0.0, 1.0], [0.0, 0.0]])),
        PROTOCOLS["igos"],
        (1, 1),
    )
    assert PanelAreas.of(two) == PanelAreas(0.375, 0.25)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shown": []}, "one to four"),
        ({"shown": [MapPanel("a", "b", torch.rand(2, 2))] * 5}, "one to four"),
        ({"difference": True}, "give two"),
        ({"agreement": [[1, 2], [3, 4]]}, "no table of 1 by 1"),
        ({"view": torch.zeros(1, 3, 8, 8)}, "as the geometry cuts them"),
        ({"blurred": torch.zeros(1, 3, 8, 8)}, "as the geometry cuts them"),
        ({"shown": [MapPanel("a", "b", torch.rand(2, 2), Explanation(torch.rand(1, 3, 3), SIZE))]}, "those of one image"),
        ({"shown": [MapPanel("a", "b", torch.rand(2, 2), Explanation(torch.rand(2, 2, 2), SIZE))]}, "those of one image"),
        ({"shown": [MapPanel("a", "b", torch.rand(2, 2), Explanation(torch.rand(1, 2, 2), (9, 9)))]}, "those of one image"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    given = {"shown": [MapPanel("a", "b", torch.rand(2, 2))], "view": VIEW, "blurred": VIEW, **change}
    with pytest.raises(ValueError, match=words):
        scene(PHOTO, None, given.pop("view"), given.pop("blurred"), given.pop("shown"), **given)
