"""A specification is loaded from TOML, YAML or a ready-made name; an error is one line with the file's line and the field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faithmap.bench.report.run_record import Published
from faithmap.bench.spec import load_spec, parse_spec, published_numbers, read_spec, ready_names, ready_text, template
from faithmap.errors import BenchError

GOOD = """\
name = "x"
models = ["lite0"]
metrics = ["deletion_insertion"]
[data]
path = "p"
[[methods]]
name = "igos"
resolution = [28, 14]
[[methods]]
name = "gradcam"
"""

YAML = """\
name: x
models: [lite0]
metrics:
  - deletion_insertion
data:
  path: p
methods:
  - name: igos
    resolution: [28, 14]
  - gradcam
"""


def test_toml_and_yaml_give_the_same_specification() -> None:
    assert parse_spec(GOOD, "a") == parse_spec(YAML, "a", yaml=True)


def test_a_method_has_a_row_for_each_resolution() -> None:
    methods = parse_spec(GOOD, "a").methods
    assert [m.id_at(r) for m in methods for r in m.resolutions] == ["igos-28", "igos-14", "gradcam"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"igos"', '"igoss"', "a.toml, line 7, methods 1, name: 'igoss' is no method; did you mean igos or igos_plus?"),
        ('path = "p"', 'pat = "p"', "a.toml, line 5, data, pat: there is no such field"),
        ("[28, 14]", "[28, 0]", "a.toml, line 8, methods 1, resolution"),
        ("[28, 14]", '"x"', "a.toml, line 8, methods 1, resolution: input should be a valid integer"),
        (
            '"gradcam"',
            '"igos"\nresolution = 28',
            "line 6, methods: 2 methods are called 'igos-28'; give each its own id",
        ),
        ('["lite0"]', "[3]", "a.toml, line 2, models 1: '3' is no table of fields; give one"),
        ('["lite0"]', "[]", "a.toml, line 2, models: list should have at least 1 item"),
        ('["lite0"]', '["a", "a"]', "a.toml, line 2, models: 2 models are called 'a'"),
        ('name = "x"', "seed = -1", "a.toml, line 1, seed: input should be greater than or equal to 0, not '-1'"),
        (
            '["deletion_insertion"]',
            '["pointing_game"]',
            "a.toml, line 3, metrics: pointing_game needs boxes of the objects",
        ),
        ('["deletion_insertion"]', '["deletion"]', "a.toml, line 3, metrics 1: 'deletion' is no metric"),
        (
            '["deletion_insertion"]',
            '[{name = "road", settings = {noise = 1}}]',
            "'noise' is no setting of road; did you mean noise_std?",
        ),
        (
            '["deletion_insertion"]',
            '["road", "road"]',
            "a.toml, line 3, metrics: 2 metrics are called 'road'; give",
        ),
        ('path = "p"', 'path = "p"\nkind = "coco"', "coco needs annotations"),
        (
            'path = "p"',
            'path = "p"\noutlines = true',
            "folder has no outlines of the objects, only coco has; leave outlines out",
        ),
        ('path = "p"', 'path = "p"\ntarget = "label"', "a folder has no labels"),
        ("[data]", "[data", "a.toml, line 4: Expected ']'"),
        ("[data]\n", "", "a.toml, line 5, path: there is no such field"),
    ],
)
def test_an_error_names_the_line_and_the_field(old: str, new: str, message: str) -> None:
    if new == "":
        message = message.replace("line 5", "line 4")
    with pytest.raises(BenchError) as caught:
        parse_spec(GOOD.replace(old, new), "a.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


MULTILINE = """\
name = "x"
models = [
    "lite0",
]
[data]
path = "p"
classes.a = \'\'\'
[[methods]]
name = 1
\'\'\'
[[methods]]
name = "igos"
settings = { text = \"\"\"
[[methods]]
[data]
\"\"\" }
[[methods]]
label = """


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ('"b"', "a.toml, line 17, methods 2, name: is missing"),
        ('"b"\nname = "gradcamm"', "a.toml, line 19, methods 2, name: 'gradcamm' is no method"),
        ('"b"\nname = "gradcam"\nresolution = [\n    28,\n    0,\n]', "a.toml, line 20, methods 2, resolution"),
        ('"""\n[[methods]]\nnam = """\nname = "gradcam"\nnam = "y"', "a.toml, line 22, methods 2, nam: there is no such field"),
    ],
)
def test_lines_are_right_after_values_over_several_lines(label: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        parse_spec(MULTILINE + label, "a.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[28, 14]", "many", "a.yaml, line 9, methods 1, resolution"),
        ("  - gradcam", "  - grad", "a.yaml, line 10, methods 2"),
        ("models: [lite0]", "models: [lite0", "a.yaml, line 3: "),
        ("name: x\n", "name: x\nnme: y\n", "a.yaml, line 2, nme: there is no such field"),
    ],
)
def test_an_error_in_yaml_names_the_line(old: str, new: str, message: str) -> None:
    with pytest.raises(BenchError) as caught:
        parse_spec(YAML.replace(old, new), "a.yaml", yaml=True)
    assert message in str(caught.value)


def test_yaml_makes_no_objects() -> None:
    with pytest.raises(BenchError, match="could not determine a constructor"):
        parse_spec("name: !!python/object/apply:os.system ['true']", "a.yaml", yaml=True)


@pytest.mark.parametrize(("text", "yaml"), [("a = " + "[" * 5000, False), ("{a: " * 3000, True)])
def test_deep_nesting_is_refused(text: str, yaml: bool) -> None:
    with pytest.raises(BenchError, match="a: lists or tables are nested too deeply; give a specification"):
        parse_spec(text, "a", yaml=yaml)


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(BenchError, match="a, the file: 'None' is no table of fields; give one"):
        parse_spec("", "a", yaml=True)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot be read"):
        read_spec(tmp_path / "no.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(BenchError, match="not UTF-8"):
        read_spec(tmp_path / "latin.toml")
    with pytest.raises(BenchError, match=r"is no specification; did you mean igos-table"):
        load_spec("igos-table9")


def test_the_template_is_valid_and_so_are_its_comments() -> None:
    assert [m.name for m in parse_spec(template(), "t").methods] == ["rank_descent", "igos", "gradcam", "random_map"]
    lines = [re.sub(r"^# (?=\w+ = |\[\[)", "", line) for line in template().splitlines() if not line.startswith("# factory")]
    whole = parse_spec("\n".join(lines).replace('"folder"', '"csv"'), "t")
    assert (whole.data.sample, whole.autocast, whole.metrics[1].name) == (500, "bfloat16", "infidelity")


@pytest.mark.parametrize("name", ready_names())
def test_published_numbers_fit_their_specification(name: str) -> None:
    spec, published = parse_spec(ready_text(name), name), published_numbers(name)
    ids = {m.id_at(r) for m in spec.methods for r in m.resolutions}
    columns = {column for metric in spec.metrics for column in metric.columns} | {"seconds"}
    Published.model_validate(published)
    assert spec.name == spec.published == name
    for table in published["tables"]:
        for row in table["rows"]:
            assert row["method"] is None or row["method"] in ids
            assert set(row["values"]) <= set(table["metrics"]) <= columns


@pytest.mark.parametrize("name", ready_names())
def test_a_missing_data_set_is_named_with_its_source(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError) as caught:
        load_spec(name)
    message = str(caught.value)
    assert re.match(
        rf"{name}, line \d+, data, path: \S+ does not exist; create it from (ILSVRC|VOC).* or give --images FOLDER$", message
    )
    (tmp_path / parse_spec(ready_text(name), name).data.path).mkdir(parents=True)
    assert load_spec(name).spec.name == name


def test_published_numbers_are_those_of_the_paper() -> None:
    def value(name: str, method: str, column: str, table: int = 0) -> float:
        rows = published_numbers(name)["tables"][table]["rows"]
        return float(next(row["values"][column] for row in rows if row["method"] == method))

    assert value("igos-table1", "igos-224", "deletion") == 0.0336
    assert value("igos-table1", "rise", "insertion") == 0.5139
    assert value("igos-table2", "mask-7", "insertion") == 0.6003
    assert value("igos-table3", "igos-14", "seconds") == 5.63
    assert value("igos-table4", "igos-no-noise-28", "insertion") == 0.5634
    assert value("igos-table5", "mask-1-20", "objective") == 0.6794
    assert value("igos-table6", "igos-14", "pointing_game") == 0.8581
    assert value("igos-table6", "igos-14", "pointing_game", table=1) == 0.4716


@pytest.mark.parametrize("name", ["igos-table1", "igos-table2"])
def test_every_published_number_of_the_main_tables_has_a_row_of_its_resolution(name: str) -> None:
    spec = parse_spec(ready_text(name), name)
    resolutions = {method.id_at(r): r for method in spec.methods for r in method.resolutions}
    for row in published_numbers(name)["tables"][0]["rows"]:
        assert resolutions[row["method"]] in (None, int(row["resolution"].split("x")[0]))


def test_the_command_line_replaces_models_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "igos-table6").mkdir()  # as --out igos-table6 leaves it
    request = load_spec("igos-table6", models=["efficientnet_lite0"], images=tmp_path, sample=3)
    assert [model.name for model in request.spec.models] == ["efficientnet_lite0"]
    assert (request.spec.data.kind, request.spec.data.path, request.spec.data.sample) == ("folder", tmp_path, 3)
    assert [metric.name for metric in request.spec.metrics] == ["deletion_insertion"], "the pointing game needs boxes"
    assert request.source[1].startswith(b"# changed on the command line: --model efficientnet_lite0 --images ")
