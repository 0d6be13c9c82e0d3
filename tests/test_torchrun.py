"""`longhaul wan torchrun`: a script that knows nothing of Longhaul trains over an emulated WAN, and leaves a record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records.program_record import ProgramDirectory, ProgramOutcome, read_program, read_programs
from harness.run.torchrun import SCRIPT_RUNNER, TorchrunOrder, torchrun_arguments
from netsim.library import ROOT
from reports.build import build_report
from reports.story import story
from tests.emulated.networks import need

SITES = ["virginia", "ohio", "london", "frankfurt"]
SCRIPT = str(ROOT / "examples" / "torchrun_ddp.py")


def trained_at_two_sites(folder: Path, program: str, rate: str, rtt: str) -> tuple[ProgramOutcome, list[str]]:
    """A script run at two sites that are alike: its valid outcome and what each site's program printed."""
    script, topology, record = folder / "train.py", folder / "pair.yaml", folder / "record"
    script.write_text(program)
    links = f"{{up: {rate}, down: {rate}, rtt: {rtt}}}"
    topology.write_text(f"name: pair\ndefaults: {links}\nsites: {{a: {{}}, b: {{}}}}\n")
    wan_torchrun(str(topology), "--substrate", "netns", "--out", str(record), "--timeout", "2 min", "--", str(script))
    outcome = read_program(record).outcome
    assert outcome is not None
    assert outcome.valid
    return outcome, [ProgramDirectory(record).log(site).read_text() for site in ("a", "b")]


def wan_torchrun(*words: str, code: int = 0) -> str:
    argv = [sys.executable, "-m", "longhaul", "wan", "torchrun", *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=170)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "substrate", [pytest.param("netns", marks=pytest.mark.root), pytest.param("docker", marks=pytest.mark.docker)]
)
def test_an_unmodified_script_trains_across_the_atlantic(substrate: str, tmp_path: Path) -> None:
    need(substrate)
    record = tmp_path / "record"
    options = ["--substrate", substrate, "--out", str(record), "--timeout", "2 min"]
    wan_torchrun("transatlantic", *options, "--", SCRIPT, "--steps", "3")
    program = read_program(record)
    assert program.outcome is not None
    assert program.outcome.valid
    assert program.outcome.exit_codes == dict.fromkeys(SITES, 0)
    # Twelve links, of which gloo's ring uses four for gradients: 3 steps of 16,897 numbers, twice 3/4 of them each.
    gradients = 3 * 4 * 16_897
    busiest = sorted((link.bytes for link in program.outcome.links), reverse=True)
    assert len(busiest) == 12
    assert min(busiest[:4]) > 1.5 * gradients
    assert program.outcome.wan_bytes > 6 * gradients
    files = ProgramDirectory(record)
    lines = files.log("virginia").read_text().splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("step")] == ["step 1", "step 2", "step 3"]
    gate = json.loads(files.links.read_text())
    assert gate["before"]["passed"]
    assert gate["after"]["passed"]
    readings = [json.loads(line) for line in files.traffic.read_text().splitlines()]
    assert len(readings) >= 3
    assert readings[-1]["links"][0]["bytes"] >= readings[0]["links"][0]["bytes"]
    assert any("step 3" in line for line in story(record))
    document = build_report([record], tmp_path / "report")
    assert document["tables"]["programs"][0]["outcome"] == "valid"
    assert "torchrun_ddp.py" in (tmp_path / "report" / "index.html").read_text()
    assert [found.directory for found in read_programs([tmp_path])] == [record]


