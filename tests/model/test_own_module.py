"""Somebody's own module: counted, trained by our methods, refused with one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.method import ModelView, find
from algorithms.own_model.module_shape import ModuleShape
from algorithms.shape import ModelShape, Role
from harness.conformance import trial
from harness.conformance.checks import check_training
from harness.conformance.trial import in_memory, train
from harness.spec.presets import find_model
from harness.spec.run_spec import RunSpec
from harness.spec.suite import load_suite
from harness.worker.model import build_trained_model
from netsim.errors import InputError
from tests.test_trainer import train as train_in_processes

GPT = '''
"""A small GPT with learned positions, named as nanoGPT names its parts."""
import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.c_attn(x).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.dropout(self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x)))))


class Gpt(nn.Module):
    def __init__(self, width, heads, layers, sequence, vocabulary, dropout):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(sequence, width)
        self.h = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight  # tied

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(x)


def build(width=16, heads=2, layers=2, sequence=8, vocabulary=19, dropout=0.0):
    return Gpt(width, heads, layers, sequence, vocabulary, dropout)
'''

CNN = '''
"""A convolutional network over bytes, in torchvision's names, with a loss of its own: every target from its past."""
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, (1, 3), bias=False), nn.GroupNorm(2, width)

    def forward(self, x):
        return x + F.relu(self.bn1(self.conv1(F.pad(x, (2, 0)))))


