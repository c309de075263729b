"""A topic of bad records, read with its headers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from kafka import TopicPartition

from dtrain.errors import UnavailableError
from dtrain.stream.kafka import KafkaLog
from dtrain.stream.log import Letter, OutOfRangeError
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
            consumer.assign(partitions)
            for partition, begin in consumer.beginning_offsets(partitions, timeout_ms=REQUEST_MS).items():
                consumer.seek(partition, begin)
            ends = consumer.end_offsets(partitions, timeout_ms=REQUEST_MS)
            heard_at_s = self._clock.monotonic_s()
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                came = consumer.poll(timeout_ms=200).values()
                for records in came:
                    yield from (Letter(record.key, record.value, record.headers) for record in records)
                if came:
                    heard_at_s = self._clock.monotonic_s()  # what others do with them is not the broker's time
                if self._clock.monotonic_s() - heard_at_s > _SILENCE_S:
                    raise UnavailableError(f"{topic}: nothing more comes", fix="see whether the broker is well")