TRANSFORMERS = """
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM, get_linear_schedule_with_warmup

dist.init_process_group("gloo")
torch.manual_seed(0)
shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=64)
model = DistributedDataParallel(LlamaForCausalLM(LlamaConfig(**shape)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
schedule = get_linear_schedule_with_warmup(optimizer, 1, 10)
tokens = torch.arange(2 * 16).reshape(2, 16) % 64
losses = []
for step in range(4):
    loss = model(input_ids=tokens, labels=tokens).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
print("trained", losses[-1] < losses[0], flush=True)
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.root
def test_a_script_in_the_style_of_transformers_trains(tmp_path: Path) -> None:
    need("netns")
    outcome, logs = trained_at_two_sites(tmp_path, TRANSFORMERS, "100 Mbit", "200 ms")
    assert outcome.wan_bytes > 10_000
    assert all("trained True" in log for log in logs)


SHARDED = """
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))
plain = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
for layer in model:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer, reference = (torch.optim.SGD(parameters, lr=0.1) for parameters in (model.parameters(), plain))
inputs = torch.randn(dist.get_world_size(), 8, 64)  # the same everywhere; each member learns from its own part
for step in range(3):
    optimizer.zero_grad()
    model(inputs[dist.get_rank()]).square().mean().backward()
    optimizer.step()
    reference.zero_grad()
    a, b, c, d = plain
    (torch.relu(inputs.flatten(0, 1) @ a.T + b) @ c.T + d).square().mean().backward()
    reference.step()
shards = [parameter.to_local().numel() for parameter in model.parameters()]
whole = [parameter.full_tensor() for parameter in model.parameters()]
agrees = all(torch.allclose(one, other, atol=1e-5) for one, other in zip(whole, plain))
print("sharded", sum(shards), "of", sum(one.numel() for one in whole), "agrees", agrees, flush=True)
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.root
def test_fully_sharded_training_is_that_of_one_process(tmp_path: Path) -> None:
    """FSDP2 on gloo: parameters, gathered layer by layer, and gradients cross the WAN."""
    need("netns")
    outcome, logs = trained_at_two_sites(tmp_path, SHARDED, "200 Mbit", "20 ms")
    numbers = 2 * 64 * 256 + 64 + 256
    assert all(f"sharded {numbers // 2} of {numbers} agrees True" in log for log in logs)
    # Each step gathers the other half of the parameters forwards and backwards, and sends half of the gradients.
    assert all(link.bytes > 3 * 3 * 4 * numbers / 2 for link in outcome.links)


def test_what_cannot_be_run_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    assert "a file that exists" in wan_torchrun("transatlantic", "--", "nosuch.py", code=2)
    assert "does not exist yet" in wan_torchrun("lan", "--out", str(tmp_path), "--", SCRIPT, code=2)


def test_a_node_is_told_its_place_and_where_the_others_meet() -> None:
    order = TorchrunOrder(topology={}, where="", command=("train.py", "--lr", "1"), processes_per_site=2)
    arguments = torchrun_arguments(order, 1, 4, "10.0.0.1", "10.0.0.2")
    assert arguments[1:3] == ["-m", "torch.distributed.run"]
    assert {"--nnodes=4", "--node-rank=1", "--nproc-per-node=2", "--master-addr=10.0.0.1"} <= set(arguments)
    assert arguments[-4:] == [str(SCRIPT_RUNNER), "train.py", "--lr", "1"]


def run_as_torchrun_would(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "beside.py").write_text("ANSWER = 42\n")
    (folder / "train.py").write_text(script)
    argv = [sys.executable, str(SCRIPT_RUNNER), str(folder / "train.py"), "--lr", "1"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def test_a_script_finds_its_name_arguments_and_neighbours(tmp_path: Path) -> None:
    done = run_as_torchrun_would(
        tmp_path, "import sys, beside\nprint(__name__, sys.argv, __file__, beside.ANSWER)\nraise SystemExit(3)\n"
    )
    script = str(tmp_path / "train.py")
    assert (done.returncode, done.stdout) == (3, f"__main__ {[script, '--lr', '1']} {script} 42\n")


def test_threads_of_a_script_that_has_ended_can_finish(tmp_path: Path) -> None:
    """As gloo's do, which hold tensors for a moment after a collective is done."""
    script = (
        "import sys, threading, time\nsys.modules['torch.distributed'] = sys\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('let go', flush=True)), daemon=True).start()\n"
    )
    assert run_as_torchrun_would(tmp_path, script).stdout == "let go\n"
