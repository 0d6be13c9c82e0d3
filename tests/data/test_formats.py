"""Files of tokens and lines of JSON: what is read, what is refused, and what is held out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

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


def test_parquet_text_is_documents_and_lists_are_tokens(tmp_path: Path) -> None:
    table = {"body": ["page 0", None, "page 2"], "input_ids": [[1, 70_000], [], [3]], "score": [0.5, 0.1, 0.2]}
    parquet.write_table(pa.table(table), tmp_path / "train-00000-of-00001.parquet")
    path = str(tmp_path)
    (text,) = read_corpus(Data(source="parquet", path=path, field="body")).files
    assert text.tokens.tobytes() == b"page 0\0page 2\0"
    (tokens,) = read_corpus(Data(source="parquet", path=path, field="input_ids")).files
    assert tokens.tokens.tolist() == [1, 70_000, 3]
    with pytest.raises(InputError, match="did you mean 'body'.*body, input_ids, score"):
        read_corpus(Data(source="parquet", path=path, field="bodyy"))
    with pytest.raises(InputError, match="'score' of double in .*a column of text, or of lists of integers"):
        read_corpus(Data(source="parquet", path=path, field="score"))


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputError, match="x.parquet: found .*a Parquet file"):
        read_corpus(Data(source="parquet", path=str(tmp_path)))


def saved(folder: Path, rows: list[str]) -> None:
    """What `Dataset.save_to_disk` writes: streams of Arrow, and state.json that names them."""
    folder.mkdir(parents=True)
    table = pa.table({"text": rows})
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


def test_splits_of_a_saved_data_set_are_held_out(tmp_path: Path) -> None:
    """`validation` is held out, and `test` is left aside."""
    for split in ("train", "validation", "test"):
        saved(tmp_path / "web" / split, [f"{split} text " * 30] * 20)
    (tmp_path / "web" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
    data = Data(source="datasets", path=str(tmp_path / "web"))
    corpus = read_corpus(data)
    assert [file.tokens[:5].tobytes() for file in corpus.files] == [b"train", b"valid"]
    assert prepare(data, 1, 16, 1, tmp_path / "cache").held_out_files == ("val-data-00000-of-00001.arrow",)


def test_a_folder_that_is_no_saved_data_set_says_so(tmp_path: Path) -> None:
    saved(tmp_path / "web", ["text"])
    (file,) = read_corpus(Data(source="datasets", path=str(tmp_path / "web"))).files
    assert file.tokens.tobytes() == b"text\0"
    with pytest.raises(InputError, match="save_to_disk"):
        read_corpus(Data(source="datasets", path=str(tmp_path)))
    (tmp_path / "web" / "data-00000-of-00001.arrow").write_bytes(b"no arrow")
    with pytest.raises(InputError, match="an Arrow file"):
        read_corpus(Data(source="datasets", path=str(tmp_path / "web")))


def test_a_tokenizer_turns_documents_into_tokens(tmp_path: Path) -> None:
    """Each document ends with the tokenizer's own end of text; another tokenizer is another text."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers (pip install 'longhaul-bench[tokenizers]')")
    words = {"<|endoftext|>": 0, "[UNK]": 1, "hello": 2, "world": 3}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.jsonl").write_text('{"text": "hello world"}\n{"text": "hello there"}\n')
    data = Data(source="jsonl", path=str(tmp_path / "a.jsonl"), tokenizer=str(tmp_path / "tokenizer.json"))
    (file,) = read_corpus(data).files
    assert file.tokens.tolist() == [2, 3, 0, 2, 1, 0]
    assert file.digest != read_corpus(data.model_copy(update={"tokenizer": None})).files[0].digest
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="tokenizer.json: found .*a tokenizer.json"):
        read_corpus(data)


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
