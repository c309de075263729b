"""The audit's task over rows that are large: 4 KB each, of which the id alone counts; by an optimizer of torch's."""

import torch
from audit_task import AuditTask

import dtrain


class WideTask(AuditTask):
    features = dtrain.Schema({"id": "int64", "x": "float32[1024]"})

    def optimizer(self, model, params):
        return torch.optim.SGD(model.parameters(), lr=1.0)
