"""A checkpoint is whole or refused, and resuming from one goes on as if nothing had happened."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.inner import build_optimizer, load_optimizer_tensors, optimizer_tensors, update
from algorithms.settings import InnerOptimizer
from algorithms.shape import ModelShape
from harness.worker.checkpoint import latest, load, save, steps
from harness.worker.model import build_model
from netsim.errors import InputError

TENSORS = {"weights": torch.arange(6.0).view(2, 3), "count": torch.tensor(3), "half": torch.ones(2).bfloat16()}


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 7, TENSORS, {"spec": "a1b2", "rounds": [1, 2]})
    found = latest(tmp_path)
    assert found is not None
    assert (found.step, found.meta) == (7, {"spec": "a1b2", "rounds": [1, 2]})
    assert found.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_views_of_one_storage_are_saved_apart(tmp_path: Path) -> None:
    flat = torch.arange(10.0)
    save(tmp_path, 1, {"a": flat[:4], "b": flat[4:], "all": flat, "turned": flat.view(2, 5).T, "again": flat}, {})
    found = load(tmp_path, 1).tensors
    assert torch.equal(found["b"], flat[4:])
    assert torch.equal(found["turned"], flat.view(2, 5).T)
    assert torch.equal(found["again"], flat)


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, TENSORS, {})
    assert steps(tmp_path) == [20, 30]


def test_there_is_none_in_an_empty_or_missing_directory(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    assert latest(tmp_path / "nothing") is None


def test_a_step_saved_again_replaces_the_first(tmp_path: Path) -> None:
    save(tmp_path, 1, TENSORS, {"try": 1})
    save(tmp_path, 1, TENSORS, {"try": 2})
    assert load(tmp_path, 1).meta == {"try": 2}


@pytest.mark.parametrize("name", ["tensors.safetensors", "manifest.json"])
def test_a_damaged_one_is_refused_and_the_previous_used(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1, TENSORS, {})
    good = (save(tmp_path, 2, TENSORS, {}) / name).read_bytes()
    for damaged in (good[:-5], b"", good[:8] + bytes([good[8] ^ 1]) + good[9:], None):
        path = tmp_path / "step-00000002" / name
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            found = latest(tmp_path)
        assert found is not None
        assert found.step == 1
        assert "damaged" in caplog.text
        with pytest.raises(InputError, match="step-00000002"):
            load(tmp_path, 2)


def test_changed_meta_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, 1, TENSORS, {"spec": "a"}) / "manifest.json"
    path.write_text(path.read_text().replace('"a"', '"b"'))
    with pytest.raises(InputError, match="manifest"):
        load(tmp_path, 1)


def test_a_checkpoint_does_not_pass_for_another_step(tmp_path: Path) -> None:
    save(tmp_path, 1, TENSORS, {}).rename(tmp_path / "step-00000009")
    assert latest(tmp_path) is None


@settings(max_examples=60, deadline=None)
@given(
    manifest=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["content", "sha256", "step", "meta"]), inner, max_size=4)
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_manifest_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, manifest: bytes) -> None:
    directory = tmp_path_factory.mktemp("any")
    (save(directory, 1, {"a": torch.ones(1)}, {}) / "manifest.json").write_bytes(manifest)
    assert latest(directory) is None


def test_a_killed_writer_leaves_sound_checkpoints(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from pathlib import Path; from harness.worker.checkpoint import save\n"
        "for step in range(1, 10**6): save(Path(sys.argv[1]), step, {'a': torch.full((200_000,), float(step))}, {})"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    deadline = time.monotonic() + 60
    while len(steps(tmp_path)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    for step in steps(tmp_path):
        assert load(tmp_path, step).tensors["a"][0] == step
    save(tmp_path, 10**6, TENSORS, {})
    assert steps(tmp_path)[-1] == 10**6


def test_a_full_disk_is_an_oserror_and_leaves_the_previous(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys, torch; from pathlib import Path; from harness.worker.checkpoint import save\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "save(Path(sys.argv[1]), 1, {'a': torch.ones(10)}, {})\n"
        "try: save(Path(sys.argv[1]), 2, {'a': torch.ones(100_000)}, {})\n"
        "except OSError: sys.exit(42)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 42
    assert steps(tmp_path) == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000  # the limit was the child's alone


def test_resuming_gives_the_same_bits_as_going_on(tmp_path: Path) -> None:
    shape = ModelShape(kind="moe", layers=2, width=32, heads=2, experts=4, top_k=2, vocabulary=64, sequence=16)
    tokens = torch.randint(0, 64, (8, 4, 16), generator=torch.Generator().manual_seed(0))

    def train(first: int, last: int) -> list[float]:
        found = latest(tmp_path)
        model = build_model(shape, 1)
        inner = InnerOptimizer()
        optimizer = build_optimizer(inner, model.parameters())
        if found is not None:
            model.load_state_dict(
                {name.removeprefix("model."): t for name, t in found.tensors.items() if "model" in name}
            )
            load_optimizer_tensors(optimizer, found.tensors)
        losses = []
        for step in range(first, last):
            loss = model(tokens[step], tokens[step].roll(-1, 1))
            loss.backward()
            update(inner, optimizer, 1e-3)
            losses.append(model.last_loss)
        parameters = {f"model.{name}": p for name, p in model.named_parameters()}
        save(tmp_path, last, {**parameters, **optimizer_tensors(optimizer)}, {})
        return losses

    in_parts = train(0, 4) + train(4, 8)
    for step in steps(tmp_path):
        (tmp_path / f"step-{step:08d}").rename(tmp_path / f"other-{step}")
    assert train(0, 8) == in_parts
