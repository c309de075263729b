"""The smallest task: learn y = 2 x + 1 from its rows."""

import torch
from torch import nn

import dtrain


class LineTask(dtrain.Task):
    """One weight and one bias."""

    features = dtrain.Schema({"x": "float32", "y": "float32"})
    label = "y"

    def model(self, params):
        """Seeded by the job."""
        return Line()

    def optimizer(self, model, params):
        """Plain descent is enough."""
        return torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(self, outputs, batch):
        """Squared error, a row each."""
        return (outputs - batch["y"]) ** 2


class Line(nn.Module):
    """y = w x + b."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, x):
        """A value for each row."""
        return self.line(x.unsqueeze(1)).squeeze(1)
