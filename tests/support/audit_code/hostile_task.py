"""User code at its worst: the audit's task, which does what `params["acts"]` says once it meets an id."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from descent import Descent
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import dtrain

ALL_REDUCE_IDS = 200
LATE_S = 0.4
SLOWER = 10


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class KillInBackward(torch.autograd.Function):
    @staticmethod
    def forward(context, outputs):
        return outputs.clone()

    @staticmethod
    def backward(context, gradient):
        die()


class HostileDescent(Descent):
    """Takes `pace_s` for a step until the file `hurry` exists, and dies where its task says.

    From the id `slow_from` on it takes ten times as long: on a busy machine a stream must not end before its faults were seen.
    """

    def __init__(self, parameters, task):
        super().__init__(parameters)
        self.task = task

    def step(self, closure=None):
        self.task.die_at("optimizer start")
        if self.task.pace_s and not (self.task.folder / "hurry").exists():
            time.sleep(self.task.pace_s * (SLOWER if self.task.is_near_the_end else 1))
        super().step(closure)
        self.task.die_at("optimizer end")


class HostileSchedule(LambdaLR):
    def step(self, epoch=None):
        self.optimizer.task.die_at("schedule")
        super().step(epoch)


class HostileTask(dtrain.Task):
    """One weight a record id, as the audit's task. Acts: name → id of the record at which it happens.

    `kill *`, `hang` and `fork` happen once in a job; the others each time.
    """

    features = dtrain.Schema({"id": "int64"})

    def model(self, params):
        self.folder, self.acts, self.pace_s = Path(params["folder"]), params["acts"], params["pace_s"]
        self.doom, self.is_near_the_end, self.slow_from = "", False, params.get("slow_from", params["num_ids"])
        weights = nn.Embedding(params["num_ids"], 1)
        nn.init.zeros_(weights.weight)
        return weights

    def optimizer(self, model, params):
        return HostileDescent(model.parameters(), self)

    def scheduler(self, optimizer, params):
        return HostileSchedule(optimizer, lambda _: 1.0)

    def forward(self, model, batch):
        ids = batch["id"]
        self.is_near_the_end = self.is_near_the_end or bool((ids > self.slow_from).any())
        self.be_late(ids)
        if (self.folder / "behave").exists():
            return model(ids).squeeze(1)
        act = next((act for act, at in self.acts.items() if bool((ids == at).any())), "")
        if act.startswith("kill ") and self.is_first(act):
            self.doom = act.removeprefix("kill ")
        self.die_at("forward")
        if act in {"hang", "fork"} and self.is_first(act):
            self.hang() if act == "hang" else os.fork()
        if act in {"raise", "exit", "vanish", "grow"}:
            getattr(self, f"do_{act}")(model)
        outputs = model(ids).squeeze(1)
        return KillInBackward.apply(outputs) if self.doom == "backward" else outputs

    def loss(self, outputs, batch):
        return outputs.mean() if bool((batch["id"] == self.acts.get("shape", -1)).any()) else outputs

    def is_first(self, act):
        """Whether nobody in the job has done `act` before: a file remembers it."""
        try:
            os.close(os.open(self.folder / act.replace(" ", "-"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def die_at(self, place):
        if self.doom == place:
            die()

    def be_late(self, ids):
        """Of the ranks that meet such an id first, one dies while it waits in the all-reduce for the others, who are late."""
        first = self.acts.get("kill all-reduce")
        if first is None or not bool(((ids >= first) & (ids < first + ALL_REDUCE_IDS)).any()):
            return
        if self.is_first("kill all-reduce"):
            threading.Timer(LATE_S / 2, die).start()
        elif time.time() - (self.folder / "kill-all-reduce").stat().st_mtime < LATE_S:
            time.sleep(LATE_S)

    def hang(self):
        while True:
            time.sleep(0.01)

    def do_raise(self, model):
        raise ValueError("these rows are not to my taste")

    def do_exit(self, model):
        sys.exit("that is enough")

    def do_vanish(self, model):
        os._exit(1)

    def do_grow(self, model):
        model.register_parameter("more", nn.Parameter(torch.zeros(3)))
