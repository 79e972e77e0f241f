"""Data sets are listed from their own layouts, each item with the model's class that it stands for."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from pathlib import Path

import pytest
from bench.tiny_bench import Bench, rows, tiny_model
from PIL import Image

from faithmap.bench.dataset import DatasetIndex, DatasetItem, ImageReader, ShardedDataset, open_source
from faithmap.bench.evaluate import ModelCache
from faithmap.bench.plan import Tasks, Unit
from faithmap.bench.planning import check_targets, make_plan
from faithmap.bench.run import run
from faithmap.bench.spec import DataSpec, parse_spec, read_spec
from faithmap.errors import BenchError

VOC = """<annotation><filename>{name}.jpg</filename><size><width>24</width><height>20</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>12</xmax><ymax>20</ymax></bndbox></object>
<object><name>cat</name><difficult>{difficult}</difficult>
<bndbox><xmin>13</xmin><ymin>1</ymin><xmax>24</xmax><ymax>20</ymax></bndbox></object></annotation>"""


def listed(**data: object) -> list[tuple[str, int | str | None, str | None]]:
    source = open_source(DataSpec.model_validate(data))
    return [(item.path, item.target, item.label) for item in source.items(0)]


def jpeg(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 20), (200, 100, 50)).save(path)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2007"
    for number, difficult in enumerate((0, 1)):
        name = f"{number:06d}"
        jpeg(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(VOC.format(name=name, difficult=difficult))
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "test.txt").write_text("000000\n000001\n")
    return root


def test_a_folder_is_listed_by_path_and_sampled_by_seed(bench: Bench) -> None:
    bench.photo("sub/a.png", 1)
    assert [path for path, *_ in listed(path=bench.home / "photos")] == [*(f"{i}.png" for i in range(7)), "sub/a.png"]
    source = open_source(DataSpec(path=bench.home / "photos", sample=3))
    first, again, *other = (list(source.items(seed)) for seed in (0, 0, 1, 2, 3, 4, 5))
    assert first == again
    assert first == sorted(first)
    assert any(sample != first for sample in other)
    assert {item.number for item in first} <= set(range(8)), "the number in the data set, not in the sample"


def test_an_index_returns_the_items_it_was_made_of() -> None:
    odd = [
        DatasetItem(4, "é/\udce9 ☂.png", -1),
        DatasetItem(2**40, "", 2**40, 3, "dog", 0),
        DatasetItem(5, "c", 1, "3", "dog", 2**33),
        DatasetItem(6, "d", 2, 3),
    ]
    index = DatasetIndex(odd)
    assert list(index) == odd == index[:]
    assert (index[-1], index[1:3], index[::-2], index[9:]) == (odd[-1], odd[1:3], odd[::-2], [])
    with pytest.raises(IndexError):
        index[4]
    assert ShardedDataset(index, 3).digests() == ShardedDataset(odd, 3).digests()


def test_an_item_of_an_index_takes_little_more_than_its_name() -> None:
    name = "n01440764/ILSVRC2012_val_{:08d}.JPEG"
    classes = [(number, f"n{number:08d}") for number in range(10)]
    tracemalloc.start()
    held = DatasetIndex(DatasetItem(i, name.format(i), 10**5, *classes[i % 10], annotation=i) for i in range(20_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(held) == 20_000
    assert peak < 20_000 * (len(name) + 65), peak / 20_000


def test_tasks_are_made_on_access(bench: Bench) -> None:
    plan = make_plan(read_spec(bench.spec), bench.home, ModelCache("cpu"))
    units = list(plan.units())
    tasks = Tasks(plan, units)
    assert (len(tasks), list(tasks), tasks[1:3][1]) == (9, [plan.task(unit) for unit in units], plan.task(units[2]))
    assert isinstance(tasks[0].unit, Unit)
    assert tasks[0] is not tasks[0]


def test_a_csv_file_names_images_and_classes(bench: Bench) -> None:
    table = bench.home / "list.csv"
    table.write_text("path,target\nphotos/1.png,2\nphotos/0.png,dog\n")
    assert listed(kind="csv", path=table, target="label") == [("photos/1.png", 2, None), ("photos/0.png", "dog", "dog")]
    assert [target for _, target, _ in listed(kind="csv", path=table)] == [None, None]
    bench.write('path = "photos"', 'kind = "csv"\npath = "list.csv"\ntarget = "label"')
    run(read_spec(bench.spec), bench.home / "out", base=bench.home)
    found = rows(bench.home / "out")
    labels = {(row["image"], row["target"], row["label"]) for row in found}
    assert labels == {("photos/1.png", 2, "cow"), ("photos/0.png", 1, "dog")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file\na.png\n", "has no column 'path'"),
        ("path\na.png\n", "has no column 'target'"),
        ("path,target\n../a.png,1\n", "names a file '../a.png'"),
        ("path,target\n", "holds no images"),
        ("path,target\na.png,1\nb.png,\n", "image 2 has no target; give one, or explain the predicted class"),
        ("path,target\na.png\n", "image 1 has no target"),
        ('path,target\n"a', "no table"),
    ],
)
def test_invalid_csv_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(BenchError, match=message):
        listed(kind="csv", path=tmp_path / "list.csv", target="label")


def test_the_class_of_an_imagenet_image_is_its_folder(tmp_path: Path) -> None:
    jpeg(tmp_path / "val" / "n01440764" / "a.JPEG")
    jpeg(tmp_path / "val" / "n01443537" / "b.JPEG")
    given = {"kind": "imagenet", "path": tmp_path / "val"}
    assert [target for _, target, _ in listed(**given, target="label")] == [0, 1]
    assert [target for _, target, _ in listed(**given)] == [None, None]
    jpeg(tmp_path / "val" / "c.JPEG")
    with pytest.raises(BenchError, match="is in no class folder such as n01440764"):
        listed(**given, target="label")


def test_voc_has_an_item_for_each_class_unless_all_its_objects_are_difficult(voc: Path) -> None:
    found = listed(kind="voc", path=voc)
    names = [f"JPEGImages/00000{i}.jpg" for i in range(2)]
    assert found == [(names[0], 11, "dog"), (names[0], 7, "cat"), (names[1], 11, "dog")]
    source = open_source(DataSpec(kind="voc", path=voc))
    assert source.objects(source.items(0)[1]).tolist() == [[12, 0, 24, 20]]
    assert [item.number for item in source.items(0)] == [0, 1, 2]


def test_objects_of_coco_are_boxes_or_on_request_outlines(tmp_path: Path) -> None:
    jpeg(tmp_path / "val" / "a.jpg")
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 20, "width": 24}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {
                "image_id": 5,
                "category_id": 9,
                "bbox": [0, 0, 24, 10],
                "iscrowd": 0,
                "segmentation": {"size": [20, 24], "counts": [0, 240, 240]},
            }
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = DataSpec(kind="coco", path=tmp_path / "val", annotations=tmp_path / "a.json")
    boxes, outlines = (open_source(data.model_copy(update={"outlines": wanted})) for wanted in (False, True))
    (item,) = boxes.items(0)
    assert (item.target, item.label) == (1, "dog")
    assert boxes.objects(item).tolist() == [[0, 0, 24, 10]]
    assert outlines.objects(item).shape == (1, 20, 24)
    assert int(outlines.objects(item).sum()) == 240


def test_class_numbers_of_the_data_set_are_not_mistaken_for_the_models(bench: Bench, voc: Path) -> None:
    text = """
    models = [{name = "tiny", factory = "tiny_bench_model:make"}]
    methods = [{name = "random_map", settings = {resolution = 4}}, "edges"]
    metrics = ["pointing_game", "energy_pointing_game", "relevance_rank"]
    [data]
    kind = "voc"
    path = "VOC2007"
    """
    with pytest.raises(BenchError, match=r"3 classes, voc has 20; give in \[data.classes\] the model's class for 'dog'"):
        run(parse_spec(text, "t"), bench.home / "out", base=bench.home)
    mapped = text + 'classes = {dog = "dog", cat = 0}\n'
    run(parse_spec(mapped, "t"), bench.home / "out", base=bench.home)
    found = rows(bench.home / "out")
    assert [(row["index"], row["label"], row["target"]) for row in found[:3]] == [(0, "dog", 1), (1, "cat", 0), (2, "dog", 1)]
    assert not any(row["error"] for row in found)
    for row in found:
        assert row["pointing_game"] in (0.0, 1.0)
        assert 0 <= row["energy_pointing_game"] <= 1
    share = {row["index"]: row["relevance_rank"] for row in found if row["method"] == "edges"}
    assert share[0] + share[1] == pytest.approx(1, abs=0.05), "the two objects share the image"


def test_a_class_that_the_model_does_not_have_is_refused(bench: Bench) -> None:
    (bench.home / "list.csv").write_text("path,target\nphotos/1.png,3\n")
    data = DataSpec(kind="csv", path=bench.home / "list.csv", target="label")
    with pytest.raises(BenchError, match="3 is no class of tiny, which has 3"):
        check_targets(tiny_model(), ShardedDataset(open_source(data).items(0), 4), data, 3)


def test_a_damaged_annotation_is_named(voc: Path) -> None:
    (voc / "Annotations" / "000001.xml").write_text("<annotation>")
    with pytest.raises(BenchError, match=r"000001\.xml"):
        listed(kind="voc", path=voc)


def test_warnings_of_an_image_are_stored_with_it_and_pythons_filters_stay(tmp_path: Path) -> None:
    """Two threads that read at once do not exchange them."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    for number in range(4):
        frames[0].save(tmp_path / f"{number}.gif", save_all=True, append_images=frames[1:])
        frames[0].save(tmp_path / f"{number}.png")
    reader = ImageReader(open_source(DataSpec(kind="folder", path=tmp_path)), boxes=False)
    initial = (list(warnings.filters), warnings.showwarning)
    try:
        items = [DatasetItem(number, f"{number}.{kind}", -1) for number in range(4) for kind in ("gif", "png")]
        loaded = [future.result() for future in reader.start(items, tiny_model())]
    finally:
        reader.close()
    assert [image.error for image in loaded] == [None] * 8
    assert [len(image.warnings) for image in loaded] == [1, 0] * 4
    assert loaded[0].warnings == ["has several frames, of which the first is read"]
    assert (list(warnings.filters), warnings.showwarning) == initial
