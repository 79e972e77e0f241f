"""Runs that are stopped, damaged, changed or started twice: nothing is lost, nothing counted twice."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bench.tiny_bench import Bench, Command, rows, tiny_model
from PIL import Image

from faithmap.bench.errors import BenchError, NoRoomError
from faithmap.bench.load_spec import read_spec
from faithmap.bench.models import ModelCache
from faithmap.bench.report.run_record import open_run
from faithmap.bench.run import RunProgress, run
from faithmap.bench.run_folder import RunFolder, holding
from faithmap.geometry import Geometry
from faithmap.methods.base import RawHeatmap, Request
from faithmap.methods.cams import GradCAM

Undisturbed = Callable[[], list[dict]]


def go(bench: Bench, out: str = "out", **settings) -> RunProgress:
    return run(read_spec(bench.spec), bench.home / out, base=bench.home, **settings)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "units").iterdir()}


def started(bench: Bench, *more: str, limit: int | None = None) -> Command:
    words = ("bench", "run", str(bench.spec), "--out", str(bench.home / "out"), "--device", "cpu", *more)
    return Command.started(bench.home, *words, limit=limit)


def test_every_image_has_one_row_under_every_method(bench: Bench) -> None:
    state = go(bench)
    assert (state.units, state.done, state.images, state.failed) == (9, 9, 21, 0)
    found = rows(bench.home / "out")
    assert Counter((row["method"], row["image"]) for row in found) == {
        (method, f"{i}.png"): 1 for method in ("igos-8", "igos-4", "gradcam") for i in range(7)
    }
    assert {tuple(row["heatmap_shape"]) for row in found if row["method"] == "igos-4"} == {(4, 4)}


def test_what_is_there_is_not_done_again(bench: Bench) -> None:
    go(bench)
    before = files(bench.home / "out")
    state = go(bench)
    assert (state.present, state.done) == (9, 0)
    assert files(bench.home / "out") == before


def test_what_is_missing_is_done(bench: Bench) -> None:
    go(bench)
    before = rows(bench.home / "out")
    gone = sorted((bench.home / "out" / "units").iterdir())[3]
    gone.unlink()
    assert go(bench).done == 1
    assert rows(bench.home / "out") == before


def test_results_do_not_depend_on_shards_names_or_order(bench: Bench, undisturbed: Undisturbed) -> None:
    before = undisturbed()
    for i in range(7):
        (bench.home / "photos" / f"{i}.png").rename(bench.home / "photos" / f"{9 - i}-renamed.png")
    bench.write(shard_size=1)
    go(bench)
    own = {(row["method"], row["sha256"]): (row["heatmap"], row["infidelity"]) for row in before}
    for row in rows(bench.home / "out"):
        heatmap, infidelity = own[row["method"], row["sha256"]]
        assert row["heatmap"] == pytest.approx(heatmap, abs=2e-3)
        assert row["infidelity"] == pytest.approx(infidelity, rel=1e-3, abs=1e-9)


def test_a_run_that_is_killed_ten_times_goes_on_as_if_nothing_had_happened(bench: Bench, undisturbed: Undisturbed) -> None:
    bench.write(shard_size=1)
    chance = random.Random(0)  # noqa: S311 - no secret
    there = []
    for _ in range(10):
        command = started(bench, "--json-lines")
        command.said(chance.randrange(4))
        time.sleep(chance.random() * 0.03)
        command.process.kill()
        assert command.ended() == -signal.SIGKILL, "it had not finished"
        there.append(len(list((bench.home / "out").glob("units/*.parquet"))))
    assert there == sorted(there), "nothing is lost"
    assert len(set(there)) > 3, "it was killed in the middle of things"
    state = go(bench)
    assert state.present == there[-1]
    assert state.corrupt == []
    assert not [path for path in (bench.home / "out" / "units").iterdir() if path.name.startswith(".")]
    assert Counter((row["method"], row["image"]) for row in rows(bench.home / "out")).most_common(1)[0][1] == 1
    assert rows(bench.home / "out") == undisturbed()


def test_a_journal_of_something_else_costs_nothing(bench: Bench) -> None:
    go(bench)
    (bench.home / "out" / "journal-0-of-2.jsonl").write_text('[["a"], 1, 2, 3]\n{"a": 1}\n7\n' + "[" * 5000)
    assert go(bench).present == 9


def test_a_torn_journal_costs_nothing(bench: Bench) -> None:
    go(bench)
    journal = bench.home / "out" / "journal.jsonl"
    journal.write_text(journal.read_text()[:-20] + "\n{broken")
    assert go(bench).done == 0
    journal.unlink()
    assert go(bench).done == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_file_is_found_and_done_again(bench: Bench, damage: str) -> None:
    go(bench)
    before = rows(bench.home / "out")
    first, second, *_ = sorted((bench.home / "out" / "units").iterdir())
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    content = {"flip": bytes(data), "cut": bytes(data[:-100]), "empty": b"", "other": second.read_bytes()}
    first.write_bytes(content[damage])
    state = go(bench)
    assert (state.done, list(state.corrupt)) == (1, [first.stem])
    assert rows(bench.home / "out") == before


def test_damage_that_leaves_size_and_time_is_found_when_asked_for(bench: Bench) -> None:
    go(bench)
    path = next((bench.home / "out" / "units").iterdir())
    status, data = path.stat(), bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert go(bench).done == 0
    assert go(bench, verify=True).done == 1


def test_a_changed_specification_is_refused_and_accepted(bench: Bench) -> None:
    go(bench)
    bench.write("iterations = 2", "iterations = 3")
    before = files(bench.home / "out")
    with pytest.raises(BenchError, match="begun with other methods; give --accept-changes"):
        go(bench)
    assert files(bench.home / "out") == before
    state = go(bench, accept_changes=True)
    assert (state.present, state.done, state.aside) == (3, 6, 6)
    assert len(rows(bench.home / "out")) == 21
    assert json.loads((bench.home / "out" / "run.json").read_text())["methods"][0]["given"]["iterations"] == 3


def test_what_changes_no_result_may_change(bench: Bench) -> None:
    go(bench)
    bench.write('name = "tiny"\nshard_size', 'name = "renamed"\nchunk_size = 5\nshard_size')
    assert go(bench).done == 0


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("shard_size = 3", "shard_size = 3\nseed = 1", "metrics|data|seed"),
        ("draws = 4", "draws = 5", "metrics"),
        ("tiny_bench_model:make", "tiny_bench_model:other", "models"),
        ("tiny_bench_model:make", "tiny_bench_model:wider", "models"),
        ("tiny_bench_model:make", "tiny_bench_model:brighter", "models"),
        ('path = "photos"', 'path = "photos"\nsample = 2', "data"),
    ],
)
def test_every_part_that_counts_is_looked_at(bench: Bench, old: str, new: str, part: str) -> None:
    go(bench)
    bench.write(old, new)
    with pytest.raises(BenchError, match=f"begun with other .*({part})"):
        go(bench)


@pytest.mark.parametrize("model", ["wider", "brighter"])
def test_units_of_another_view_of_the_photographs_are_not_kept(bench: Bench, model: str) -> None:
    go(bench)
    bench.write("tiny_bench_model:make", f"tiny_bench_model:{model}")
    state = go(bench, accept_changes=True)
    assert (state.present, state.done, state.aside) == (0, 9, 9)


def test_the_report_knows_what_a_model_saw(bench: Bench) -> None:
    go(bench)
    (model,) = open_run(bench.home / "out").plan.models
    assert model.view == Geometry(16, (16, 16), "bilinear")
    (record,) = json.loads((bench.home / "out" / "run.json").read_text())["models"]
    assert record["geometry"] == {"resize": 16, "crop": [16, 16], "interpolation": "bilinear"}


def test_a_new_or_changed_image_is_another_data_set(bench: Bench) -> None:
    go(bench)
    bench.photo("8.png", 8)
    with pytest.raises(BenchError, match="other data"):
        go(bench)
    state = go(bench, accept_changes=True)
    assert (state.present, state.done) == (6, 3), "the shard that grew is done again"
    assert len(rows(bench.home / "out")) == 24


def test_an_image_that_cannot_be_read_is_a_row_and_can_be_tried_again(bench: Bench, undisturbed: Undisturbed) -> None:
    path = bench.home / "photos" / "4.png"
    good = path.read_bytes()
    path.write_bytes(b"x" * len(good))
    state = go(bench)
    assert state.failed == 3
    bad = [row for row in rows(bench.home / "out") if row["error"]]
    assert [row["image"] for row in bad] == ["4.png"] * 3
    assert all(row["error"].startswith("4.png: not an image") for row in bad)
    assert all(row["deletion"] is None and row["heatmap"] is None and row["target"] is None for row in bad)
    path.write_bytes(good)
    state = go(bench)
    assert (state.done, state.failed_before) == (0, 3)
    state = go(bench, retry_failed=True)
    assert (state.done, state.failed) == (3, 0)
    assert rows(bench.home / "out") == undisturbed()


def test_an_image_that_cannot_be_explained_disturbs_no_other(
    bench: Bench, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = undisturbed()
    explain, refused = GradCAM._explain, tiny_model().read(bench.home / "photos" / "1.png")

    def moody(self: GradCAM, request: Request) -> RawHeatmap:
        if any(torch.equal(image, refused[0]) for image in request.images):
            raise ValueError("not this one")
        return explain(self, request)

    monkeypatch.setattr(GradCAM, "_explain", moody)
    assert go(bench).failed == 1
    found = rows(bench.home / "out")
    (bad,) = [row for row in found if row["error"]]
    assert (bad["image"], bad["method"], bad["error"]) == ("1.png", "gradcam", "gradcam: not this one")
    for row, was in zip(found, before, strict=True):
        if row["error"] is None:
            assert row["heatmap"] == pytest.approx(was["heatmap"], abs=2e-3)
            assert row["deletion"] == pytest.approx(was["deletion"], abs=1e-6)


def test_an_image_that_the_model_cannot_take_disturbs_no_other(bench: Bench, undisturbed: Undisturbed) -> None:
    before = undisturbed()
    Image.new("RGB", (20, 20), "white").save(bench.home / "photos" / "3.png")
    bench.write("tiny_bench_model:make", "tiny_bench_model:picky")
    assert go(bench).failed == 3
    found = rows(bench.home / "out")
    assert {(row["image"], row["error"]) for row in found if row["error"]} == {("3.png", "3.png: the model failed: too white")}
    for row, was in zip(found, before, strict=True):
        if row["error"] is None:
            assert row["heatmap"] == pytest.approx(was["heatmap"], abs=2e-3)


def test_names_that_are_no_text_are_read_and_escaped(bench: Bench) -> None:
    odd = os.fsdecode(b"caf\xe9\n.png")
    (bench.home / "photos" / "0.png").rename(bench.home / "photos" / odd)
    assert go(bench).failed == 0
    assert {row["image"] for row in rows(bench.home / "out")} >= {"caf\\udce9\n.png"}
    (bench.home / "photos" / odd).write_bytes(b"no image")
    assert go(bench, accept_changes=True).failed == 3


def test_a_second_run_on_the_folder_is_refused(bench: Bench) -> None:
    go(bench)
    with holding(bench.home / "out"), pytest.raises(BenchError, match=f"process {os.getpid()} on .* is writing this run"):
        go(bench)
    assert go(bench).done == 0


def test_the_lock_of_a_dead_process_is_free(bench: Bench) -> None:
    command = started(bench, "--json-lines")
    assert command.said(1)
    command.process.kill()
    command.ended()
    assert (bench.home / "out" / "run.lock").read_text(), "it could not tidy up"
    assert go(bench).units == 9


def test_a_disk_that_fills_up_loses_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, undisturbed: Undisturbed) -> None:
    sync, count = os.fsync, [0]

    def full(number: int) -> None:
        count[0] += 1
        if count[0] > 11:
            raise OSError(28, "No space left on device")
        sync(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoRoomError, match="the disk is full; what is there is complete"):
        go(bench)
    monkeypatch.setattr(os, "fsync", sync)
    names = [path.name for path in (bench.home / "out" / "units").iterdir()]
    assert 0 < len(names) < 9
    assert all(name.endswith(".parquet") for name in names)
    assert go(bench).present == len(names)
    assert rows(bench.home / "out") == undisturbed()


def test_a_limit_on_files_is_one_clear_line(bench: Bench) -> None:
    command = started(bench, limit=5000)
    assert command.ended() == 2
    complaint = command.err.read_text()
    assert complaint.strip().splitlines()[-1].startswith("error: ")
    assert "cannot be written (File too large)" in complaint
    assert not list((bench.home / "out" / "units").iterdir())


def test_a_folder_of_something_else_is_left_alone(bench: Bench) -> None:
    (bench.home / "out").mkdir()
    (bench.home / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(BenchError, match="holds what is no benchmark"):
        go(bench)
    assert [path.name for path in (bench.home / "out").iterdir()] == ["thesis.txt"]


def test_weights_that_change_under_way_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    get, asked = ModelCache.get, [0]

    def changing(self, spec):
        asked[0] += 1
        model, digest = get(self, spec)
        return model, digest if asked[0] == 1 else "f" * 64

    monkeypatch.setattr(ModelCache, "get", changing)
    with pytest.raises(BenchError, match="its weights have the digest ffff"):
        go(bench)


def test_an_unreadable_record_is_said(bench: Bench) -> None:
    go(bench)
    (bench.home / "out" / "run.json").write_text("{")
    with pytest.raises(BenchError, match="cannot be read"):
        RunFolder(bench.home / "out").record()


@pytest.mark.parametrize("record", ["[1]", '{"schema": 2, "versions": {}}', '{"schema": 1, "versions": [1]}', "{}"])
def test_the_record_of_another_faithmap_is_left_alone(bench: Bench, record: str) -> None:
    go(bench)
    path = bench.home / "out" / "run.json"
    path.write_text(record)
    with pytest.raises(BenchError, match=r"run\.json: is no plan of schema 1, .*; use the faithmap that wrote it"):
        go(bench, accept_changes=True)
    assert path.read_text() == record


def test_a_unit_that_cannot_be_read_is_not_taken_for_damaged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    go(bench)
    before, read = files(bench.home / "out"), Path.read_bytes

    def broken(path: Path) -> bytes:
        if path.suffix == ".parquet":
            raise OSError(5, "Input/output error", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(BenchError, match=r"\.parquet: cannot be read or written \(Input/output error\); what is there stays"):
        go(bench, verify=True)
    monkeypatch.undo()
    assert files(bench.home / "out") == before


@pytest.mark.parametrize("name", ["run.lock", "plan.lock", "units"])
def test_a_folder_that_cannot_be_written_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    go(bench)
    opened, listed = Path.open, os.scandir

    def refused(path: Path, *given, **named):
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *given, **named)

    def unlisted(path):
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr(os, "scandir", unlisted)
    with pytest.raises(BenchError, match=rf"{name}: cannot be read or written \(Permission denied\).* or give another --out"):
        go(bench)


def test_other_versions_are_told(bench: Bench) -> None:
    go(bench)
    path = bench.home / "out" / "run.json"
    path.write_text(path.read_text().replace(f'"torch": "{torch.__version__.partition("+")[0]}', '"torch": "1.0'))
    (told,) = go(bench).versions
    assert told.startswith("torch 1.0")


def test_the_file_that_was_brought_to_the_disk_is_the_one_that_gets_the_name(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    sync = os.fsync

    def noted(number: int) -> None:
        sync(number)
        synced.add(os.fstat(number).st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    go(bench)
    out = bench.home / "out"
    assert {path.stat().st_ino for path in [*(out / "units").iterdir(), out / "units", out / "run.json"]} <= synced
