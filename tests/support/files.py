"""Files for tests, of every format and of every kind of writer; on a disk or in an object store."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tests.support.object_store import BUCKET, KEY, SECRET, ObjectStore

Put = Callable[[str, bytes], None]


def parquet(table: pa.Table, *, rows: int = 4) -> bytes:
    """Row groups of `rows` rows."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=rows)
    return sink.getvalue()


def arrow_file(table: pa.Table, *, rows: int = 4) -> bytes:
    """Batches of `rows` rows, and a footer."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def arrow_stream(table: pa.Table, *, rows: int = 4) -> bytes:
    """Batches of `rows` rows, and no footer."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def csv(table: pa.Table, **_: int) -> bytes:
    """A line of names, and lines."""
    sink = io.BytesIO()
    pa.csv.write_csv(table, sink)
    return sink.getvalue()


def jsonl(table: pa.Table, **_: int) -> bytes:
    """One object a line."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in table.to_pylist())


WRITERS: dict[str, tuple[str, Callable[..., bytes]]] = {
    "parquet": ("parquet", parquet),
    "arrow file": ("arrow", arrow_file),
    "arrow stream": ("arrows", arrow_stream),
    "csv": ("csv", csv),
    "jsonl": ("jsonl", jsonl),
}
"""By kind: the suffix and the writer."""


class Folder:
    """A place for files, and what a test does to them from outside."""

    def __init__(self, url: str, put: Put, remove: Callable[[str], None]) -> None:
        self.url = url
        self.put = put
        self.remove = remove


def local_folder(path: Path) -> Folder:
    """Files below `path`."""
    moment = iter(range(10**9, 2 * 10**9))

    def put(name: str, content: bytes) -> None:
        (path / name).write_bytes(content)
        os.utime(path / name, (now := next(moment), now))  # two writes within one tick of the clock are two versions

    return Folder(str(path), put, lambda name: (path / name).unlink())


def object_folder(server: ObjectStore, prefix: str) -> Folder:
    """Objects below `prefix`."""
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    return Folder(
        f"s3://{BUCKET}/{prefix}",
        lambda name, content: client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=content),
        lambda name: client.delete_object(Bucket=BUCKET, Key=f"{prefix}/{name}"),
    )
