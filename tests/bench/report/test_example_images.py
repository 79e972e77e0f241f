"""The few images that are shown: the right maps, from the right rows, and none that is not theirs to show."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from bench.run_writer import RunWriter, failed, row
from PIL import Image
from torch import Tensor

from faithmap.bench.report import example_images, results
from faithmap.bench.report.analysis import Analysis, analyse
from faithmap.bench.report.example_images import ExampleImages, album, read_maps
from faithmap.bench.report.results import read_rows
from faithmap.bench.report.run_record import open_run


def analysed(writer: RunWriter) -> Analysis:
    run = open_run(writer.folder)
    return analyse(run, read_rows(run))


def shown(writer: RunWriter, each: int = 1, budget: int = 10**6, data: Path | None = None) -> ExampleImages:
    found = analysed(writer)
    return album(found, found.sections[0], each, data, budget)


def photo(writer: RunWriter, name: str, size: tuple[int, int] = (40, 32), left: str = "red", right: str = "blue") -> None:
    """A photograph, its left half of one colour and its right half of another."""
    folder = writer.folder.parent / "photos"
    folder.mkdir(exist_ok=True)
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, size[0], size[1]))
    image.save(folder / name)


def halves(text: str) -> list[float]:
    return np.frombuffer(base64.b64decode(text), "<f2").tolist()


def picture(uri: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))


def scored(method: str, index: int, insertion: float, **values: Any) -> dict[str, Any]:
    return row(method, index, deletion=0.0, insertion=insertion, **values)


def test_each_card_has_its_own_map_whatever_the_row_group(writer: RunWriter) -> None:
    writer.start(["a", "b"])
    for i in range(5):
        photo(writer, f"{i}.png")
    for name in "ab":
        shift = 100.0 * (name == "b")
        given = [scored(name, i, 0.1 * i, heatmap=np.array([[i, shift], [i + 1, 7.0]])) for i in range(5)]
        writer.unit(name, given, row_group_size=2)
    cards = shown(writer).cards
    assert [card.name for card in cards] == ["4.png", "0.png"]
    assert [halves(entry["data"]) for entry in cards[0].maps] == [[4, 0, 5, 7], [4, 100, 5, 7]]
    assert halves(cards[1].maps[1]["data"]) == [0, 100, 1, 7]
    assert cards[0].spoken == [("a", "", "0.000 / 0.400"), ("b", "", "0.000 / 0.400")]
    assert [entry["colour"] for entry in cards[0].maps] == [0, 1]
    assert cards[0].facts == "cat, probability 0.900"


def test_the_picture_is_the_middle_in_the_models_shape(writer: RunWriter) -> None:
    writer.start(["a"])
    photo(writer, "0.png", (400, 100), "red", "blue")
    writer.unit("a", [scored("a", 0, 0.5, size=[32, 32])])
    made = shown(writer)
    image = picture(made.cards[0].photograph)
    assert (image.size, made.cards[0].height) == ((100, 100), 100)
    assert np.abs(np.subtract(image.getpixel((5, 50)), (255, 0, 0))).max() < 12
    assert np.abs(np.subtract(image.getpixel((95, 50)), (0, 0, 255))).max() < 12
    blurred = picture(made.cards[0].blurred).getpixel((50, 50))
    assert 90 < blurred[0] < 165
    assert made.notes == ["The plan does not say how the model cuts its images: their middle is shown."]


def test_the_picture_is_cut_as_the_plan_says(writer: RunWriter) -> None:
    geometry = {"resize": 64, "crop": [32, 32], "interpolation": "bilinear"}
    writer.start(["a"], models=[{"name": "net", "geometry": geometry}])
    photo(writer, "0.png", (64, 64), "red", "blue")
    writer.unit("a", [scored("a", 0, 0.5)])
    made = shown(writer)
    assert (made.cards[0].width, made.notes) == (32, [])


def test_cells_are_put_where_the_games_were_played(writer: RunWriter) -> None:
    writer.start([{"id": "a", "resolution": 3}])
    placed = scored("a", 0, 0.5, size=[9, 9], heatmap=np.array([[0.0, 4.0]]), rows_at=[4.0], columns_at=[2.0, 6.0])
    writer.unit("a", [placed])
    found = analysed(writer)
    (entry,) = read_maps(found.run, found.sections[0], [0])[0]
    # columns of a 3 x 3 mask stand at pixels 0, 4 and 8: outside, in the middle, outside
    expected: Tensor = torch.tensor([[0.0, 2.0, 4.0]]).expand(3, 3)
    cells = entry.cells()
    assert cells is not None
    assert torch.equal(cells, expected)


def test_maps_of_several_shapes_come_as_lists(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [scored("a", i, 0.5, heatmap=np.arange(2.0 * (i + 1)).reshape(2, i + 1)) for i in range(3)])
    found = analysed(writer)
    assert found.sections[0].groups[0].resolution == "each map's own"
    read = read_maps(found.run, found.sections[0], [0, 2])
    assert [read[i][0].cells().tolist() for i in (0, 2)] == [[[0], [1]], [[0, 1, 2], [3, 4, 5]]]  # type: ignore[union-attr]


def test_a_map_that_ranks_nothing_has_no_ends(writer: RunWriter) -> None:
    writer.start(["a"])
    photo(writer, "0.png")
    writer.unit("a", [scored("a", 0, 0.5, heatmap=np.zeros((2, 2)))])
    assert shown(writer).cards[0].maps[0]["ends"] is None


def test_images_that_are_not_there_are_said(writer: RunWriter) -> None:
    writer.start(["a"])
    photo(writer, "0.png")
    (writer.folder.parent / "secret.png").write_bytes((writer.folder.parent / "photos" / "0.png").read_bytes())
    (writer.folder.parent / "photos" / "2.png").write_text("no picture")
    names = ["0.png", "../secret.png", "2.png", str(writer.folder.parent / "secret.png"), "5.png"]
    writer.unit("a", [scored("a", i, 0.1 * i, image=name) for i, name in enumerate(names)])
    made = shown(writer, each=9)
    assert [card.name for card in made.cards] == ["0.png"]
    notes = "\n".join(made.notes[1:])
    assert len(made.notes) == 5
    assert "../secret.png: is not shown" in notes
    assert "2.png: not an image that can be read" in notes
    assert "5.png" in notes


def test_moved_images_are_found(writer: RunWriter, tmp_path: Path) -> None:
    writer.start(["a"])
    photo(writer, "0.png")
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    writer.unit("a", [scored("a", 0, 0.5)])
    assert not shown(writer).cards
    assert len(shown(writer, data=tmp_path / "elsewhere").cards) == 1


def test_what_does_not_fit_is_left_out(writer: RunWriter) -> None:
    writer.start(["a"])
    for i in range(4):
        photo(writer, f"{i}.png")
    writer.unit("a", [scored("a", i, 0.1 * i) for i in range(4)])
    one = shown(writer, each=1).cards[0].letters
    made = shown(writer, each=2, budget=2 * one + one // 2)
    assert len(made.cards) == 2
    assert made.notes[-1] == "The 2 last images are left out, so that the page stays small."


def test_an_image_that_failed_for_one_method_is_not_chosen(writer: RunWriter) -> None:
    writer.start(["a", "b"])
    photo(writer, "0.png")
    writer.unit("a", [scored("a", 0, 0.5), scored("a", 1, 0.9)])
    writer.unit("b", [scored("b", 0, 0.5), failed("b", 1, "broken")])
    assert [card.name for card in shown(writer).cards] == ["0.png"]


def test_heatmaps_are_read_only_for_what_is_shown(writer: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 maps of 128 x 128 are 6.5 MB; a batch of their rows' numbers takes a small part of that, a row group a twentieth."""
    writer.start(["a"])
    heatmap = np.random.default_rng(0).random((128, 128))
    writer.unit("a", [scored("a", i, 0.5, heatmap=heatmap) for i in range(200)], row_group_size=10)
    before, held = pa.total_allocated_bytes(), []
    batches, made = results._batches, example_images._row

    def watched(*arguments: Any) -> Iterator[Any]:
        for batch in batches(*arguments):
            held.append(pa.total_allocated_bytes() - before)
            yield batch

    def watching(*arguments: Any) -> Any:
        held.append(pa.total_allocated_bytes() - before)
        return made(*arguments)

    monkeypatch.setattr(results, "_batches", watched)
    monkeypatch.setattr(example_images, "_row", watching)
    found = analysed(writer)
    assert max(held) < 2**19
    read_maps(found.run, found.sections[0], [0, 199])
    assert 2**17 < max(held) < 2**21


def test_cells_of_the_same_number_at_other_places_are_moved(writer: RunWriter) -> None:
    writer.start(["a"])
    placed = scored("a", 0, 0.5, size=[9, 9], heatmap=np.array([[0.0, 2.0, 8.0]]), rows_at=[4.0], columns_at=[1.0, 2.0, 8.0])
    writer.unit("a", [placed])
    found = analysed(writer)
    (entry,) = read_maps(found.run, found.sections[0], [0])[0]
    cells = entry.cells()
    assert cells is not None
    assert cells.tolist() == [[0, 4, 8]]
