"""A run can be killed, resumed, changed and started again; no result is lost, and none exists twice."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bench.tiny_bench import Bench, Rows, rows, tiny_model
from PIL import Image

from faithmap.bench.evaluate import ModelCache
from faithmap.bench.report.run_record import open_run
from faithmap.bench.run import RunProgress, run
from faithmap.bench.spec import ModelSpec, read_spec
from faithmap.errors import BenchError
from faithmap.methods.base import RawHeatmap, Request
from faithmap.methods.cams import GradCAM
from faithmap.model import Classifier, Geometry

Undisturbed = Callable[[], Rows]


def run_bench(bench: Bench, **settings: Any) -> RunProgress:
    return run(read_spec(bench.spec), bench.out, base=bench.home, **settings)


def contents(bench: Bench) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bench.units}


def test_every_image_has_one_row_under_every_method(bench: Bench) -> None:
    progress = run_bench(bench)
    assert (progress.units, progress.done, progress.images, progress.failed) == (9, 9, 21, 0)
    found = rows(bench.out)
    assert Counter((row["method"], row["image"]) for row in found) == {
        (method, f"{i}.png"): 1 for method in ("igos-8", "igos-4", "gradcam") for i in range(7)
    }
    assert {tuple(row["heatmap_shape"]) for row in found if row["method"] == "igos-4"} == {(4, 4)}


def test_stored_units_are_not_evaluated_again(bench: Bench) -> None:
    run_bench(bench)
    initial = contents(bench)
    progress = run_bench(bench)
    assert (progress.present, progress.done) == (9, 0)
    assert contents(bench) == initial


def test_missing_units_are_evaluated(bench: Bench) -> None:
    run_bench(bench)
    initial = rows(bench.out)
    bench.units[3].unlink()
    assert run_bench(bench).done == 1
    assert rows(bench.out) == initial


def test_results_do_not_depend_on_shards_names_or_order(bench: Bench, undisturbed: Undisturbed) -> None:
    initial = undisturbed()
    for i in range(7):
        (bench.home / "photos" / f"{i}.png").rename(bench.home / "photos" / f"{9 - i}-renamed.png")
    bench.write(shard_size=1)
    run_bench(bench)
    own = {(row["method"], row["sha256"]): (row["heatmap"], row["infidelity"]) for row in initial}
    for row in rows(bench.out):
        heatmap, infidelity = own[row["method"], row["sha256"]]
        assert row["heatmap"] == pytest.approx(heatmap, abs=2e-3)
        assert row["infidelity"] == pytest.approx(infidelity, rel=1e-3, abs=1e-9)


def kill_at_step(bench: Bench, step: int) -> None:
    """Start the run in its own process, which is killed at a pass of the model or while a file is written."""
    (bench.home / "steps").write_text(str(step))
    assert bench.start("--json-lines", "--device", "cpu").exit_code() == -signal.SIGKILL, "the run did not finish"


@pytest.mark.sweep
def test_a_run_that_is_killed_ten_times_has_the_results_of_an_undisturbed_run(bench: Bench, undisturbed: Undisturbed) -> None:
    bench.write("tiny_bench_model:make", "tiny_bench_model:mortal", shard_size=1)
    generator = random.Random(0)  # noqa: S311 - no secret
    there = []
    for _ in range(10):
        kill_at_step(bench, 12 + generator.randrange(25))
        there.append(len(list(bench.out.glob("units/*.parquet"))))
    assert there == sorted(there), "nothing is lost"
    assert len(set(there)) > 3, there
    (bench.home / "steps").write_text("-1")
    progress = run_bench(bench)
    assert progress.present == there[-1] < 21
    assert progress.corrupt == []
    assert not [path for path in bench.units if path.name.startswith(".")]
    assert Counter((row["method"], row["image"]) for row in rows(bench.out)).most_common(1)[0][1] == 1
    assert rows(bench.out) == undisturbed()


def test_the_lock_of_a_dead_process_is_free(bench: Bench) -> None:
    bench.write("tiny_bench_model:make", "tiny_bench_model:mortal")
    kill_at_step(bench, 60)
    assert (bench.out / "run.lock.json").read_text(), "it could not clean up"
    assert bench.units
    (bench.home / "steps").write_text("-1")
    assert run_bench(bench).units == 9


def test_a_changed_specification_is_refused_and_accepted(bench: Bench) -> None:
    run_bench(bench)
    bench.write("iterations = 2", "iterations = 3")
    initial = contents(bench)
    with pytest.raises(BenchError, match="started with other methods; give --accept-changes"):
        run_bench(bench)
    assert contents(bench) == initial
    progress = run_bench(bench, accept_changes=True)
    assert (progress.present, progress.done, progress.aside) == (3, 6, 6)
    assert len(rows(bench.out)) == 21
    assert json.loads((bench.out / "run.json").read_text())["methods"][0]["given"]["iterations"] == 3


def test_name_and_chunk_size_may_change(bench: Bench) -> None:
    run_bench(bench)
    bench.write('name = "tiny"\nshard_size', 'name = "renamed"\nchunk_size = 5\nshard_size')
    assert run_bench(bench).done == 0


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
def test_every_part_that_results_depend_on_is_compared(bench: Bench, old: str, new: str, part: str) -> None:
    run_bench(bench)
    bench.write(old, new)
    with pytest.raises(BenchError, match=f"started with other .*({part})"):
        run_bench(bench)


@pytest.mark.parametrize("model", ["wider", "brighter"])
def test_units_of_another_preprocessing_are_not_kept(bench: Bench, model: str) -> None:
    run_bench(bench)
    bench.write("tiny_bench_model:make", f"tiny_bench_model:{model}")
    progress = run_bench(bench, accept_changes=True)
    assert (progress.present, progress.done, progress.aside) == (0, 9, 9)


def test_the_record_has_the_geometry_of_the_model(bench: Bench) -> None:
    run_bench(bench)
    (model,) = open_run(bench.out).plan.models
    assert model.view == Geometry(16, (16, 16), "bilinear")
    (record,) = json.loads((bench.out / "run.json").read_text())["models"]
    assert record["geometry"] == {"resize": 16, "crop": [16, 16], "interpolation": "bilinear"}


def test_a_new_image_makes_another_data_set(bench: Bench) -> None:
    run_bench(bench)
    bench.photo("8.png", 8)
    with pytest.raises(BenchError, match="other data"):
        run_bench(bench)
    progress = run_bench(bench, accept_changes=True)
    assert (progress.present, progress.done) == (6, 3), "the shard that grew is evaluated again"
    assert len(rows(bench.out)) == 24


def test_an_unreadable_image_is_a_row_and_can_be_retried(bench: Bench, undisturbed: Undisturbed) -> None:
    path = bench.home / "photos" / "4.png"
    good = path.read_bytes()
    path.write_bytes(b"x" * len(good))
    assert run_bench(bench).failed == 3
    bad = [row for row in rows(bench.out) if row["error"]]
    assert [row["image"] for row in bad] == ["4.png"] * 3
    assert all(row["error"].startswith("4.png: not an image") for row in bad)
    assert all(row["deletion"] is None and row["heatmap"] is None and row["target"] is None for row in bad)
    path.write_bytes(good)
    progress = run_bench(bench)
    assert (progress.done, progress.failed_before) == (0, 3)
    progress = run_bench(bench, retry_failed=True)
    assert (progress.done, progress.failed) == (3, 0)
    assert rows(bench.out) == undisturbed()


def test_an_image_that_cannot_be_explained_does_not_affect_others(
    bench: Bench, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    initial = undisturbed()
    explain, refused = GradCAM._explain, tiny_model().read(bench.home / "photos" / "1.png")

    def explain_others(self: GradCAM, request: Request) -> RawHeatmap:
        if any(torch.equal(image, refused[0]) for image in request.images):
            raise ValueError("not this one")
        return explain(self, request)

    monkeypatch.setattr(GradCAM, "_explain", explain_others)
    assert run_bench(bench).failed == 1
    found = rows(bench.out)
    (bad,) = [row for row in found if row["error"]]
    assert (bad["image"], bad["method"], bad["error"]) == ("1.png", "gradcam", "gradcam: not this one")
    for row, was in zip(found, initial, strict=True):
        if row["error"] is None:
            assert row["heatmap"] == pytest.approx(was["heatmap"], abs=2e-3)
            assert row["deletion"] == pytest.approx(was["deletion"], abs=1e-6)


def test_an_image_that_the_model_refuses_does_not_affect_others(bench: Bench, undisturbed: Undisturbed) -> None:
    initial = undisturbed()
    Image.new("RGB", (20, 20), "white").save(bench.home / "photos" / "3.png")
    bench.write("tiny_bench_model:make", "tiny_bench_model:picky")
    assert run_bench(bench).failed == 3
    found = rows(bench.out)
    assert {(row["image"], row["error"]) for row in found if row["error"]} == {("3.png", "3.png: the model failed: too white")}
    for row, was in zip(found, initial, strict=True):
        if row["error"] is None:
            assert row["heatmap"] == pytest.approx(was["heatmap"], abs=2e-3)


def test_file_names_that_are_not_utf8_are_read_and_escaped(bench: Bench) -> None:
    odd = os.fsdecode(b"caf\xe9\n.png")
    (bench.home / "photos" / "0.png").rename(bench.home / "photos" / odd)
    assert run_bench(bench).failed == 0
    assert {row["image"] for row in rows(bench.out)} >= {"caf\\udce9\n.png"}
    (bench.home / "photos" / odd).write_bytes(b"no image")
    assert run_bench(bench, accept_changes=True).failed == 3


def test_weights_that_change_after_planning_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    get, calls = ModelCache.get, 0

    def get_changing(self: ModelCache, spec: ModelSpec) -> tuple[Classifier, str]:
        nonlocal calls
        calls += 1
        model, digest = get(self, spec)
        return model, digest if calls == 1 else "f" * 64

    monkeypatch.setattr(ModelCache, "get", get_changing)
    with pytest.raises(BenchError, match="its weights have the digest ffff"):
        run_bench(bench)


def test_other_versions_are_reported(bench: Bench) -> None:
    run_bench(bench)
    path = bench.out / "run.json"
    path.write_text(path.read_text().replace(f'"torch": "{torch.__version__.partition("+")[0]}', '"torch": "1.0'))
    (version,) = run_bench(bench).versions
    assert version.startswith("torch 1.0")


def test_the_synced_file_is_the_one_that_gets_the_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    sync = os.fsync

    def sync_and_note(number: int) -> None:
        sync(number)
        synced.add(os.fstat(number).st_ino)

    monkeypatch.setattr(os, "fsync", sync_and_note)
    run_bench(bench)
    assert {path.stat().st_ino for path in [*bench.units, bench.out / "units", bench.out / "run.json"]} <= synced
