"""How topics look: tables and a screen for people, from the values that programs get."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dtrain.cli.screen import figure, seconds, when

_MOST_COLUMNS = 8


def topics_table(values: Iterable[Mapping[str, Any]]) -> Table:
    """A row for each topic."""
    table = _table("TOPIC", "PARTITIONS>", "OFFSETS>", "PER SECOND>", "NEWEST", "KEEPS~", "ID~")
    for value in values:
        newest_s = max((each["newest_s"] or 0.0 for each in value["partitions"]), default=0.0)
        table.add_row(
            value["topic"],
            str(len(value["partitions"])),
            f"{value['num_offsets']:,}",
            _rate(value["offsets_per_s"]),
            _age(newest_s),
            _line(_kept(value)),
            _line(value["topic_id"], "dim"),
        )
    return table


def topic_screen(value: Mapping[str, Any]) -> RenderableType:
    """One topic: what it is, its partitions, and some rows."""
    head = Text.assemble((value["topic"], "bold"), "  ", (f"id {value['topic_id']}", "dim"))
    settings = Text(f"keeps {_kept(value)} · messages up to {_size(int(value['configs'].get('max.message.bytes') or 0))}")
    table = _table("PARTITION>", "LEADER>", "BEGIN>", "END>", "OFFSETS>", "PER SECOND>", "NEWEST")
    for each in value["partitions"]:
        offsets = (f"{each['begin']:,}", f"{each['end']:,}", f"{each['end'] - each['begin']:,}")
        leader = str(each["leader"]) if each["leader"] >= 0 else Text("none", style="red")
        table.add_row(str(each["partition"]), leader, *offsets, _rate(each["offsets_per_s"]), _age(each["newest_s"] or 0.0))
    parts: list[RenderableType] = [head, settings, Text(), table]
    sample = value["sample"]
    if sample["num_messages"]:
        each = sample["rows_per_message"]
        row_rate = f" · about {value['offsets_per_s'] * each:,.0f} rows a second" if value["offsets_per_s"] else ""
        words = f"its newest messages: {_kinds(sample['kinds'])}, {figure(each)} row{_s(each)} each{row_rate}"
        parts += [Text(), Text(words, style="dim"), _rows_table(sample["rows"])]
        parts += [Text(f"look into it with: dtrain peek {value['topic']}", style="dim")]
    return Group(*parts)


def peek_screen(value: Mapping[str, Any]) -> RenderableType:
    """What messages hold, and a first schema for them."""
    messages = f"the newest {value['num_messages']:,} message{_s(value['num_messages'])}: {_kinds(value['kinds'])}"
    sizes = (
        f"{figure(value['rows_per_message'])} row{_s(value['rows_per_message'])} and {_size(value['bytes_per_message'])} each"
    )
    keys = "with keys" if value["has_keys"] else "without keys"
    parts: list[RenderableType] = [
        Text.assemble((value["topic"], "bold"), "  ", messages),
        Text(f"{sizes} · {keys}", style="dim"),
    ]
    if value["columns"]:
        table = _table("COLUMN", "FOUND~", "TYPE", "ROWS>", "EXAMPLE~")
        for each in value["columns"]:
            rows = Text(f"{each['rows']:,} of {each['of']:,}", style="yellow" if each["rows"] < each["of"] else "")
            kind = Text(each["type"], style="green") if each["type"] else Text("none fits", style="yellow")
            table.add_row(_line(each["name"]), _line(each["found"]), kind, rows, _cell(each["example"]))
        parts += [Text(), table]
    if value["rows"]:
        parts += [Text(), _rows_table(value["rows"])]
    if value["columns"]:
        parts += [Text(), Text("a first schema:", style="dim"), Text(value["schema"])]
    parts += [Text(), _next(value)]
    return Group(*parts)


def produced_text(value: Mapping[str, Any]) -> Text:
    """What was sent."""
    what = f"{value['rows']:,} row{_s(value['rows'])} in {value['messages']:,} message{_s(value['messages'])}"
    where = f"{value['topic']} ({value['partitions']} partition{_s(value['partitions'])})"
    speed = f"{value['rows'] / max(value['seconds'], 1e-3):,.0f} rows a second"
    style = "bold green" if value["is_whole"] else "bold yellow"
    stopped = "" if value["is_whole"] else "stopped: "
    rest = f"{_size(value['bytes'])} in {seconds(value['seconds'])}, {speed}; every one is acknowledged"
    return Text.assemble((f"{stopped}{what} are in {where}", style), f"\n{rest}")


def lag_screen(value: Mapping[str, Any]) -> RenderableType:
    """A row for each partition, and all of them together."""
    old = f" · as of {seconds(value['status_age_s'])} ago" if value["status_age_s"] > 5 else ""
    table = _table("PARTITION", "POSITION>", "END>", "LAG>", "ROWS>", "WAITS FOR>")
    for each in value["partitions"]:
        position = f"{each['offset']:,}" + (f" row {each['row']:,}" if each["row"] else "")
        table.add_row(each["partition"], position, f"{each['end']:,}", *_lag(each))
    table.add_row(*(Text(text, style="bold") for text in ("all", "", "", *_lag(value))))
    lost = [
        Text(
            f"{each['partition']}: {each['lost_offsets']:,} offsets were deleted before the job had trained them",
            style="bold red",
        )
        for each in value["partitions"]
        if each["lost_offsets"]
    ]
    head = Text.assemble((value["job_id"], "bold"), f"  {value['state']}", (f"{old} · consumer group {value['group']}", "dim"))
    note = Text(
        "LAG is in offsets, of which not all need be records; ROWS is an estimate from the first that wait", style="dim"
    )
    return Group(head, Text(), table, *lost, Text(), note)


def _lag(value: Mapping[str, Any]) -> tuple[str, str, str]:
    waits = seconds(value["lag_s"]) if value["lag_s"] is not None and value["lag_offsets"] else "–"
    return f"{value['lag_offsets']:,}", f"≈{value['lag_rows']:,}" if value["lag_offsets"] else "0", waits


def _next(value: Mapping[str, Any]) -> Text:
    """What to do now."""
    if value["written_to"]:
        files = " and ".join(f"{value['written_to']}/{name}" for name in value["files"])
        return Text(f"written: {files}\ntrain with: dtrain local {value['written_to']}/job.yaml", style="bold")
    if value["files"]:
        return Text(f"write a first task and job file with: dtrain peek {value['topic']} --write FOLDER", style="dim")
    if value["format"]:
        return Text("nothing here is a number to predict; see docs/topics.md", style="yellow")
    return Text("source.format has to say more about these, or they cannot be read; see docs/formats.md", style="yellow")


def _rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Some rows, with the first columns that they have."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = _table(*(f"{name}~" for name in names[:_MOST_COLUMNS]))
    if len(names) > _MOST_COLUMNS:
        table.add_column(f"+{len(names) - _MOST_COLUMNS} more", style="dim")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names[:_MOST_COLUMNS]))
    return table


def _table(*names: str) -> Table:
    """Headers over columns: `>` behind one of figures, on the right; `~` behind one that is cut short where there is no room."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in names:
        header = Text(name.rstrip(">~"), no_wrap=True, overflow="ellipsis")
        is_short = name.endswith("~")
        table.add_column(header, justify="right" if name.endswith(">") else "left", no_wrap=not is_short, overflow="ellipsis")
    return table


