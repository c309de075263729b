"""The formats of messages, by what a job file says of them."""

from __future__ import annotations

from dtrain.data.arrow_messages import read_arrow
from dtrain.data.csv_messages import read_csv
from dtrain.data.json_messages import read_json
from dtrain.data.messages import ReadRows
from dtrain.spec.formats import AvroFormat, Format, ProtobufFormat
from dtrain.spec.job import FileFormat

_OF_FILES: dict[FileFormat, ReadRows] = {"parquet": read_arrow, "arrow": read_arrow, "csv": read_csv, "jsonl": read_json}


def file_reader_of(format: FileFormat) -> ReadRows:  # noqa: A002 - the field's name in a job file
    """How to read the records that a file of a format is cut into."""
    return _OF_FILES[format]


def reader_of(format: Format) -> ReadRows:  # noqa: A002 - the field's name in a job file
    """How to read the values of a format. What few jobs need is imported for them alone.

    Raises:
        SpecError: a schema, or the descriptors, are none.
        TaskError: the decoder cannot be loaded.
    """
    if isinstance(format, str):
        return read_arrow if format == "arrow" else read_json
    if isinstance(format, AvroFormat):
        from dtrain.data.avro_messages import AvroReader

        return AvroReader(format)
    if isinstance(format, ProtobufFormat):
        from dtrain.data.protobuf_messages import ProtobufReader

        return ProtobufReader(format)
    from dtrain.data.raw_messages import RawReader

    return RawReader(format)
