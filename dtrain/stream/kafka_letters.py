"""A topic of bad records, read with its headers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, cast

from kafka import TopicPartition

from dtrain.errors import UnavailableError
from dtrain.steplog.positions import Partition
from dtrain.stream.kafka import KafkaLog, KafkaTail
from dtrain.stream.log import Letter, OutOfRangeError, until
from dtrain.stream.patience import REQUEST_MS

_SILENCE_S = 10.0


class KafkaLetters(KafkaLog):
    """The broker of a spec as a `LetterBox`."""

    def letters(self, topic: str) -> Iterator[Letter]:
        """See `LetterBox.letters`."""
        try:
            yield from self._letters(topic)
        except OutOfRangeError as error:
            raise UnavailableError(f"{topic}: letters were deleted while they were read", fix="try again") from error

    def _letters(self, topic: str) -> Iterator[Letter]:
        with self._heard.mapped(), closing(self._plain_consumer()) as consumer:
            partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
            if not partitions:
                return
            begins = consumer.beginning_offsets(partitions, timeout_ms=REQUEST_MS)
            ends = consumer.end_offsets(partitions, timeout_ms=REQUEST_MS)
            todo = {Partition(tp.topic, tp.partition): end for tp, end in ends.items() if begins[tp] < end}
            starts = {partition: begins[TopicPartition(*partition)] for partition in todo}
            tail = KafkaTail(consumer, consumer._client, starts, heard=self._heard, clock=self._clock)
            for _, records, _ in until(tail, todo, silence_s=_SILENCE_S, clock=self._clock):
                for record in cast("Sequence[Any]", records):  # the plain consumer's own, which have headers
                    yield Letter(record.key, record.value, record.headers)
            if todo:
                raise UnavailableError(f"{topic}: nothing more comes", fix="see whether the broker is well")
