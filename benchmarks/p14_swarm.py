"""P14's simulated trainers: in one process, each with its own socket, saying what a real trainer's pulse says, as often."""

from __future__ import annotations

import argparse
import asyncio
import json

STEPS_A_S = 10


def main() -> None:
    """Until the listener is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--token")
    parser.add_argument("--num", type=int)
    parser.add_argument("--every-s", type=float)
    args = parser.parse_args()
    asyncio.run(_swarm(args))


async def _swarm(args: argparse.Namespace) -> None:
    await asyncio.gather(*(_trainer(args, member) for member in range(args.num)))


async def _trainer(args: argparse.Namespace, member: int) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(args.every_s * member / args.num)
    _, writer = await asyncio.open_connection(args.host, args.port)
    writer.write(json.dumps({"token": args.token, "member": member}).encode() + b"\n")
    began_s = next_s = loop.time()
    while not writer.is_closing():
        beat = {"phase": "computes", "plan_number": int((loop.time() - began_s) * STEPS_A_S), "row_s": 1e-6}
        writer.write(json.dumps(beat).encode() + b"\n")
        next_s += args.every_s
        await asyncio.sleep(max(0.0, next_s - loop.time()))


if __name__ == "__main__":
    main()
