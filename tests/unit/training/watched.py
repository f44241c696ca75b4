"""Two real workers over gloo with a tiny loop and their pulses: what test_watchdog.py starts, and where they
misbehave.
"""

import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raystack.training.watchdog.hang import Heartbeat, Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender

INTERVAL_S = 0.1
SLOW_S = 0.05


def read(slow: bool) -> Tensor:
    """A batch."""
    if slow:
        time.sleep(SLOW_S)
    return torch.ones(2, 4)


def loss_of(model: nn.Module, batch: Tensor, slow: bool, trap: Path | None) -> Tensor:
    """A loss; once there is a file `trap`, it never comes."""
    if trap is not None and trap.exists():
        time.sleep(3600)
    if slow:
        time.sleep(SLOW_S)
    loss: Tensor = model(batch).sum()
    return loss


def build(sharded: bool) -> nn.Module:
    """DDP with buffers, which rank 0 sends before each forward pass; or FSDP, which gathers weights in it."""
    if not sharded:
        return DistributedDataParallel(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    mesh = init_device_mesh("cpu", (2,))
    for layer in net:
        fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)  # type: ignore[return-value, unused-ignore]


def work(rank: int, sharded: bool, folder: Path, driver: "Connection[Heartbeat, Orders]") -> None:
    """A worker, until the parent ends it. With DDP rank 0 reads slowly, with FSDP rank 1's forward pass is
    slow.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)

    def send(heartbeat: Heartbeat) -> Orders:
        driver.send(heartbeat)
        return driver.recv()

    own = str(Path(__file__).parent)
    with HeartbeatSender(
        send, attempt=0, rank=rank, world=2, node="a", folder=own, interval_s=INTERVAL_S
    ) as heartbeats:
        model = build(sharded)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(100_000):
            heartbeats.begin(step)
            batch = read(slow=not sharded and rank == 0)
            heartbeats.enter("forward")
            loss = loss_of(model, batch, sharded and rank == 1, folder / "trap" if rank == 1 else None)
            heartbeats.backward(loss)
            loss.backward()
            heartbeats.enter("optimizer")
            optimizer.step()
            optimizer.zero_grad()
            heartbeats.enter("idle")
