"""Damaged files, full disks, foreign folders and a second writer are noticed; intact files are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench.tiny_bench import Bench, Rows, rows
from filelock import UnixFileLock

from faithmap.bench.run import RunProgress, run
from faithmap.bench.run_folder import RunFolder, write_access
from faithmap.bench.spec import read_spec
from faithmap.errors import BenchError, NoRoomError

Undisturbed = Callable[[], Rows]


def run_bench(bench: Bench, **settings: Any) -> RunProgress:
    return run(read_spec(bench.spec), bench.out, base=bench.home, **settings)


def contents(bench: Bench) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bench.units}


def test_a_journal_with_other_content_is_ignored(bench: Bench) -> None:
    run_bench(bench)
    (bench.out / "journal-0-of-2.jsonl").write_text('[["a"], 1, 2, 3]\n{"a": 1}\n7\n' + "[" * 5000)
    assert run_bench(bench).present == 9


def test_without_its_journal_the_files_are_verified(bench: Bench) -> None:
    run_bench(bench)
    journal = bench.out / "journal.jsonl"
    journal.write_text(journal.read_text()[:-20] + "\n{broken")
    assert run_bench(bench).done == 0
    journal.unlink()
    assert run_bench(bench).done == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_file_is_found_and_evaluated_again(bench: Bench, damage: str) -> None:
    run_bench(bench)
    initial = rows(bench.out)
    first, second, *_ = bench.units
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    content = {"flip": bytes(data), "cut": bytes(data[:-100]), "empty": b"", "other": second.read_bytes()}
    first.write_bytes(content[damage])
    progress = run_bench(bench)
    assert (progress.done, list(progress.corrupt)) == (1, [first.stem])
    assert rows(bench.out) == initial


def test_verify_finds_damage_that_leaves_size_and_time(bench: Bench) -> None:
    run_bench(bench)
    path = bench.units[0]
    status, data = path.stat(), bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run_bench(bench).done == 0
    assert run_bench(bench, verify=True).done == 1


def test_a_second_run_on_the_folder_is_refused(bench: Bench) -> None:
    run_bench(bench)
    with write_access(bench.out), pytest.raises(BenchError, match=f"process {os.getpid()} on .* is writing this run"):
        run_bench(bench)
    assert run_bench(bench).done == 0


def test_shards_exclude_a_whole_run_and_the_same_shard(bench: Bench) -> None:
    run_bench(bench)
    with write_access(bench.out, (0, 3)):
        with write_access(bench.out, (1, 3)):
            pass
        with (
            pytest.raises(BenchError, match=rf"process {os.getpid()} .*\(shard-0-of-3\.lock\)"),
            write_access(bench.out, (0, 3)),
        ):
            pass
        with pytest.raises(BenchError, match=rf"process {os.getpid()} .*\(shard-0-of-3\.lock\)"), write_access(bench.out):
            pass
    with write_access(bench.out), pytest.raises(BenchError, match=r"\(run\.lock\)"), write_access(bench.out, (0, 3)):
        pass
    with write_access(bench.out, (0, 3)):
        pass


@pytest.mark.filterwarnings("ignore:flock not supported on this filesystem")
def test_a_file_system_without_locks_is_locked_by_files(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(number: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    run_bench(bench)
    with write_access(bench.out), pytest.raises(BenchError, match=f"process {os.getpid()} on .* is writing this run"):
        run_bench(bench)
    assert run_bench(bench).done == 0


def test_a_full_disk_loses_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, undisturbed: Undisturbed) -> None:
    sync, count = os.fsync, 0

    def sync_until_full(number: int) -> None:
        nonlocal count
        count += 1
        if count > 11:
            raise OSError(28, "No space left on device")
        sync(number)

    monkeypatch.setattr(os, "fsync", sync_until_full)
    with pytest.raises(NoRoomError, match=r"cannot be written \(No space left on device\); earlier results are complete"):
        run_bench(bench)
    monkeypatch.setattr(os, "fsync", sync)
    names = [path.name for path in bench.units]
    assert 0 < len(names) < 9
    assert all(name.endswith(".parquet") for name in names)
    assert run_bench(bench).present == len(names)
    assert rows(bench.out) == undisturbed()


def test_a_limit_on_the_size_of_files_is_one_line(bench: Bench) -> None:
    command = bench.start("--device", "cpu", limit=5000)
    assert command.exit_code() == 2
    complaint = command.err.read_text()
    assert complaint.strip().splitlines()[-1].startswith("error: ")
    assert "cannot be written (File too large)" in complaint
    assert not bench.units


def test_a_folder_with_other_files_is_left_alone(bench: Bench) -> None:
    bench.out.mkdir()
    (bench.out / "thesis.txt").write_text("mine")
    with pytest.raises(BenchError, match="holds files that are no benchmark"):
        run_bench(bench)
    assert [path.name for path in bench.out.iterdir()] == ["thesis.txt"]


def test_an_unreadable_record_is_an_error(bench: Bench) -> None:
    run_bench(bench)
    (bench.out / "run.json").write_text("{")
    with pytest.raises(BenchError, match="cannot be read"):
        RunFolder(bench.out).record()


@pytest.mark.parametrize("record", ["[1]", '{"schema": 2, "versions": {}}', '{"schema": 1, "versions": [1]}', "{}"])
def test_the_record_of_another_version_is_left_alone(bench: Bench, record: str) -> None:
    run_bench(bench)
    path = bench.out / "run.json"
    path.write_text(record)
    with pytest.raises(
        BenchError, match=r"run\.json: its schema is .*, but this version reads schema 1; use the faithmap that wrote it"
    ):
        run_bench(bench, accept_changes=True)
    assert path.read_text() == record


def test_a_unit_that_cannot_be_read_is_not_deleted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run_bench(bench)
    initial, read = contents(bench), Path.read_bytes

    def read_or_fail(path: Path) -> bytes:
        if path.suffix == ".parquet":
            raise OSError(5, "Input/output error", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_or_fail)
    with pytest.raises(BenchError, match=r"\.parquet: cannot be read or written \(Input/output error\); no result is lost"):
        run_bench(bench, verify=True)
    monkeypatch.undo()
    assert contents(bench) == initial


@pytest.mark.parametrize("name", ["run.lock", "plan.lock", "units"])
def test_a_folder_that_cannot_be_written_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    run_bench(bench)
    acquire, listed = UnixFileLock._acquire, os.scandir

    def acquire_or_fail(lock: UnixFileLock) -> None:
        if Path(lock.lock_file).name == name:
            raise PermissionError(13, "Permission denied", lock.lock_file)
        acquire(lock)

    def list_or_fail(path: str) -> Any:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(UnixFileLock, "_acquire", acquire_or_fail)
    monkeypatch.setattr(os, "scandir", list_or_fail)
    with pytest.raises(BenchError, match=rf"{name}: cannot be read or written \(Permission denied\).* or give another --out"):
        run_bench(bench)
