"""Items in a parquet file, a column for each part of them.

A column's type is looked at before a job begins; a row that cannot be read is a bad one among others.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from qvl.engine.errors import BadRequest
from qvl.engine.jobs.settings import JobError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {
    "id": "strings or integers",
    "text": "strings or lists of them",
    "image": "strings, bytes, structs of bytes and path, or lists of them",
    "video": "strings, bytes, structs of bytes and path, or lists of them",
    "instruction": "strings",
    "fps": "numbers",
    "max_frames": "integers",
}
"""What they may hold; others are left alone. Bytes are media, and so is `{"bytes", "path"}`, datasets' own.
Elsewhere bytes are UTF-8, as a writer leaves strings that it does not call so."""
_MEDIA = ("image", "video")
_READ_ROWS = 256
"""Rows in memory at once."""


def groups_of(path: Path) -> list[int]:
    """Rows of each row group. Raises JobError for columns that no item can be read from."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise JobError(f"{path} is not parquet: {error}") from None
    with file:
        schema = file.schema_arrow
        if not {"text", "image", "video"} & set(schema.names):
            raise JobError(f"{path} has none of the columns text, image and video; rename those it has")
        for field in schema:
            if field.name in COLUMNS and not _fits(field.name, field.type):
                raise JobError(
                    f"{path}: the column {field.name} is of {field.type} and must be of "
                    f"{COLUMNS[field.name]}: cast it, or rename it to leave it out"
                )
        return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def rows(path: Path, groups: Sequence[int]) -> Iterator[bytes | BadRequest]:
    """Each row as a JSON item, or what is wrong with it."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        for batch in file.iter_batches(_READ_ROWS, row_groups=list(groups), columns=names):
            for at in range(batch.num_rows):
                yield _row(batch, at)


def _row(batch: pa.RecordBatch, at: int) -> bytes | BadRequest:
    item = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            value = _value(name, column[at].as_py())
        except UnicodeDecodeError as error:
            return BadRequest(f"{name} is not UTF-8: {error.reason}", param=name)
        if value is not None:
            item[name] = value
    try:
        return orjson.dumps(item)
    except TypeError as error:  # of what a struct holds besides bytes and path
        return BadRequest(f"a column holds what JSON does not: {error}")


def _fits(name: str, kind: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _fits(name, kind.value_type)
    if name in ("text", *_MEDIA) and (types.is_list(kind) or types.is_large_list(kind)):
        return _fits(name, kind.value_type)
    if types.is_null(kind):
        return True
    if name in ("fps", "max_frames"):
        return types.is_integer(kind) or (name == "fps" and types.is_floating(kind))
    return (
        any(is_kind(kind) for is_kind in (types.is_string, types.is_large_string, types.is_string_view))
        or any(is_kind(kind) for is_kind in (types.is_binary, types.is_large_binary, types.is_binary_view))
        or (name == "id" and types.is_integer(kind))
        or (name in _MEDIA and types.is_struct(kind))
    )


def _value(name: str, value: Any) -> Any:
    if isinstance(value, dict) and "bytes" in value:
        value = value["bytes"] or value.get("path")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii") if name in _MEDIA else value.decode()
    return [_value(name, each) for each in value] if isinstance(value, list) else value
