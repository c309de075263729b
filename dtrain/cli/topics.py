"""Commands about topics: what there is, what one holds, and how one is filled. No control plane is asked."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dtrain.cli import home
from dtrain.cli.exits import Exit
from dtrain.cli.output import Form, Output, console, emit
from dtrain.errors import ConflictError, DtrainError, InputError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from dtrain.data.guess import Guess
    from dtrain.data.shaping import Shape
    from dtrain.data.table_file import TableFile
    from dtrain.spec.job import SourceSpec
    from dtrain.stream.kafka_topics import KafkaTopics, KafkaWriter, TopicFacts

Bootstrap = Annotated[
    str | None,
    Option("--bootstrap", "-b", metavar="HOST:PORT", help="The broker; by default KAFKA_BOOTSTRAP, or localhost:9092."),
]
OfJob = Annotated[
    Path | None,
    Option("--job", metavar="FILE", help="A job file whose `source` says broker and login, instead of --bootstrap."),
]


def topics(
    topic: Annotated[str | None, Argument(metavar="[TOPIC]", help="One topic in detail; all of them by default.")] = None,
    bootstrap: Bootstrap = None,
    job: OfJob = None,
    over: Annotated[float, Option(min=0.0, max=60.0, help="Seconds over which rates are taken; 0 for none.")] = 1.0,
    output: Output = Form.TABLE,
) -> None:
    """Show topics: partitions, what they hold, how fast they grow, how long they keep it."""
    from dtrain.cli.topic_screen import topic_screen, topics_table

    with _opened(topic, bootstrap, job) as (found, _):
        names = [topic] if topic else found.names()
        facts = found.facts(names)
        rates = _rates(found, facts, over_s=over)
        values = [_topic_value(each, rates) for each in facts]
        if topic:
            values[0]["sample"] = _guess_value(_guess(found, facts[0], num_messages=20), num_rows=3)
    if topic:
        emit(values[0], output, table=lambda: topic_screen(values[0]), name=topic)
    else:
        emit(values, output, table=lambda: topics_table(values) if values else "no topics", name=names)


def peek(
    topic: Annotated[str, Argument(metavar="TOPIC", help="The topic to look into.")],
    bootstrap: Bootstrap = None,
    job: OfJob = None,
    messages: Annotated[int, Option("--messages", "-n", min=1, max=10_000, help="How many of the newest to look at.")] = 100,
    rows: Annotated[int, Option(min=0, max=300, help="How many rows to show.")] = 5,
    write: Annotated[
        Path | None, Option(metavar="FOLDER", help="Write a first task and a job file there; files that exist are left alone.")
    ] = None,
    output: Output = Form.TABLE,
) -> None:
    """Show what a topic's messages are, and a first schema and job file for them."""
    from dtrain.cli import skeleton
    from dtrain.cli.topic_screen import peek_screen

    with _opened(topic, bootstrap, job) as (found, source):
        guess = _guess(found, found.facts([topic])[0], num_messages=messages)
    if not guess.num_records:
        raise NotFoundError(f"topic {topic!r} holds no message", fix="wait for some, or send them with: dtrain produce")
    is_ready = skeleton.can_train(guess)
    files = _files(guess, topic=topic, source=source) if is_ready else {}
    if write is not None:
        if not is_ready:
            reason = f"topic {topic!r} holds {guess.kind}: no task can be written for it"
            raise InputError(reason, fix="see docs/formats.md for what can be read, and docs/topics.md")
        _write(write, files)
    value = {"topic": topic} | _guess_value(guess, num_rows=rows)
    value |= {"schema": skeleton.schema_text(guess), "files": files, "written_to": str(write) if write else None}
    emit(value, output, table=lambda: peek_screen(value), name=topic)


