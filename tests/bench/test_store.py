"""Rows are read back as they were written, by any Parquet reader, and every changed byte is noticed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faithmap.bench.run_folder import ImageRow, encode, is_intact, read_rows


def some_rows() -> list[ImageRow]:
    heatmap = np.array([[1e-9, -2e-9], [0.5e-9, 0.0]], np.float32)
    good = ImageRow(
        *(0, "a/ü\n.png", "ab" * 32, (16, 20), 2, 1, "cat", 0.25, -1.5),
        values={"deletion": 0.1, "insertion": float("inf")},
        curves={"deletion_curve": [1.0, 0.5], "curve_fractions": [0.0, 1.0]},
        forward=3,
        backward=2,
        seconds=0.5,
        metric_seconds=0.25,
        heatmap=heatmap,
        rows_at=[0.0, 15.0],
        warnings=["odd"],
    )
    return [good, ImageRow(1, "b.png", error="broken")]


def a_file(rows: list[ImageRow] | None = None) -> bytes:
    same = {"model": "m", "method": "x", "shard": 7, "device": "cpu"}
    header = {"unit": "key", "failed": 1}
    return encode(rows or some_rows(), same, header, ["deletion", "insertion"], ["deletion_curve", "curve_fractions"])


def test_rows_are_read_back_as_written() -> None:
    table = pq.read_table(io.BytesIO(a_file()))
    first, second = table.to_pylist()
    assert (first["image"], first["size"], first["target"], first["predicted"]) == ("a/ü\n.png", [16, 20], 2, 1)
    assert (first["model"], first["method"], first["shard"], first["warnings"]) == ("m", "x", 7, ["odd"])
    assert (first["deletion"], first["insertion"], first["deletion_curve"]) == (0.1, float("inf"), [1.0, 0.5])
    raw = np.array(first["heatmap"], np.float64) * first["heatmap_scale"]
    assert raw == pytest.approx(np.array([1e-9, -2e-9, 0.5e-9, 0.0]), abs=1e-12)
    assert (first["heatmap_shape"], first["rows_at"], first["columns_at"]) == ([2, 2], [0.0, 15.0], None)
    assert second["error"] == "broken"
    assert all(second[name] is None for name in ("heatmap", "deletion", "target", "seconds", "deletion_curve"))


def test_heatmaps_are_tensors_of_half_precision_and_their_shape() -> None:
    schema = pq.read_schema(io.BytesIO(a_file()))
    assert schema.field("heatmap").type == pa.fixed_shape_tensor(pa.float16(), [2, 2])
    tensors = pq.read_table(io.BytesIO(a_file()))["heatmap"].combine_chunks()
    assert tensors[:1].to_numpy_ndarray().shape == (1, 2, 2)


def test_heatmaps_of_several_shapes_share_a_file() -> None:
    first, second = some_rows()
    second.heatmap, second.error = np.ones((1, 3), np.float32), None
    found = pq.read_table(io.BytesIO(a_file([first, second]))).to_pylist()
    assert [row["heatmap_shape"] for row in found] == [[2, 2], [1, 3]]
    assert found[1]["heatmap"] == [1.0, 1.0, 1.0]


def test_a_file_may_hold_only_failures() -> None:
    assert pq.read_table(io.BytesIO(a_file([ImageRow(0, "a", error="x")])))["heatmap"].null_count == 1


def test_a_heatmap_of_zeros_has_scale_one() -> None:
    row = some_rows()[0]
    row.heatmap = np.zeros((2, 2), np.float32)
    (found,) = pq.read_table(io.BytesIO(a_file([row]))).to_pylist()
    assert (found["heatmap"], found["heatmap_scale"]) == ([0.0] * 4, 1.0)


def test_the_header_is_in_the_schema() -> None:
    data = a_file()
    assert json.loads(pq.read_schema(io.BytesIO(data)).metadata[b"faithmap"]) == {"unit": "key", "failed": 1}


def test_the_same_rows_make_the_same_bytes() -> None:
    assert a_file() == a_file()


def test_every_changed_byte_is_noticed() -> None:
    data = a_file()
    assert is_intact(data)
    for at in range(0, len(data), 7):
        assert not is_intact(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]), at
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        assert not is_intact(data[:cut])
    assert not is_intact(data + b"x")


def test_pages_carry_checksums() -> None:
    """In the middle of the file are compressed pages; without their checksums a changed byte may decode to another number."""
    data = bytearray(a_file())
    metadata = pq.read_metadata(io.BytesIO(data))
    column = metadata.row_group(0).column(metadata.schema.names.index("deletion"))
    data[column.data_page_offset + column.total_compressed_size - 2] ^= 1
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pq.read_table(io.BytesIO(data), page_checksum_verification=True)


def test_all_rows_of_a_run_are_read_into_one_table(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "a.parquet").write_bytes(a_file())
    (tmp_path / "units" / ".b.parquet").write_bytes(b"half")
    assert read_rows(tmp_path)["index"].to_pylist() == [0, 1]
    assert "heatmap" not in read_rows(tmp_path).column_names
    assert read_rows(tmp_path, ["index", "error"]).column_names == ["index", "error"]
    assert len(read_rows(tmp_path / "units")) == 0


@pytest.mark.parametrize("reader", ["duckdb", "polars", "pandas"])
def test_other_libraries_read_the_files(tmp_path: Path, reader: str) -> None:
    library = pytest.importorskip(reader)
    (tmp_path / "a.parquet").write_bytes(a_file())
    (tmp_path / "b.parquet").write_bytes(a_file())
    if reader == "duckdb":
        found = library.sql(f"select avg(deletion), count(error) from '{tmp_path}/*.parquet'").fetchall()[0]  # noqa: S608
    elif reader == "polars":
        table = library.read_parquet(tmp_path / "*.parquet")
        found = (table["deletion"].mean(), table["error"].count())
    else:
        table = library.concat([library.read_parquet(path) for path in sorted(tmp_path.glob("*.parquet"))])
        found = (table["deletion"].mean(), table["error"].notna().sum())
    assert found == (0.1, 2)
