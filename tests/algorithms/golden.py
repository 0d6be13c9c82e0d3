"""Golden trajectories: losses of short runs by every method, kept as files and reviewed as a diff when they change.

`python -m tests.algorithms.golden` writes tests/algorithms/golden/*.json anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.algorithms.training import DENSE, MOE, train

FOLDER = Path(__file__).parent / "golden"
STEPS, SITES, EVALUATED = 8, 4, (4, 8)

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "single": {"plain": {}},
    "ddp": {"plain": {}, "bf16": {"wire_dtype": "bf16"}},
    "diloco": {"h4": {"sync_every": 4}, "h4-bf16": {"sync_every": 4, "wire_dtype": "bf16"}},
    "photon": {
        "fedavg-reset": {"sync_every": 4},
        "nesterov-keep": {
            "sync_every": 4,
            "optimizer_state": "keep",
            "server_optimizer": "nesterov",
            "server_lr": 0.7,
            "server_momentum": 0.9,
        },
        "fedadam-sync-ring": {
            "sync_every": 4,
            "optimizer_state": "sync",
            "aggregation": "ring",
            "server_optimizer": "fedadam",
            "server_lr": 0.01,
        },
        "fedyogi": {"sync_every": 4, "server_optimizer": "fedyogi", "server_lr": 0.01},
        "cohort-of-two-with-losses": {"sync_every": 2, "clients_per_round": 2, "drop_probability": 0.3, "server": 1},
        "fp4-updates": {"sync_every": 4, "update_compression": "fp4"},
        "int8-updates-bf16-models": {"sync_every": 4, "update_compression": "int8", "wire_dtype": "bf16"},
    },
    "lordo": {
        "global": {"sync_every": 4},
        "global-as-published": {"sync_every": 4, "betas": [0.999, 0.999], "switch_scale": 0.5, "warmup_steps": 3},
        "global-omega-1": {"sync_every": 4, "omega": 1.0},
        "global-no-feedback-3-periods": {"sync_every": 2, "k_u": 3, "k_v": 4, "error_feedback": False},
        "global-no-rotation": {"sync_every": 4, "rotate_moments": False},
        "global-warm-up-4": {"sync_every": 4, "warmup_steps": 4},
        "local": {"sync_every": 4, "variant": "local"},
        "local-averaged": {"sync_every": 4, "variant": "local", "moments": "average"},
        "global-bf16": {"sync_every": 4, "wire_dtype": "bf16"},
    },
    "lowrank_ddp": {
        "full": {"refresh_every": 4},
        "projected": {"refresh_every": 4, "send": "projected"},
        "quasi-hyperbolic": {"refresh_every": 4, "omega": 0.9},
    },
    "local_adam": {"k4": {"sync_every": 4}, "k4-bf16": {"sync_every": 4, "wire_dtype": "bf16"}},
    "desloc": {
        "2-3-4": {"sync_every": 2, "k_u": 3, "k_v": 4},
        "nesterov": {"sync_every": 4, "outer_lr": 0.7, "outer_momentum": 0.9},
    },
    "streaming_diloco": {
        "fp4": {"sync_every": 4, "layers_per_fragment": 1, "wire_dtype": "fp4"},
        "overlap-3": {"sync_every": 4, "layers_per_fragment": 1, "overlap": 3},
        "alpha-0-no-overlap": {"sync_every": 4, "layers_per_fragment": 1, "alpha": 0.0, "overlap": 0},
    },
    "sparseloco": {"2-bit": {"sync_every": 3, "chunk": 64, "k": 4}},
    "muloco": {"2-bit": {"sync_every": 3, "chunk": 64}, "fp32": {"sync_every": 4, "bits": 32}},
    "noloco": {"pairs": {"sync_every": 3}},
    "demo": {"k3": {"chunk": 32, "k": 3}},
    "compressed_ddp": {"top-k": {"chunk": 64, "k": 4}, "sign": {"codec": "sign", "chunk": 64}},
    "powersgd": {"r2": {"rank": 2}},
    "async_diloco": {"H=3": {"sync_every": 3}, "unlike sites": {"periods": [2, 3, 4, 6], "spread": 0.25}},
    "eager_diloco": {"fragments": {"sync_every": 3, "layers_per_fragment": 1}},
    "fomoe": {
        "half-masked": {"sync_every": 4},
        "half-skip": {"sync_every": 4, "routing": "skip"},
        "disjoint-diloco": {"sync_every": 4, "replication": 1, "outer": "diloco"},
        "disjoint-diloco-experts-alone": {
            "sync_every": 4,
            "replication": 1,
            "outer": "diloco",
            "outer_on_single_holder": False,
        },
        "random-diloco": {"sync_every": 4, "placement": "random", "outer": "diloco"},
        "random-diloco-shipped": {
            "sync_every": 2,
            "placement": "random",
            "outer": "diloco",
            "outer_momentum_of_moved": "ship",
        },
        "random-skip-every-2-rounds": {"sync_every": 2, "placement": "random", "routing": "skip", "move_every": 2},
        "half-bf16": {"sync_every": 4, "wire_dtype": "bf16"},
    },
}


def trajectory(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run: mean training loss by step, evaluated loss, bytes. fp64, or fp32 for a coarse wire."""
    shape = MOE if name == "fomoe" else DENSE
    coarse = {"wire_dtype", "update_compression"} & set(options)
    run = train(name, options, shape, SITES, STEPS, double=not coarse, evaluate_at=EVALUATED)
    by_step: list[list[float]] = [[] for _ in range(STEPS)]
    for rank, site in enumerate(run.sites):
        trained = [step for step in range(1, STEPS + 1) if rank in run.plan.active(step)]
        for step, loss in zip(trained, site.losses, strict=True):
            by_step[step - 1].append(loss)
    return {
        "options": options,
        "losses": [sum(losses) / len(losses) for losses in by_step],
        "evaluations": {str(step): run.sites[0].evaluations[step] for step in EVALUATED},
        "payload_bytes": run.payload_bytes,
    }


def write() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, variants in VARIANTS.items():
        found = {variant: trajectory(name, options) for variant, options in variants.items()}
        (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write()