def produce(
    file: Annotated[Path, Argument(metavar="FILE", help="Rows: .parquet, .csv, .jsonl, .arrow or .feather.")],
    topic: Annotated[str, Option("--topic", "-t", help="Where they go.")],
    bootstrap: Bootstrap = None,
    job: OfJob = None,
    rows: Annotated[
        int, Option("--rows", min=1, max=1_000_000, help="Rows of a message, which is one Arrow IPC stream.")
    ] = 1024,
    key: Annotated[
        str,
        Option(metavar="COLUMN", help="Rows of one value go to one partition, in order; by default messages go round them."),
    ] = "",
    timestamp: Annotated[
        str, Option(metavar="COLUMN", help="A message's time is that of its newest row; by default the time of sending.")
    ] = "",
    rate: Annotated[float, Option(min=0.0, help="Rows a second; 0 for as fast as it goes.")] = 0.0,
    is_created: Annotated[bool, Option("--create", help="Make the topic first.")] = False,
    partitions: Annotated[int, Option(min=1, max=10_000, help="With --create: how many.")] = 4,
    retention: Annotated[str, Option(help="With --create: how long rows are kept, as 7d; or forever.")] = "forever",
    output: Output = Form.TABLE,
) -> int:
    """Send a file's rows to a topic, many to a message; done when every one is acknowledged."""
    from dtrain.cli.topic_screen import produced_text
    from dtrain.data.shaping import Shape
    from dtrain.data.table_file import TableFile

    table, shape = TableFile(file), Shape(rows, key, timestamp)
    shape.check(table.schema)
    with _opened(topic, bootstrap, job) as (found, _):
        if is_created:
            found.create(topic, num_partitions=partitions, configs=_configs(retention))
        facts = _facts_or_hint(found, topic)
        with closing(found.writer(facts)) as writer:
            began_s = time.monotonic()
            try:
                is_whole = _fill(writer, table, shape, facts, rate=rate)
            except DtrainError as error:
                reason = f"{error.reason}; of what was sent, {writer.num_rows:,} rows are known to be in the topic"
                raise type(error)(reason, fix=error.fix) from error
            taken_s = time.monotonic() - began_s
    value = {
        "topic": topic,
        "rows": writer.num_rows,
        "messages": writer.num_messages,
        "bytes": writer.num_bytes,
        "partitions": len(facts.partitions),
        "seconds": round(taken_s, 3),
        "is_whole": is_whole,
    }
    emit(value, output, table=lambda: produced_text(value), name=topic)
    return Exit.OK if is_whole else Exit.INTERRUPTED


@contextmanager
def _opened(topic: str | None, bootstrap: str | None, job: Path | None) -> Iterator[tuple[KafkaTopics, SourceSpec]]:
    """The broker that is meant, by a spec that names `topic`."""
    from dtrain.clock import SystemClock
    from dtrain.spec.broker import source_at
    from dtrain.spec.load import load_job
    from dtrain.stream.kafka_topics import KafkaTopics

    if job is not None and bootstrap is not None:
        raise InputError("--job and --bootstrap both name a broker", fix="leave one of them out")
    if job is not None:
        named = load_job(job, environment=home.environment()).source
        if not named.bootstrap:
            raise InputError(f"{job} names no broker", fix="use --bootstrap, or a job file with `source.bootstrap`")
        source = named.model_copy(update={"topic": topic}) if topic else named
    else:
        source = source_at(bootstrap or home.bootstrap(), topic=topic or "any")
    with closing(KafkaTopics(source, clock=SystemClock())) as found:
        try:
            yield found, source
        except UnavailableError as error:
            fix = error.fix if job else error.fix.replace("`source.bootstrap`", "--bootstrap or KAFKA_BOOTSTRAP")
            raise UnavailableError(error.reason, fix=fix) from error


def _facts_or_hint(found: KafkaTopics, topic: str) -> TopicFacts:
    """The topic to fill."""
    try:
        return found.facts([topic])[0]
    except NotFoundError as error:
        raise NotFoundError(error.reason, fix="make it with --create, or correct its name") from error


def _rates(found: KafkaTopics, facts: list[TopicFacts], *, over_s: float) -> dict[tuple[str, int], float]:
    """(Topic, partition) → offsets a second, as they are taken now."""
    if not over_s or not facts:
        return {}
    first, first_s = found.ends(facts), time.monotonic()
    time.sleep(over_s)
    last, took_s = found.ends(facts), time.monotonic() - first_s
    return {key: (last[key] - first[key]) / took_s for key in first.keys() & last.keys()}


def _guess(found: KafkaTopics, facts: TopicFacts, *, num_messages: int) -> Guess:
    """What the newest messages are."""
    from dtrain.clock import SystemClock
    from dtrain.data.guess import guess
    from dtrain.steplog.positions import Partition
    from dtrain.stream.log import Bounds
    from dtrain.stream.sample import newest

    bounds = {Partition(facts.name, each.number): Bounds(each.begin, each.end) for each in facts.partitions}
    records = newest(found, bounds, num_records=num_messages, clock=SystemClock())
    return guess(sorted((record for each in records.values() for record in each), key=lambda record: record.timestamp_ms))


