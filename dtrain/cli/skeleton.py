"""A first task and a first job file for a topic: texts that run as they are, and are meant to be changed."""

from __future__ import annotations

import json
import re
from math import prod
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dtrain.data.guess import Column, Guess
    from dtrain.spec.security import SecuritySpec

_LONGEST_TOPIC = 249

_TASK = Template('''\
"""A first task for the topic $topic, written by `dtrain peek`: change it as you like."""

import dtrain
import torch
from torch import nn


class Task(dtrain.Task):
    features = $schema
    label = $quoted

    def model(self, params):
        return Model(num_inputs=$num_inputs)

    def loss(self, outputs, batch):  # one loss a row
        return $loss
$predict
$texts
class Model(nn.Module):
    def __init__(self, num_inputs):
        super().__init__()$words
        self.layers = nn.Sequential(nn.Linear($width, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, **columns):  # each is [rows, *shape]$embedded
        numbers = [column.float().reshape(len(column), -1) for column in columns.values()]
        tamed = [number.sign() * number.abs().log1p() for number in numbers]  # the logarithm tames large ones
        return self.layers(torch.cat($inputs, dim=1)).squeeze(1)
''')

_TEXTS = """
TEXTS = $names  # each text is one of 1,000 buckets, which has a vector of 8 numbers to be learned

"""
_WORDS = """
        self.words = nn.ModuleList(nn.Embedding($buckets, 8) for _ in TEXTS)"""
_EMBEDDED = """
        words = [embed(columns.pop(name)) for name, embed in zip(TEXTS, self.words)]  # each [rows, 8]"""
_BUCKETS = 1000

_BINARY = 'nn.functional.binary_cross_entropy_with_logits(outputs, batch[$quoted].float(), reduction="none")'
_NUMBER = "(outputs - batch[$quoted].float()) ** 2"
_PREDICT = """
    def predict(self, outputs, batch):  # scored before the row is trained on
        return outputs.sigmoid()
"""

_JOB = Template("""\
name: $name
task: $module:Task
source:
  topic: $topic
  bootstrap: $bootstrap$security
  format: $format
  start: earliest
  on_bad_record: {send_to: $rejected, budget: 0.01}
batch: {rows: 512, max_wait: 200ms}
workers: {min: 1, max: 1}
checkpoint: {to: checkpoints, every: 10s}
$evaluate""")


def schema_text(guess: Guess) -> str:
    """`dtrain.Schema({...})`; columns that cannot be in it are there as comments that say why."""
    return "\n".join(["dtrain.Schema({", *(f"    {_line(column, guess)}" for column in guess.columns), "})"])


def module_of(topic: str) -> str:
    """The name of the task's module, which no other module has."""
    word = re.sub(r"\W+", "_", topic, flags=re.ASCII).strip("_").lower()[:200]  # a file's name has an end
    return f"{word if word[:1].isalpha() else f'topic_{word}'}_task"


def can_train(guess: Guess) -> bool:
    """Whether there are a format, a label, and something to predict it from."""
    return bool(guess.format and guess.label and sum(column.is_usable for column in guess.columns) > 1)


def task_text(guess: Guess, *, topic: str) -> str:
    """A module whose `Task` is a small network over all numbers and texts that predicts the label."""
    label = _label(guess)
    quoted = _quoted(label.name)
    inputs = [column for column in guess.columns if column.is_usable and column is not label]
    texts = [column.name for column in inputs if column.is_text]
    return _TASK.substitute(
        topic=topic,
        quoted=quoted,
        schema=schema_text(guess).replace("\n", "\n    "),
        num_inputs=sum(_size(column) for column in inputs if not column.is_text),
        texts=Template(_TEXTS).substitute(names=f"({', '.join(map(_quoted, texts))},)") if texts else "",
        words=Template(_WORDS).substitute(buckets=_BUCKETS) if texts else "",
        width="num_inputs + 8 * len(TEXTS)" if texts else "num_inputs",
        embedded=_EMBEDDED if texts else "",
        inputs="[*words, *tamed]" if texts else "tamed",
        loss=Template(_BINARY if label.is_binary else _NUMBER).substitute(quoted=quoted),
        predict=_PREDICT if label.is_binary else "",
    )


def job_text(guess: Guess, *, topic: str, bootstrap: str, security: SecuritySpec | None = None) -> str:
    """The job file beside the module of `task_text`; it refers to the secrets that `security` refers to."""
    login = security.model_dump(mode="json", exclude_defaults=True) if security else {}
    written = json.dumps(login, ensure_ascii=False).replace("${", "$${")
    return _JOB.substitute(
        name=re.sub(r"[^a-z0-9]+", "-", topic.lower()).strip("-")[:56].strip("-") or "job",
        module=module_of(topic),
        topic=json.dumps(topic),
        rejected=json.dumps(f"{topic[: _LONGEST_TOPIC - len('.rejected')]}.rejected"),
        bootstrap=json.dumps(bootstrap),
        security=f"\n  security: {written}" if login else "",
        format=guess.format,
        evaluate="evaluate: {metrics: [auroc, accuracy]}\n" if _label(guess).is_binary else "",
    )


def _label(guess: Guess) -> Column:
    return next(column for column in guess.columns if column.name == guess.label)


def _line(column: Column, guess: Guess) -> str:
    name = _quoted(column.name)
    if not column.type:  # what was found is the topic's own text, of which no line may leave the comment
        found = column.found if column.found.isprintable() else repr(column.found)
        return f"# {name} is {found}, which no type fits"
    kind = f'dtrain.Column("string", buckets={_BUCKETS})' if column.is_text else _quoted(column.type)
    line = f"{name}: {kind},"
    if column.is_usable:
        return line
    return f"# {line}  has no value in {len(guess.rows) - column.num_rows} of {len(guess.rows)} rows"


def _quoted(text: str) -> str:
    """`text` as Python writes it, which is not as JSON does, in double quotes where they do."""
    plain = repr(text)
    return plain if '"' in text or plain[0] == '"' else f'"{plain[1:-1]}"'


def _size(column: Column) -> int:
    """Numbers in a row."""
    _, _, shape = column.type.partition("[")
    return prod(int(part) for part in shape.rstrip("]").split(",")) if shape else 1
