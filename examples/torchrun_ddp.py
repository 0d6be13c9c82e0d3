"""Plain DistributedDataParallel for torchrun. It knows nothing of Longhaul, which runs it across an emulated WAN:

    longhaul wan torchrun transatlantic -- examples/torchrun_ddp.py --steps 10

The same script on one machine: torchrun --nproc-per-node 4 examples/torchrun_ddp.py
"""

import argparse
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--backend", default="gloo")
parser.add_argument("--width", type=int, default=256)
args = parser.parse_args()

dist.init_process_group(args.backend)
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = DistributedDataParallel(
    torch.nn.Sequential(torch.nn.Linear(64, args.width), torch.nn.ReLU(), torch.nn.Linear(args.width, 1))
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
torch.manual_seed(1 + rank)
inputs = torch.randn(256, 64)
targets = 2 * inputs[:, :1]
for step in range(args.steps):
    began = time.monotonic()
    loss = torch.nn.functional.mse_loss(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    mean = loss.detach().clone()
    dist.all_reduce(mean)
    if rank == 0:
        print(f"step {step + 1}: loss {mean.item() / world:.4f}, {time.monotonic() - began:.3f} s", flush=True)
dist.destroy_process_group()