def _cell(value: Any) -> Text:
    """A value, short, on one line."""
    if isinstance(value, float):
        return _line(f"{value:.6g}")
    if isinstance(value, list):
        shown = ", ".join(str(_cell(item)) for item in value[:4])
        return _line(f"[{shown}, … {len(value)}]" if len(value) > 4 else f"[{shown}]")
    text = str("–" if value is None else value)
    return _line(text if len(text) <= 40 else f"{text[:39]}…")


def _line(text: str, style: str = "") -> Text:
    """Text that is never broken into lines."""
    return Text(text.replace("\n", " "), style=style, no_wrap=True, overflow="ellipsis")


def _kinds(kinds: Mapping[str, int]) -> str:
    if len(kinds) == 1:
        return next(iter(kinds))
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())


def _kept(value: Mapping[str, Any]) -> str:
    """How long, and how much of it."""
    configs = value["configs"]
    size = int(configs.get("retention.bytes") or -1)
    kept = "for ever" if value["retention_s"] is None else seconds(value["retention_s"])
    words = [
        kept,
        f"{_size(size)} a partition" if size >= 0 else "",
        "compacted" if "compact" in configs.get("cleanup.policy", "") else "",
    ]
    return ", ".join(filter(None, words))


def _rate(per_s: float | None) -> str:
    return "" if per_s is None else figure(per_s)


def _age(newest_s: float) -> str:
    """How old a moment is; of those far back, when it was."""
    age_s = time.time() - newest_s
    return "–" if not newest_s else f"{seconds(age_s)} ago" if age_s < 172_800 else when(newest_s, "%Y-%m-%d")


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:,.0f} {unit}" if unit == "B" or num_bytes >= 10 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} GB"


def _s(count: float) -> str:
    return "" if count == 1 else "s"
