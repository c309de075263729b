"""The weights are the audit: each record's weight goes down by one each time it is trained."""

from descent import Descent
from torch import nn

import dtrain


class AuditTask(dtrain.Task):
    """One weight a record id; loss = the sum of those looked up; SGD with rate 1 and `reduction: sum`.

    Afterwards every weight is exactly -1: 0 means lost, -2 means trained twice.
    """

    features = dtrain.Schema({"id": "int64"})

    def model(self, params):
        weights = nn.Embedding(params["num_ids"], 1)
        nn.init.zeros_(weights.weight)
        return weights

    def optimizer(self, model, params):
        return Descent(model.parameters())

    def forward(self, model, batch):
        return model(batch["id"])

    def loss(self, outputs, batch):
        return outputs.squeeze(1)
