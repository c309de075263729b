"""P3's peer: Ray Train's TorchTrainer fed by ray.data.read_kafka, as their documentation puts them together. In an environment of its own."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    """The driver, with a Ray of its own; ends with the topic."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--bootstrap")
    parser.add_argument("--topic")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--world-size", type=int)
    args = parser.parse_args()
    os.environ |= {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ray.init(
        num_cpus=4, include_dashboard=False, _temp_dir=str(args.folder / "ray"), logging_level="ERROR", log_to_driver=False
    )
    messages = ray.data.read_kafka(args.topic, bootstrap_servers=args.bootstrap, start_offset="earliest", end_offset="latest")
    TorchTrainer(
        train,
        train_loop_config={"folder": str(args.folder), "rows": args.rows},
        datasets={"train": messages.map_batches(decode, batch_format="pyarrow")},
        scaling_config=ScalingConfig(num_workers=args.world_size, resources_per_worker={"CPU": 0.2}),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(storage_path=str(args.folder / "store")),
    ).fit()


def decode(messages: Any) -> Any:
    """Messages → rows."""
    import pyarrow as pa

    return pa.concat_tables(pa.ipc.open_stream(value.as_buffer()).read_all() for value in messages["value"])


def train(config: dict[str, Any]) -> None:
    """One rank."""
    import ray.train
    from p06_loop import Trace, build, loss_of
    from ray.train.torch import prepare_model

    context = ray.train.get_context()
    model, optimizer = build()
    parallel = prepare_model(model, parallel_strategy_kwargs={"gradient_as_bucket_view": True, "static_graph": True})
    trace = Trace(Path(config["folder"]), rank=context.get_world_rank())
    shard, num_rows = ray.train.get_dataset_shard("train"), config["rows"] // context.get_world_size()
    for step, batch in enumerate(shard.iter_torch_batches(batch_size=num_rows, drop_last=True, prefetch_batches=8)):
        optimizer.zero_grad()
        loss_of(parallel, (batch["x"], batch["y"])).backward()
        optimizer.step()
        trace.applied(step + 1)


if __name__ == "__main__":
    main()
