"""The finished file, made from the work folder as a stream: jsonl, npz or parquet."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from qvl.engine.jobs.settings import JobError
from qvl.engine.jobs.work import Mark

ROWS = 4096
"""Rows in memory at once, and of one parquet row group."""

Writer: TypeAlias = Callable[[Path, Path, Mark], None]


def embeddings_jsonl(folder: Path, made: Path, mark: Mark) -> None:
    with made.open("wb") as file:
        for heads, vectors in _embedded(folder, mark):
            for head, vector in zip(heads, vectors, strict=True):
                row = {**head, "embedding": vector}
                file.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))


def embeddings_npz(folder: Path, made: Path, mark: Mark) -> None:
    """`ids` as text and `embeddings`, float32; read with `numpy.load`."""
    longest = max((len(str(head["id"])) for heads in _heads(folder) for head in heads), default=1)
    text = np.dtype(f"<U{max(longest, 1)}")
    with zipfile.ZipFile(made, "w", allowZip64=True) as archive:
        with archive.open("ids.npy", "w", force_zip64=True) as file:
            _npy_header(file, (mark.rows,), text)
            for heads in _heads(folder):
                file.write(np.asarray([str(head["id"]) for head in heads], dtype=text).tobytes())
        with archive.open("embeddings.npy", "w", force_zip64=True) as file:
            _npy_header(file, (mark.rows, _width(mark)), np.dtype("<f4"))
            for _, vectors in _embedded(folder, mark):
                file.write(vectors.tobytes())


def embeddings_parquet(folder: Path, made: Path, mark: Mark, width: int = 0) -> None:
    """`width` is that of the vectors where there is no row to tell it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    width = _width(mark) or width
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("index", pa.int64()),
            ("embedding", pa.list_(pa.float32(), width)),
        ]
    )
    with pq.ParquetWriter(made, schema) as writer:
        for heads, vectors in _embedded(folder, mark):
            columns = [
                pa.array([str(head["id"]) for head in heads], pa.string()),
                pa.array([head["index"] for head in heads], pa.int64()),
                pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def rows_jsonl(folder: Path, made: Path, mark: Mark) -> None:
    del mark
    with (folder / "rows.jsonl").open("rb") as rows, made.open("wb") as file:
        file.writelines(rows)


def ranking_parquet(folder: Path, made: Path, mark: Mark) -> None:
    del mark
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("id", pa.string()),
            ("index", pa.int64()),
            ("documents", pa.list_(pa.int32())),
            ("scores", pa.list_(pa.float64())),
            ("errors", pa.list_(pa.struct([("index", pa.int32()), ("error", _error_type())]))),
        ]
    )
    with pq.ParquetWriter(made, schema) as writer:
        for heads in _heads(folder):
            columns = {
                "id": [str(head["id"]) for head in heads],
                "index": [head["index"] for head in heads],
                "documents": [[each["index"] for each in head["results"]] for head in heads],
                "scores": [[each["score"] for each in head["results"]] for head in heads],
                "errors": [head.get("errors", []) for head in heads],
            }
            writer.write_table(pa.Table.from_pydict(columns, schema=schema))


EMBEDDINGS: dict[str, Writer] = {
    ".jsonl": embeddings_jsonl,
    ".npz": embeddings_npz,
    ".parquet": embeddings_parquet,
}
RANKINGS: dict[str, Writer] = {".jsonl": rows_jsonl, ".parquet": ranking_parquet}
BATCHES: dict[str, Writer] = {".jsonl": rows_jsonl}


def writer_for(out: Path, writers: dict[str, Writer]) -> Writer:
    try:
        return writers[out.suffix]
    except KeyError:
        raise JobError(f"cannot write {out.name}: the name must end in {' or '.join(writers)}") from None


def lost_documents(folder: Path) -> int:
    """Those of good lines that have an error in place of a score."""
    return sum(len(head.get("errors", [])) for heads in _heads(folder) for head in heads)


def _error_type() -> Any:
    import pyarrow as pa

    return pa.struct([(name, pa.string()) for name in ("message", "type", "code", "param")])


def _heads(folder: Path) -> Iterator[list[dict[str, Any]]]:
    with (folder / "rows.jsonl").open("rb") as file:
        while some := [orjson.loads(line) for line in islice(file, ROWS)]:
            yield some


def _embedded(folder: Path, mark: Mark) -> Iterator[tuple[list[dict[str, Any]], npt.NDArray[np.float32]]]:
    with (folder / "vectors.f32").open("rb") as file:
        for heads in _heads(folder):
            data = file.read(len(heads) * _width(mark) * 4)
            yield heads, np.frombuffer(data, dtype="<f4").reshape(len(heads), _width(mark))


def _width(mark: Mark) -> int:
    return mark.sizes["vectors.f32"] // (4 * mark.rows) if mark.rows else 0


def _npy_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)  # type: ignore[no-untyped-call]  # numpy's format module has no types
