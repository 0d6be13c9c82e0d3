"""Files of tokens and lines of JSON: what is read, what is refused, and what is held out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.spec.run_spec import Data
from harness.worker.data import Shard, prepare
from harness.worker.data.dataset import hold_out
from harness.worker.data.sources import TextFile, read_corpus
from harness.worker.data.tokens import open_tokens
from netsim.errors import InputError


def numbers(count: int, largest: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, largest, count)


def llm_c(path: Path, tokens: np.ndarray, magic: int, version: int, kind: str) -> None:
    header = np.zeros(256, dtype="<i4")
    header[:3] = magic, version, len(tokens)
    path.write_bytes(header.tobytes() + tokens.astype(kind).tobytes())


@pytest.mark.parametrize(("magic", "version", "kind"), [(20240520, 1, "<u2"), (20240801, 7, "<u4")])
def test_a_header_of_llm_c_gives_type_and_number(tmp_path: Path, magic: int, version: int, kind: str) -> None:
    tokens = numbers(500, 50_000)
    llm_c(tmp_path / "fineweb_train_000001.bin", tokens, magic, version, kind)
    assert open_tokens(tmp_path / "fineweb_train_000001.bin", "uint16").tolist() == tokens.tolist()


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    llm_c(path, numbers(500, 50_000), 20240520, 1, "<u2")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match="500 tokens"):
        open_tokens(path, "uint16")


def test_uint32_is_not_read_as_uint16(tmp_path: Path) -> None:
    path, tokens = tmp_path / "x.bin", numbers(500, 100_000)
    path.write_bytes(tokens.astype("<u4").tobytes())
    with pytest.raises(InputError, match="uint32"):
        open_tokens(path, "uint16")
    assert open_tokens(path, "uint32").tolist() == tokens.tolist()


def test_npy_is_read_by_its_own_type(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", numbers(200, 100_000).astype(np.uint32))
    assert open_tokens(tmp_path / "x.npy", "uint16").dtype == np.uint32
    np.save(tmp_path / "y.npy", numbers(200, 10).astype(np.float32))
    with pytest.raises(InputError, match="float32"):
        open_tokens(tmp_path / "y.npy", "uint16")


def test_tokens_beyond_uint16_reach_the_worker(tmp_path: Path) -> None:
    tokens = numbers(4000, 100_000)
    np.save(tmp_path / "x.npy", tokens.astype(np.uint32))
    dataset = prepare(Data(source="tokens", path=str(tmp_path)), 2, 16, 1, tmp_path / "cache")
    assert dataset.vocabulary == int(tokens.max()) + 1
    inputs, _ = Shard(dataset.shards[0]).batch(1, 8, 16, 1, 0)
    assert int(inputs.max()) > 2**16
    assert set(inputs.reshape(-1).tolist()) <= set(tokens.tolist())


def test_lines_of_json_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "web.jsonl"
    path.write_text("".join(json.dumps({"body": f"page {i}", "id": i}) + "\n" for i in range(3)))
    (file,) = read_corpus(Data(source="jsonl", path=str(path), field="body")).files
    assert file.tokens.tobytes() == b"page 0\0page 1\0page 2\0"
    with pytest.raises(InputError, match="line 1"):
        read_corpus(Data(source="jsonl", path=str(path)))


def test_val_names_the_held_out_text(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.txt").write_text("training text, " * 200)
    (tmp_path / "b.txt").write_text("held-out text, " * 40)
    data = Data(source="text", path=str(tmp_path / "train"), val=str(tmp_path / "b.txt"))
    dataset = prepare(data, 1, 16, 1, tmp_path / "cache")
    assert dataset.held_out_files == ("b.txt",)
    assert dataset.shard_tokens == (200 * 15 + 1,)


@pytest.mark.parametrize("name", ["val.bin", "fineweb_val_000000.bin", "c4-validation-01.npy", "web.val.jsonl"])
def test_files_named_for_validation_are_held_out(name: str) -> None:
    files = tuple(TextFile(n, n, np.zeros(100, np.uint16), n.encode()) for n in ("train_1.bin", name, "values.bin"))
    training, held_out = hold_out(files, 0.02)
    assert [file.name for file in held_out] == [name]
    assert len(training) == 2


@pytest.mark.parametrize("sizes", [(1000,), (1000, 1000), (1000, 10, 10), (10, 1000), (300, 300, 400)])
def test_the_rule_never_holds_out_most_of_a_corpus(sizes: tuple[int, ...]) -> None:
    files = tuple(TextFile(f"{i}.txt", "", np.zeros(n, np.uint8), bytes([i])) for i, n in enumerate(sizes))
    training, held_out = hold_out(files, 0.05)
    lost = sum(len(file.tokens) for file in held_out)
    assert 0 < lost <= 0.16 * sum(sizes)
    assert lost + sum(len(file.tokens) for file in training) == sum(sizes)


def test_text_in_another_encoding_is_named_and_not_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain text " * 50)
    (tmp_path / "b.txt").write_bytes("sch\u00f6n ".encode("latin-1") * 50)
    with pytest.raises(InputError, match="b.txt.*UTF-8"):
        read_corpus(Data(source="text", path=str(tmp_path)))
