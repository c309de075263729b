"""P6's peer Ray Train: a TorchTrainer with FailureConfig(max_failures=-1), which goes on from its last checkpoint."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from p06_loop import arguments

SAVE_EVERY = 500


def main() -> None:
    """The driver, with a Ray of its own; never ends by itself."""
    args = arguments()
    here = str(Path(__file__).parent)
    os.environ |= {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ray.init(
        num_cpus=4, include_dashboard=False, _temp_dir=str(args.folder / "ray"), logging_level="ERROR", log_to_driver=False
    )
    TorchTrainer(
        train,
        train_loop_config={"folder": str(args.folder)},
        scaling_config=ScalingConfig(num_workers=args.world_size, resources_per_worker={"CPU": 0.2}),
        torch_config=TorchConfig(backend="gloo", timeout_s=int(args.timeout_s) or 1800),
        run_config=RunConfig(storage_path=str(args.folder / "store"), failure_config=FailureConfig(max_failures=-1)),
    ).fit()


def train(config: dict[str, Any]) -> None:
    """One rank."""
    import ray.train
    import torch
    from p06_loop import Trace, batches, build, loss_of, save
    from ray.train import Checkpoint
    from ray.train.torch import prepare_model

    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    model, optimizer = build()
    step = 0
    if (last := ray.train.get_checkpoint()) is not None:
        with last.as_directory() as folder:
            saved = torch.load(Path(folder, "snapshot.pt"))
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    parallel = prepare_model(model, parallel_strategy_kwargs={"gradient_as_bucket_view": True, "static_graph": True})
    rows, trace = batches(world_size=world_size), Trace(Path(config["folder"]), rank=rank)
    while True:
        optimizer.zero_grad()
        loss_of(parallel, rows[step % len(rows)]).backward()
        optimizer.step()
        step += 1
        trace.applied(step)
        if step % SAVE_EVERY == 0:
            with tempfile.TemporaryDirectory() as folder:
                if rank == 0:
                    save(Path(folder, "snapshot.pt"), step=step, model=model, optimizer=optimizer)
                ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)


if __name__ == "__main__":
    main()
