"""Does the writer of this review recommend the piece? A GRU over its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import dtrain

NUM_WORDS = 8192
LENGTH = 48


class ReviewTask(dtrain.Task):
    """A binary classifier. `tokens.py` makes `words` of the text: ids from 1, zeros behind the last word."""

    features = dtrain.Schema({"words": f"int64[{LENGTH}]", "recommended": "float32"})
    label = "recommended"

    def model(self, params: Mapping[str, Any]) -> nn.Module:
        """`params`: embedding (numbers for each word), hidden (of the GRU)."""
        return ReviewModel(embedding=params["embedding"], hidden=params["hidden"])

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Binary cross-entropy, [rows]."""
        return binary_cross_entropy_with_logits(outputs, batch["recommended"], reduction="none")

    def predict(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """The probability of a recommendation, [rows]."""
        return outputs.sigmoid()


class ReviewModel(nn.Module):
    """Words, in their order, into a GRU; the mean of what it says behind each word decides."""

    def __init__(self, *, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_WORDS, embedding)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.gru = nn.GRU(embedding, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def forward(self, words: Tensor) -> Tensor:
        """Log-odds of a recommendation, [rows]; `words` is [rows, LENGTH]."""
        states, _ = self.gru(self.embedding(words))  # [rows, LENGTH, hidden]
        is_word = (words > 0).unsqueeze(2)
        mean = (states * is_word).sum(dim=1) / is_word.sum(dim=1).clamp(min=1)
        logits: Tensor = self.head(mean)[:, 0]
        return logits
