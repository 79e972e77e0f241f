"""Result folders: their names, complete or absent, replaced or left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_tools import record_in

from faithmap.errors import UserError
from faithmap.files import complete_or_absent
from faithmap.studies.result_folder import ImageJob, check_folders, is_result, output_folder, plan_jobs, write_record

SCHEMA = "faithmap.result/1"


def names(*files: str) -> list[str]:
    return [job.folder.name for job in plan_jobs([Path(file) for file in files], Path("out"))]


def folders_of(jobs: list[ImageJob]) -> list[Path]:
    return [job.folder for job in jobs]


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path, mark: str) -> None:
    write_record(folder, {"schema": SCHEMA, "mark": mark})


def mark(folder: Path) -> str:
    return str(record_in(folder)["mark"])


def test_a_folder_is_named_after_its_file() -> None:
    assert names("a/cat.jpg", "b/dog.tar.png", "ünï codé.gif") == ["cat", "dog.tar", "ünï codé"]


def test_files_of_the_same_name_get_folders_of_their_own_in_any_order() -> None:
    forward = names("a/cat.jpg", "b/cat.jpg", "b/CAT.png", "dog.jpg")
    assert len({name.casefold() for name in forward}) == 4
    assert all(name.casefold().startswith("cat-") for name in forward[:3])
    assert forward[3] == "dog"
    assert names("dog.jpg", "b/CAT.png", "b/cat.jpg", "a/cat.jpg") == forward[::-1]


def test_a_name_made_to_collide_gets_its_own_folder() -> None:
    clash = names("a/cat.jpg", "b/cat.jpg")[0]
    assert len(set(names("a/cat.jpg", "b/cat.jpg", f"{clash}.jpg"))) == 3


@pytest.mark.parametrize(
    "stem", ["new\nline", "\x1b[2J", "a:b|c", "back\\slash", "...", " ", "\udcff", "é" * 120, "[red]x", "trailing. "]
)
def test_names_are_safe(stem: str, tmp_path: Path) -> None:
    (name,) = names(f"{stem}.jpg")
    assert name.isprintable()
    assert not set(name) & set('<>:"/\\|?*')
    assert name == name.strip(". ")
    with complete_or_absent(tmp_path / name, overwrite=False) as partial:
        fill(partial, "x")
    assert is_result(tmp_path / name)


def test_a_result_appears_when_it_is_complete(tmp_path: Path) -> None:
    with complete_or_absent(tmp_path / "cat", overwrite=False) as partial:
        fill(partial, "new")
        assert not (tmp_path / "cat").exists()
        assert partial.parent == tmp_path
        assert partial.name.startswith(".")
    assert inside(tmp_path) == ["cat"]
    assert mark(tmp_path / "cat") == "new"


def test_a_result_keeps_the_permissions_that_the_user_has_set(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with complete_or_absent(tmp_path / "cat", overwrite=False):
        pass
    assert (tmp_path / "cat").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_in_the_middle_leaves_what_was_there(tmp_path: Path, error: BaseException, overwrite: bool) -> None:
    if overwrite:
        (tmp_path / "cat").mkdir()
        fill(tmp_path / "cat", "old")
    with pytest.raises(type(error)), complete_or_absent(tmp_path / "cat", overwrite=overwrite) as partial:  # noqa: PT012
        fill(partial, "new")
        raise error
    assert inside(tmp_path) == (["cat"] if overwrite else [])
    assert not overwrite or mark(tmp_path / "cat") == "old"


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failing_rename_brings_the_old_result_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    (tmp_path / "cat").mkdir()
    fill(tmp_path / "cat", "old")
    rename, calls = Path.rename, []

    def fail(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt), complete_or_absent(tmp_path / "cat", overwrite=True) as partial:
        fill(partial, "new")
    assert inside(tmp_path) == ["cat"]
    assert mark(tmp_path / "cat") == "old"


def test_overwriting_replaces_all(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    fill(tmp_path / "cat", "old")
    (tmp_path / "cat" / "strip.png").touch()
    with complete_or_absent(tmp_path / "cat", overwrite=True) as partial:
        fill(partial, "new")
        assert mark(tmp_path / "cat") == "old"
    assert inside(tmp_path) == ["cat"]
    assert inside(tmp_path / "cat") == ["result.json"]
    assert mark(tmp_path / "cat") == "new"


def test_a_folder_that_appeared_in_the_meantime_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not empty"), complete_or_absent(tmp_path / "cat", overwrite=False) as new:  # noqa: PT012
        fill(new, "new")
        (tmp_path / "cat").mkdir()
        fill(tmp_path / "cat", "another run's")
    assert inside(tmp_path) == ["cat"]
    assert mark(tmp_path / "cat") == "another run's"


def test_existing_results_are_refused_without_overwrite(tmp_path: Path) -> None:
    jobs = plan_jobs([Path("cat.jpg"), Path("dog.jpg"), Path("ant.jpg")], tmp_path)
    check_folders(folders_of(jobs), overwrite=False)
    for job in jobs[:2]:
        job.folder.mkdir()
        fill(job.folder, "old")
    with pytest.raises(UserError, match=r"cat exists, and 1 more; give --overwrite"):
        check_folders(folders_of(jobs), overwrite=False)
    check_folders(folders_of(jobs), overwrite=True)


@pytest.mark.parametrize("kind", ["file", "empty", "other json", "broken json", "notes", "link"])
def test_foreign_folders_are_never_replaced(tmp_path: Path, kind: str) -> None:
    jobs = plan_jobs([Path("cat.jpg")], tmp_path)
    folder = jobs[0].folder
    if kind == "file":
        folder.touch()
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        fill(tmp_path / "elsewhere", "old")
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        contents = {"other json": "{}", "broken json": "[" * 100_000, "notes": json.dumps({"schema": SCHEMA})}
        if kind in contents:
            (folder / "result.json").write_text(contents[kind])
        if kind == "notes":
            (folder / "my notes.txt").touch()
    with pytest.raises(UserError, match="cat is not replaced, because faithmap did not write it or it contains other files"):
        check_folders(folders_of(jobs), overwrite=True)


def test_an_output_folder_is_made_and_vanishes_if_it_stays_empty(tmp_path: Path) -> None:
    with output_folder(tmp_path / "a" / "b"):
        assert inside(tmp_path / "a" / "b") == []
    assert inside(tmp_path) == []
    with output_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
    assert inside(tmp_path / "a") == ["kept"]


def test_an_output_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with output_folder(tmp_path / "a"):
        pass
    assert inside(tmp_path) == ["a"]


def test_an_output_folder_that_cannot_be_written_to_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def read_only(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.name.endswith(".partial"):
            raise OSError(30, "Read-only file system")
        mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(UserError, match=r"Read-only file system\); give another --out"), output_folder(tmp_path / "a" / "b"):
        pytest.fail("the block must not run")
    assert inside(tmp_path) == []


def test_numbers_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_record(tmp_path, {"x": float("nan")})
