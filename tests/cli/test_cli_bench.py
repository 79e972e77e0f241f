"""``faithmap bench``, as its users call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.tiny_bench import rows
from cli_tools import Cli, ListFiles, Loads, WriteImage

pytest.importorskip("pydantic")
pytest.importorskip("pyarrow")

from faithmap.bench.run import RunProgress
from faithmap.cli.bench_run import line_of

SPEC = """
name = "tiny"
models = ["spots"]
shard_size = 2
[data]
path = "photos"
[[methods]]
name = "gradient"
[[methods]]
name = "random_map"
settings = { resolution = 4 }
[[metrics]]
name = "deletion_insertion"
settings = { steps = 3 }
"""


@pytest.fixture
def spec(tmp_path: Path, photo: WriteImage, loads: Loads) -> Path:
    for i in range(3):
        photo(f"photos/{i}.png", i)
    path = tmp_path / "spec.toml"
    path.write_text(SPEC)
    return path


def test_what_init_writes_can_be_planned_and_run(faith: Cli, photo: WriteImage, loads: Loads, tmp_path: Path) -> None:
    photo("images/a.png")
    done = faith("bench", "init")
    assert (done.code, done.err) == (0, "")
    assert done.out == "benchmark.toml; estimate its cost with: faithmap bench plan benchmark.toml\n"
    text = (tmp_path / "benchmark.toml").read_text().replace("resolution = [28, 14]", "resolution = [8, 4]")
    (tmp_path / "benchmark.toml").write_text(text.replace('"gradcam"', '"gradient"').replace("= 28 }", "= 4 }"))
    assert faith("bench", "plan", "benchmark.toml", "--passes-per-second", 100).code == 0
    assert faith("bench", "run", "benchmark.toml").code == 0
    found = rows(tmp_path / "faithmap-bench" / "my-benchmark")
    assert [row["method"] for row in found] == [
        "gradient",
        "igos-4",
        "igos-8",
        "random_map",
        "rank_descent-4",
        "rank_descent-8",
    ]
    assert not any(row["error"] for row in found)
    assert loads[0] == ("efficientnet_lite0", None, None), "to plan, the first model is put where nobody asked otherwise"


def test_init_replaces_nothing(faith: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("x")
    assert "mine.toml exists; give --overwrite" in faith("bench", "init", "mine.toml").complaint
    assert (tmp_path / "mine.toml").read_text() == "x"
    assert faith("bench", "init", "mine.toml", "--overwrite").code == 0
    assert "ends in .toml" in faith("bench", "init", "mine.yaml").complaint
    assert "cannot be written" in faith("bench", "init", "no/mine.toml").complaint


def test_a_run_prints_a_summary_and_is_resumed(faith: Cli, spec: Path, tmp_path: Path) -> None:
    done = faith("bench", "run", spec, "--device", "cpu")
    assert done.code == 0
    assert done.out.startswith("faithmap-bench/tiny: 4 units done in ")
    assert done.out.endswith(", 4 of 4 are complete\n")
    first, *_, last = done.err.splitlines()
    assert first == "0 of 4 units"
    assert last.startswith("4 of 4 units, ")
    assert "images/s" in last
    again = faith("bench", "run", spec, "--device", "cpu")
    assert again.out == "faithmap-bench/tiny: nothing to do, 4 of 4 are complete\n"
    kept = tmp_path / "faithmap-bench" / "tiny"
    assert (kept / "spec.toml").read_text() == SPEC
    assert json.loads((kept / "run.json").read_text())["units"] == 4


def test_json_lines_are_one_object_per_line(faith: Cli, spec: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "1.png").write_bytes(b"x")
    done = faith("bench", "run", spec, "--json-lines", "--out", "r")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["event"] for event in events] == ["start", "unit", "unit", "unit", "unit", "end"]
    assert [event["done"] for event in events] == [0, 1, 2, 3, 4, 4]
    assert (events[-1]["failed"], events[-1]["images"], events[-1]["out"]) == (2, 6, "r")
    assert events[1]["method"] == "gradient"
    assert done.err == ""


def test_failures_are_printed_and_can_be_repeated(faith: Cli, spec: Path, photo: WriteImage, tmp_path: Path) -> None:
    good = (tmp_path / "photos" / "1.png").read_bytes()
    (tmp_path / "photos" / "1.png").write_bytes(b"x" * len(good))
    done = faith("bench", "run", spec, "--out", "r")
    assert (done.code, done.out.splitlines()[1]) == (0, "2 rows with an error; --retry-failed repeats their units")
    (tmp_path / "photos" / "1.png").write_bytes(good)
    again = faith("bench", "run", spec, "--out", "r", "--retry-failed")
    assert again.out.startswith("r: 2 units done in ")
    assert "error" not in again.out


def test_plurals_and_rates(faith: Cli, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faith("bench", "run", spec, "--out", "r")
    unit = next((tmp_path / "r" / "units").glob("gradient-00000-*"))
    unit.write_bytes(b"x")
    done = faith("bench", "run", spec, "--out", "r")
    damaged, summary = done.out.splitlines()
    assert damaged == f"repeated because of damage: 1 file, the first is {unit.stem}"
    assert summary.startswith("r: 1 unit done in ")
    (tmp_path / "photos" / "0.png").rename(tmp_path / "0.png")
    (tmp_path / "photos" / "1.png").rename(tmp_path / "1.png")
    planned = faith("bench", "plan", spec, "--passes-per-second", 10)
    assert "2 units, 1 image, " in planned.out
    monkeypatch.setattr(RunProgress, "seconds", 2.0)
    fast = RunProgress(1000, 0, done=500, images=8000)
    assert line_of(fast).startswith("500 of 1000 units, 250 units/s, 4,0")


def test_a_script_that_ends_itself_is_no_model(faith: Cli, spec: Path, tmp_path: Path) -> None:
    (tmp_path / "quits.py").write_text("raise SystemExit(0)")
    spec.write_text(SPEC.replace('["spots"]', '[{name = "mine", factory = "quits:load"}]'))
    assert "model mine: quits:load failed (SystemExit: 0)" in faith("bench", "run", spec).complaint


def test_a_plan_estimates_the_cost(faith: Cli, spec: Path, tree: ListFiles) -> None:
    initial = tree()
    done = faith("bench", "plan", spec, "--passes-per-second", 10, "--json")
    found = json.loads(done.out)
    assert (found["units"], found["images"]) == (4, 3)
    passes = 3 * (2 + 1 + 9) + 3 * (1 + 9)
    assert found["passes"] == passes
    assert found["seconds"] == pytest.approx(passes / 10)
    halved = json.loads(faith("bench", "plan", spec, "--passes-per-second", 10, "--devices", 2, "--json").out)
    assert halved["seconds"] == pytest.approx(passes / 20)
    text = faith("bench", "plan", spec).out
    assert text.splitlines()[-1].startswith(f"4 units, 3 images, {passes} passes, ")
    assert tree() == initial, "nothing is written"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('"gradient"', '"gradientt"'), "line 8, methods 1, name: 'gradientt' is no method; did you mean gradient"),
        (('"photos"', '"nothing"'), "nothing: cannot be read (No such file or directory)"),
        (('"gradient"', '"igos"\nresolution = 400'), "spec.toml, line 9, methods 1, resolution: resolution is (400, 400)"),
        (("resolution = 4", "resolutions = 4"), "random_map has no setting 'resolutions'; did you mean resolution?"),
        (
            ("resolution = 4", 'resolution = "x"'),
            "settings, resolution: resolution is 'x'; give a whole number of at least 1 or two",
        ),
        (('["spots"]', "[{name = 'a', factory = 'no_such:x'}]"), "model a: no_such:x failed (ModuleNotFoundError"),
        (("steps = 3", "stepps = 3"), "'stepps' is no setting of deletion_insertion"),
        (('path = "photos"', 'path = "photos"\nkind = "csv"'), "photos: "),
        (('path = "photos"', 'path = "photos"\nkind = "voc"'), "cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    faith: Cli, spec: Path, tree: ListFiles, change: tuple[str, str], complaint: str
) -> None:
    assert change[0] in SPEC
    spec.write_text(SPEC.replace(*change))
    initial = tree()
    assert complaint in faith("bench", "run", spec, "--out", "r").complaint
    assert tree() == initial


def test_options_that_exclude_each_other(faith: Cli, spec: Path) -> None:
    assert "--shard belongs to --engine shard" in faith("bench", "run", spec, "--shard", "0/2").complaint
    assert "--address belongs to --engine ray" in faith("bench", "run", spec, "--address", "auto").complaint
    for words, engine in [
        (("--gpus", 1), "ray"),
        (("--cpus", 2), "ray"),
        (("--workers", 2, "--engine", "shard", "--shard", "0/2"), "local or ray"),
        (("--threads", 2, "--engine", "shard", "--shard", "0/2"), "local"),
        (("--device", "cpu", "--engine", "ray"), "local or shard"),
    ]:
        assert f"{words[0]} belongs to --engine {engine}; give that" in faith("bench", "run", spec, *words).complaint
    two = ("--engine", "shard", "--shard", "0/2", "--device", "cpu", "--device", "cpu")
    assert "a shard works on one device" in faith("bench", "run", spec, *two).complaint
    assert "'2/2' is no shard" in faith("bench", "run", spec, "--engine", "shard", "--shard", "2/2").complaint
    assert (
        "'nothing' is no specification; give a .toml or .yaml file, or one of expected-gradcam"
        in faith("bench", "run", "nothing").complaint
    )


def test_a_changed_specification_has_to_be_accepted(faith: Cli, spec: Path) -> None:
    faith("bench", "run", spec, "--out", "r")
    spec.write_text(SPEC.replace("steps = 3", "steps = 4"))
    assert "was started with other metrics; give --accept-changes" in faith("bench", "run", spec, "--out", "r").complaint
    done = faith("bench", "run", spec, "--out", "r", "--accept-changes")
    assert done.out.splitlines()[0] == "changed since the start: metrics; 4 units set aside"


def test_shards_of_a_run(faith: Cli, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faith("bench", "run", spec, "--out", "r", "--engine", "shard", "--shard", "0/2").code == 0
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert faith("bench", "run", spec, "--out", "r", "--engine", "shard").code == 0
    assert len(rows(tmp_path / "r")) == 6


def test_a_built_in_table_on_other_models_and_images(
    faith: Cli, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faithmap.bench import spec as specs

    text = (
        specs.ready_text("igos-table4").replace("[224, 28]", "[8, 4]").replace("lambda2 = 0.0", "lambda2 = 0.0, iterations = 1")
    )
    monkeypatch.setattr(specs, "ready_text", lambda name: text)
    done = faith("bench", "run", "igos-table4", "--model", "spots", "--images", "photos", "--sample", 2, "--out", "r")
    assert done.code == 0
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["published"]["title"] == "Table 4: ablation"
    assert (record["data"]["images"], record["models"][0]["name"]) == (2, "spots")
    assert not any(row["error"] for row in rows(tmp_path / "r"))
    head = (tmp_path / "r" / "spec.toml").read_text().splitlines()[0]
    assert head == "# changed on the command line: --model spots --images photos --sample 2"


def test_without_the_extra_it_says_what_to_install(faith: Cli, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    complaint = faith("bench", "run", spec).complaint
    assert "pyarrow is not installed, which benchmarks need; pip install 'faithmap[bench]'" in complaint


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys\nfrom faithmap.cli import main\n"
        "for words in (['bench', '--help'], ['bench', 'run', '--help'], ['bench', 'plan', '--help']):\n    main(words)\n"
        "main(['bench', 'run', 'nothing.toml'])\n"
        "print('torch' in sys.modules, 'ray' in sys.modules, 'pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split()[1:] == ["False", "False"]