def _topic_value(facts: TopicFacts, rates: dict[tuple[str, int], float]) -> dict[str, Any]:
    """A topic as JSON's types."""
    partitions = [
        {
            "partition": each.number,
            "leader": each.leader,
            "begin": each.begin,
            "end": each.end,
            "newest_s": None if each.newest_ms is None else each.newest_ms / 1000,
            "offsets_per_s": rates.get((facts.name, each.number)),
        }
        for each in facts.partitions
    ]
    return {
        "topic": facts.name,
        "topic_id": facts.topic_id,
        "num_offsets": facts.num_offsets,
        "offsets_per_s": sum(rates.get((facts.name, each.number), 0.0) for each in facts.partitions) if rates else None,
        "retention_s": facts.retention_s,
        "configs": dict(facts.configs),
        "partitions": partitions,
    }


def _guess_value(guess: Guess, *, num_rows: int) -> dict[str, Any]:
    """What was seen as JSON's types."""
    return {
        "kinds": dict(guess.kinds),
        "format": guess.format or None,
        "num_messages": guess.num_records,
        "rows_per_message": round(guess.rows_a_record, 2),
        "bytes_per_message": round(guess.num_bytes / max(1, guess.num_records)),
        "has_keys": guess.has_keys,
        "label": guess.label or None,
        "columns": [
            {
                "name": c.name,
                "found": c.found,
                "type": c.type or None,
                "rows": c.num_rows,
                "of": len(guess.rows),
                "example": c.example,
            }
            for c in guess.columns
        ],
        "rows": [dict(row) for row in guess.rows[-num_rows:]] if num_rows else [],
    }


def _files(guess: Guess, *, topic: str, source: SourceSpec) -> dict[str, str]:
    """Name → text of a first task and its job."""
    from dtrain.cli import skeleton

    task = {f"{skeleton.module_of(topic)}.py": skeleton.task_text(guess, topic=topic)}
    return task | {"job.yaml": skeleton.job_text(guess, topic=topic, bootstrap=source.bootstrap, security=source.security)}


def _write(folder: Path, files: dict[str, str]) -> None:
    """Every file is there, and new."""
    if there := [name for name in files if (folder / name).exists()]:
        raise ConflictError(f"{folder / there[0]} exists", fix="name another folder, or move it away")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _configs(retention: str) -> dict[str, str]:
    """A new topic's settings."""
    from dtrain.spec.durations import parse_duration_s

    if retention == "forever":
        return {"retention.ms": "-1"}
    try:
        return {"retention.ms": str(round(parse_duration_s(retention) * 1000))}
    except ValueError as error:
        raise InputError(f"--retention {retention!r} is not a duration", fix="write for example 7d, or forever") from error


def _fill(writer: KafkaWriter, source: TableFile, shape: Shape, facts: TopicFacts, *, rate: float) -> bool:
    """The rows of `source` are in the topic; False when the user has had enough: what was sent is acknowledged all the same."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from dtrain.data.shaping import messages

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(is_error=True), transient=True) as bar, _interruptible() as stopped:
        shown, began_s, num_sent = bar.add_task("", total=1.0), time.monotonic(), 0
        for message in messages(source, shape, num_partitions=len(facts.partitions), partition_of=writer.partition_of):
            if not num_sent and message.timestamp_ms is not None:
                _warn_of_retention(facts, message.timestamp_ms / 1000)
            while rate and not stopped and (wait_s := began_s + num_sent / rate - time.monotonic()) > 0:
                time.sleep(min(wait_s, 0.2))
            if stopped:
                break
            writer.send(message)
            num_sent += message.num_rows
            speed = writer.num_rows / max(time.monotonic() - began_s, 1e-3)
            bar.update(shown, completed=source.share(), description=f"{writer.num_rows:,} rows · {speed:,.0f} a second")
        writer.flush()
    return not stopped


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """A list that is not empty any more when the user has pressed Ctrl-C; a second time ends everything at once."""
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        signal.signal(number, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _warn_of_retention(facts: TopicFacts, at_s: float) -> None:
    """Tell the user when what is sent will be deleted soon, because it is old."""
    from dtrain.cli.screen import seconds, when

    if facts.retention_s is not None and at_s < time.time() - facts.retention_s:
        words = f"topic {facts.name!r} keeps {seconds(facts.retention_s)}, and the first row is of {when(at_s)}: Kafka will delete it soon"
        console(is_error=True).print(f"{words}\n  raise the topic's retention.ms, or leave --timestamp out", style="yellow")
