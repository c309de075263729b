"""Will this user like this film? Two towers: one for users, one for films, which meet in a product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import dtrain

NUM_USERS, NUM_FILMS, NUM_OCCUPATIONS, NUM_GENRES = 944, 1683, 22, 19


class LikeTask(dtrain.Task):
    """A binary classifier: liked are four and five stars."""

    features = dtrain.Schema(
        {
            "user": "int64",
            "occupation": "int64",
            "age": "float32",
            "film": "int64",
            "genres": f"float32[{NUM_GENRES}]",
            "liked": "float32",
        }
    )
    label = "liked"

    def model(self, params: Mapping[str, Any]) -> nn.Module:
        """`params`: width of both towers."""
        return TwoTowers(width=params["width"])

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Binary cross-entropy, [rows]."""
        return binary_cross_entropy_with_logits(outputs, batch["liked"], reduction="none")

    def predict(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """The probability that it is liked, [rows]."""
        return outputs.sigmoid()


class TwoTowers(nn.Module):
    """Each tower makes a vector and a leaning of its own; the logit is the vectors' product and both leanings."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.users, self.occupations = _embedding(NUM_USERS, width + 1), _embedding(NUM_OCCUPATIONS, width + 1)
        self.films = _embedding(NUM_FILMS, width + 1)
        self.ages, self.genres = nn.Linear(1, width + 1), nn.Linear(NUM_GENRES, width + 1)

    def forward(self, user: Tensor, occupation: Tensor, age: Tensor, film: Tensor, genres: Tensor) -> Tensor:
        """Log-odds of being liked, [rows]."""
        who = self.users(user) + self.occupations(occupation) + self.ages(age.unsqueeze(1))  # [rows, width + 1]
        what = self.films(film) + self.genres(genres)  # [rows, width + 1]
        logits: Tensor = torch.sum(who[:, 1:] * what[:, 1:], dim=1) + who[:, 0] + what[:, 0]
        return logits


def _embedding(num_ids: int, width: int) -> nn.Embedding:
    table = nn.Embedding(num_ids, width)
    nn.init.normal_(table.weight, std=0.05)
    return table