class Net(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.embedding = nn.Embedding(classes, width)
        self.layer1, self.layer2, self.fc = Block(width), Block(width), nn.Linear(width, classes)

    def forward(self, tokens):
        x = self.embedding(tokens).transpose(1, 2).unsqueeze(2)
        return self.fc(self.layer2(self.layer1(x)).squeeze(2).transpose(1, 2))

    def loss(self, output, targets):
        return F.multi_margin_loss(output.flatten(0, 1), targets.flatten())


def build(width=8, classes=19):
    return Net(width, classes)
'''

LLAMA = '''
"""A Llama of Hugging Face's from its configuration, with random weights."""
from transformers import LlamaConfig, LlamaForCausalLM


def build(**config):
    return LlamaForCausalLM(LlamaConfig(**config))
'''


def shape_of(folder: Path, source: str, **fields: Any) -> ModelShape:
    (folder / "own.py").write_text(source)
    model = {"module": "own.py:build", "vocabulary": 19, "sequence": 8, **fields}
    return find_model(model, "here", folder)


def error_of(folder: Path, source: str, **fields: Any) -> str:
    with pytest.raises(InputError) as caught:
        shape_of(folder, source, **fields)
    return str(caught.value)


def test_a_modules_parameters_have_roles_and_layers(tmp_path: Path) -> None:
    shape = shape_of(tmp_path, GPT)
    roles = {p.name: (p.role, p.layer) for p in shape.parameters}
    assert roles["wte.weight"] == (Role.EMBEDDING, None)
    assert roles["h.1.attn.c_attn.weight"] == (Role.ATTENTION, 1)
    assert roles["h.0.mlp.c_fc.weight"] == (Role.FFN, 0)
    assert roles["h.0.attn.c_attn.bias"] == (Role.NORM, 0)
    assert "lm_head.weight" not in roles  # tied to the embedding
    assert (shape.layers, shape.width) == (2, 16)


def test_flops_counted_equal_those_of_our_formula(tmp_path: Path) -> None:
    """6 per matrix entry and 12 L d s for attention, as for our own models; a GPT of ours has as many."""
    own = ModelShape(layers=2, width=16, heads=2, vocabulary=19, sequence=8)
    assert shape_of(tmp_path, GPT).flops_per_token() == own.flops_per_token()


def test_a_spec_with_a_module_survives_its_file(tmp_path: Path) -> None:
    shape_of(tmp_path, GPT)
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "{name: own, model: {module: own.py:build, vocabulary: 19, sequence: 8}, train: {steps: 2}, "
        "methods: [diloco], topologies: [lan]}"
    )
    cell = load_suite(suite).cells[0]
    assert isinstance(cell.model, ModuleShape)
    again = RunSpec.model_validate_json(cell.model_dump_json())
    assert again == cell
    assert again.model.parameters == cell.model.parameters
    assert again.own_files == (tmp_path / "own.py",)


def test_a_seed_decides_a_modules_initial_values(tmp_path: Path) -> None:
    shape = shape_of(tmp_path, GPT)

    def values(seed: int) -> torch.Tensor:
        module = build_trained_model(shape, seed, ModelView(), 0.0).module
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    assert torch.equal(values(1), values(1))
    assert not torch.equal(values(1), values(2))


@pytest.mark.parametrize("source", [GPT, CNN], ids=["gpt", "cnn"])
@pytest.mark.parametrize("name", ["ddp", "diloco", "streaming_diloco", "powersgd", "muloco"])
def test_methods_train_a_module_and_move_what_they_plan(tmp_path: Path, source: str, name: str) -> None:
    """Ledger, memory, checkpoints and evaluation, as the conformance kit checks them on our models."""
    shape = shape_of(tmp_path, source)
    options = {"sync_every": 3} if name in ("diloco", "streaming_diloco", "muloco") else {}
    checks = check_training(find(name, options, "here"), shape)
    assert [check for check in checks if not check.passed] == []


def test_a_low_rank_method_names_what_it_did_not_find(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a pattern that matches some of build"):
        find("lordo", {}, "here").plan(shape_of(tmp_path, CNN), 4, 10)


def test_fomoe_says_that_a_module_has_no_experts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a model with experts, kind: moe"):
        find("fomoe", {}, "here").plan(shape_of(tmp_path, GPT), 4, 10)


MISTAKES = {
    "an error in the function names its line": (
        GPT + "\n\ndef build(**k):\n    return Gpt(1)\n",
        "own.py, line 52: found TypeError",
    ),
    "no such function": (GPT.replace("def build", "def built"), "did you mean 'built'?"),
    "running statistics": (
        CNN.replace("nn.GroupNorm(2, width)", "nn.BatchNorm2d(width)"),
        "GroupNorm, or track_running",
    ),
    "no module": ("def build():\n    return 3\n", "returned int"),
    "another vocabulary": (GPT.replace("vocabulary=19", "vocabulary=20"), "an output of shape (1, 8, 20)"),
    "a parameter without gradient": (
        GPT.replace(
            "        self.lm_head.weight =", "        self.idle = nn.Linear(4, 4)\n        self.lm_head.weight ="
        ),
        "no gradient for idle.weight, idle.bias",
    ),
    "half precision": (
        GPT.replace("layers, sequence, vocabulary, dropout)\n", "layers, sequence, vocabulary, dropout).half()\n"),
        "float16",
    ),
}


@pytest.mark.parametrize(("source", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_module_gets_one_message(tmp_path: Path, source: str, words: str) -> None:
    assert words in error_of(tmp_path, source)


def test_a_changed_file_is_not_trained_as_if_it_were_the_same(tmp_path: Path) -> None:
    shape = shape_of(tmp_path, GPT)
    (tmp_path / "own.py").write_text(GPT + "\n# changed\n")
    with pytest.raises(InputError, match="the file as it was when the suite was read"):
        build_trained_model(shape, 1, ModelView(), 0.0)


@pytest.mark.slow
def test_trainer_processes_train_a_module_with_dropout(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(GPT)
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "{name: own, model: {module: own.py:build, vocabulary: 256, sequence: 16, "
        "arguments: {vocabulary: 256, sequence: 16, dropout: 0.1}}, "
        "train: {steps: 6, batch: 2, warmup: 2, evaluate_every: 3, evaluation_sequences: 4}, "
        "methods: [{method: diloco, options: {sync_every: 3}}], topologies: [{name: loopback, defaults: {up: 1 Gbit, "
        "down: 1 Gbit, delay: 0.1 ms}, sites: {a: {}, b: {}}}], network: {timeout_seconds: 30}}"
    )
    cell = load_suite(suite).cells[0]
    losses = [
        train_in_processes(cell, tmp_path / name, tmp_path / "cache")[0].final_loss for name in ("first", "again")
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_hugging_face_llama_trains_under_five_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers count upwards from different numbers, which can be learnt; the loss falls below that of one step."""

    def counting(shape: ModelShape, step: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = (torch.arange(9).repeat(2, 1) + torch.tensor([[step], [step + 7 * rank]])) % shape.vocabulary
        return tokens[:, :-1], tokens[:, 1:]

    monkeypatch.setattr(trial, "batch", counting)
    pytest.importorskip("transformers", reason="needs transformers (pip install 'longhaul-bench[dev]')")
    config = {
        "vocab_size": 19,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 8,
    }
    shape = shape_of(tmp_path, LLAMA, arguments=config)
    for name, options in {
        "ddp": {},
        "diloco": {"sync_every": 3},
        "photon": {"sync_every": 3},
        "lordo": {"sync_every": 3, "rank": 4},
        "streaming_diloco": {"sync_every": 3},
    }.items():
        method = find(name, options, "here")
        plan = method.plan(shape, 2, 12, 1)
        with in_memory(2) as exchanges:
            first = train(method, shape, exchanges, method.plan(shape, 2, 1, 1))[0].evaluation
        with in_memory(2) as exchanges:
            workers = train(method, shape, exchanges, plan)
        assert workers[0].evaluation < first, name
        assert workers[0].memory == method.memory(shape, 2, 0, 1)
