"""The page shows the right images with the heatmaps of their own rows, and no file outside of the data set."""

from __future__ import annotations

import base64
import json
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
from faithmap.bench.report.example_images import ExampleImages, choose_images, make_examples, read_maps


def examples_of(writer: RunWriter, each: int = 1, limit: int = 10**6, data: Path | None = None) -> ExampleImages:
    found = writer.analysis()
    return make_examples(found, found.sections[0], each, data, limit)


def photo(writer: RunWriter, name: str, size: tuple[int, int] = (40, 32), left: str = "red", right: str = "blue") -> None:
    """Save an image with a left half of one colour and a right half of another."""
    folder = writer.folder.parent / "photos"
    folder.mkdir(exist_ok=True)
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, size[0], size[1]))
    image.save(folder / name)


def halves(text: str) -> list[float]:
    return [float(value) for value in np.frombuffer(base64.b64decode(text), "<f2")]


def picture(uri: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    colour = image.getpixel((x, y))
    assert isinstance(colour, tuple)
    return colour


def scored(method: str, index: int, insertion: float, **values: Any) -> dict[str, Any]:
    return row(method, index, deletion=0.0, insertion=insertion, **values)


def test_each_image_has_its_own_heatmaps_from_any_row_group(writer: RunWriter) -> None:
    writer.start(["a", "b"])
    for i in range(5):
        photo(writer, f"{i}.png")
    for name in "ab":
        shift = 100.0 * (name == "b")
        given = [scored(name, i, 0.1 * i, heatmap=np.array([[i, shift], [i + 1, 7.0]])) for i in range(5)]
        writer.unit(name, given, row_group_size=2)
    examples = examples_of(writer).images
    assert [image.name for image in examples] == ["4.png", "0.png"]
    assert [halves(entry["data"]) for entry in examples[0].maps] == [[4, 0, 5, 7], [4, 100, 5, 7]]
    assert halves(examples[1].maps[1]["data"]) == [0, 100, 1, 7]
    assert examples[0].captions == [("a", "", "0.000 / 0.400"), ("b", "", "0.000 / 0.400")]
    assert [entry["colour"] for entry in examples[0].maps] == [0, 1]
    assert examples[0].class_text == "cat, probability 0.900"


def test_without_geometry_the_middle_is_shown_in_the_shape_of_the_input(writer: RunWriter) -> None:
    writer.start(["a"])
    photo(writer, "0.png", (400, 100), "red", "blue")
    writer.unit("a", [scored("a", 0, 0.5, size=[32, 32])])
    made = examples_of(writer)
    image = picture(made.images[0].original)
    assert (image.size, made.images[0].height) == ((100, 100), 100)
    assert np.abs(np.subtract(pixel(image, 5, 50), (255, 0, 0))).max() < 12
    assert np.abs(np.subtract(pixel(image, 95, 50), (0, 0, 255))).max() < 12
    blurred = pixel(picture(made.images[0].blurred), 50, 50)
    assert 90 < blurred[0] < 165
    assert made.notes == ["The record of the run does not have the model's cropping: the middle of the images is shown."]


def test_the_image_is_cropped_as_in_the_record(writer: RunWriter) -> None:
    geometry = {"resize": 64, "crop": [32, 32], "interpolation": "bilinear"}
    writer.start(["a"], models=[{"name": "net", "geometry": geometry}])
    photo(writer, "0.png", (64, 64), "red", "blue")
    writer.unit("a", [scored("a", 0, 0.5)])
    made = examples_of(writer)
    assert (made.images[0].width, made.notes) == (32, [])


def test_a_heatmap_has_the_cells_of_the_deletion_and_insertion_test(writer: RunWriter) -> None:
    writer.start([{"id": "a", "resolution": 3}])
    placed = scored("a", 0, 0.5, size=[9, 9], heatmap=np.array([[0.0, 4.0]]), rows_at=[4.0], columns_at=[2.0, 6.0])
    writer.unit("a", [placed])
    found = writer.analysis()
    (entry,) = read_maps(found.run, found.sections[0], [0])[0]
    # columns of a 3 x 3 mask stand at pixels 0, 4 and 8: outside, in the middle, outside
    expected: Tensor = torch.tensor([[0.0, 2.0, 4.0]]).expand(3, 3)
    cells = entry.cells()
    assert cells is not None
    assert torch.equal(cells, expected)


def test_heatmaps_of_several_shapes_are_read_from_lists(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [scored("a", i, 0.5, heatmap=np.arange(2.0 * (i + 1)).reshape(2, i + 1)) for i in range(3)])
    found = writer.analysis()
    assert found.sections[0].groups[0].resolution == "each map's own"
    read = read_maps(found.run, found.sections[0], [0, 2])
    assert [read[i][0].cells().tolist() for i in (0, 2)] == [[[0], [1]], [[0, 1, 2], [3, 4, 5]]]  # type: ignore[union-attr]


def test_a_constant_heatmap_has_no_limits(writer: RunWriter) -> None:
    writer.start(["a"])
    photo(writer, "0.png")
    writer.unit("a", [scored("a", 0, 0.5, heatmap=np.zeros((2, 2)))])
    assert examples_of(writer).images[0].maps[0]["ends"] is None


def test_images_that_are_not_shown_are_noted(writer: RunWriter) -> None:
    writer.start(["a"])
    photo(writer, "0.png")
    (writer.folder.parent / "secret.png").write_bytes((writer.folder.parent / "photos" / "0.png").read_bytes())
    (writer.folder.parent / "photos" / "2.png").write_text("no picture")
    names = ["0.png", "../secret.png", "2.png", str(writer.folder.parent / "secret.png"), "5.png"]
    writer.unit("a", [scored("a", i, 0.1 * i, image=name) for i, name in enumerate(names)])
    made = examples_of(writer, each=9)
    assert [image.name for image in made.images] == ["0.png"]
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
    assert not examples_of(writer).images
    assert len(examples_of(writer, data=tmp_path / "elsewhere").images) == 1


def test_images_beyond_the_limit_are_left_out(writer: RunWriter) -> None:
    writer.start(["a"])
    for i in range(4):
        photo(writer, f"{i}.png")
    writer.unit("a", [scored("a", i, 0.1 * i) for i in range(4)])
    one = examples_of(writer, each=1).images[0].characters
    made = examples_of(writer, each=2, limit=2 * one + one // 2)
    assert len(made.images) == 2
    assert made.notes[-1] == "The 2 last images are left out, to limit the size of the page."


def test_an_image_that_failed_for_one_method_is_not_chosen(writer: RunWriter) -> None:
    writer.start(["a", "b"])
    photo(writer, "0.png")
    writer.unit("a", [scored("a", 0, 0.5), scored("a", 1, 0.9)])
    writer.unit("b", [scored("b", 0, 0.5), failed("b", 1, "broken")])
    assert [image.name for image in examples_of(writer).images] == ["0.png"]


def test_heatmaps_are_read_only_for_shown_images(writer: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 maps of 128 x 128 are 6.5 MB; a batch of their rows' numbers takes a small part of that, a row group a twentieth."""
    writer.start(["a"])
    heatmap = np.random.default_rng(0).random((128, 128))
    writer.unit("a", [scored("a", i, 0.5, heatmap=heatmap) for i in range(200)], row_group_size=10)
    initial, allocated = pa.total_allocated_bytes(), list[int]()
    shapes, method_map = results._shapes, example_images._method_map

    def shapes_noted(*arguments: Any) -> Any:
        allocated.append(pa.total_allocated_bytes() - initial)
        return shapes(*arguments)

    def method_map_noted(*arguments: Any) -> Any:
        allocated.append(pa.total_allocated_bytes() - initial)
        return method_map(*arguments)

    monkeypatch.setattr(results, "_shapes", shapes_noted)
    monkeypatch.setattr(example_images, "_method_map", method_map_noted)
    found = writer.analysis()
    assert max(allocated) < 2**19
    read_maps(found.run, found.sections[0], [0, 199])
    assert 2**17 < max(allocated) < 2**21


@pytest.mark.parametrize(("protocol", "expected"), [("igos", [0, 2, 8]), ("igos_resampled", [0, 4, 8])])
def test_cells_at_other_positions_are_resampled_if_the_test_did(writer: RunWriter, protocol: str, expected: list[int]) -> None:
    writer.start(["a"])
    writer.plan["metrics"][0]["settings"] = {"protocol": protocol}
    (writer.folder / "run.json").write_text(json.dumps(writer.plan))
    placed = scored("a", 0, 0.5, size=[9, 9], heatmap=np.array([[0.0, 2.0, 8.0]]), rows_at=[4.0], columns_at=[1.0, 2.0, 8.0])
    writer.unit("a", [placed])
    found = writer.analysis()
    (entry,) = read_maps(found.run, found.sections[0], [0])[0]
    cells = entry.cells()
    assert cells is not None
    assert cells.tolist() == [expected]


def test_images_are_chosen_by_the_mean_over_methods(writer: RunWriter) -> None:
    writer.start(["a", "b"])
    worth = {"a": (0.5, 0.9, 0.1, 0.8, 0.4), "b": (0.5, 0.8, 0.0, 0.0, 0.5)}
    for name, each in worth.items():
        writer.unit(name, [row(name, 10 + i, deletion=0.0, insertion=each[i]) for i in range(5)])
    section = writer.analysis().sections[0]
    chosen = choose_images(section, "insertion - deletion", True, 1)
    assert [(one.index, one.reason) for one in chosen] == [
        (11, "among the best"),
        (12, "among the worst"),
        (13, "with large differences between methods"),
    ]
    assert chosen[0].score == pytest.approx(0.85)
    assert [one.index for one in choose_images(section, "deletion", False, 9)] == [10, 14, 11, 13, 12]
    assert choose_images(section, None, True, 1) == []
