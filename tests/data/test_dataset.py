"""Preparing text: what is read, held out and divided, and that doing it again gives the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from harness.spec.run_spec import Data
from harness.worker.data import Dataset, prepare
from harness.worker.data import dataset as dataset_module
from harness.worker.data.sources import read_corpus
from netsim.errors import InputError

MakeText = Callable[[dict[str, str]], Data]


@pytest.fixture
def make_text(tmp_path: Path) -> MakeText:
    def make(files: dict[str, str]) -> Data:
        for name, text in files.items():
            path = tmp_path / "text" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        return Data(source="text", path=str(tmp_path / "text"))

    return make


def some_text(groups: int = 5, files: int = 6) -> dict[str, str]:
    return {f"group{g}/file{f}.txt": f"{g} and {f}, " * (50 + 10 * f) for g in range(groups) for f in range(files)}


def tokens(path: Path) -> bytes:
    return np.fromfile(path, dtype="<u2").astype(np.uint8).tobytes()


def documents(*paths: Path) -> set[bytes]:
    return {text for path in paths for text in tokens(path).split(b"\0") if text}


def test_the_standard_library_is_read_without_tests_and_copies() -> None:
    corpus = read_corpus(Data())
    assert corpus.digest == read_corpus(Data()).digest
    names = {file.name for file in corpus.files}
    assert {"os.py", "asyncio/base_events.py", "json/decoder.py"} <= names
    assert not any(part in name.split("/") for name in names for part in ("test", "tests", "site-packages"))
    assert len({file.digest for file in corpus.files}) == len(corpus.files)
    assert sum(len(file.tokens) for file in corpus.files) > 5_000_000
    assert {file.group for file in corpus.files} >= {"asyncio", "email", "modules"}


def test_every_document_goes_to_one_site_or_is_held_out(make_text: MakeText, tmp_path: Path) -> None:
    text = some_text()
    # Pieces are longer than these files, so that every file stays whole.
    dataset = prepare(make_text(text), 3, 64, 1, tmp_path / "cache")
    parts = [documents(path) for path in (*dataset.shards, dataset.held_out)]
    assert sum(len(part) for part in parts) == len(text)
    assert set.union(*parts) == {content.encode() for content in text.values()}
    assert (dataset.files, dataset.duplicates, dataset.vocabulary) == (30, 0, 111)
    counts = (*dataset.shard_tokens, dataset.held_out_tokens)
    assert [path.stat().st_size for path in (*dataset.shards, dataset.held_out)] == [2 * count for count in counts]


def test_iid_sites_get_equal_amounts(tmp_path: Path) -> None:
    sizes = prepare(Data(), 6, 128, 1, tmp_path).shard_tokens
    assert max(sizes) - min(sizes) <= 2 * 16 * 128


def test_by_source_keeps_sources_whole(make_text: MakeText, tmp_path: Path) -> None:
    data = make_text(some_text()).model_copy(update={"partition": "by_source"})
    dataset = prepare(data, 3, 64, 1, tmp_path / "cache")
    assert sorted(group for groups in dataset.shard_groups for group in groups) == [f"group{g}" for g in range(5)]


def test_a_larger_dirichlet_alpha_spreads_sources_wider(tmp_path: Path) -> None:
    """Dirichlet spreads a source over more sites the larger alpha."""

    def dataset(alpha: float) -> Dataset:
        return prepare(Data(partition="dirichlet", alpha=alpha), 4, 64, 1, tmp_path)

    spread = [sum(len(groups) for groups in dataset(alpha).shard_groups) for alpha in (0.02, 0.5, 1000)]
    assert spread == sorted(set(spread))
    assert np.std(dataset(1000).shard_tokens) < 0.05 * np.mean(dataset(1000).shard_tokens)


def test_the_seed_changes_the_division_but_not_what_is_held_out(make_text: MakeText, tmp_path: Path) -> None:
    data = make_text(some_text())
    first, second = (prepare(data, 3, 64, seed, tmp_path / "cache") for seed in (1, 2))
    assert first.held_out_files == second.held_out_files
    assert tokens(first.held_out) == tokens(second.held_out)
    assert tokens(first.shards[0]) != tokens(second.shards[0])
    assert first.digest == second.digest


def test_another_process_prepares_the_same_bytes(make_text: MakeText, tmp_path: Path) -> None:
    data = make_text(some_text())
    program = (
        "import sys; from pathlib import Path\n"
        "from harness.spec.run_spec import Data; from harness.worker.data import prepare\n"
        "prepare(Data(source='text', path=sys.argv[1], partition='dirichlet', alpha=2), 3, 64, 1, Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", program, str(data.path), str(tmp_path / "other")], check=True)
    data = data.model_copy(update={"partition": "dirichlet", "alpha": 2})
    ours = prepare(data, 3, 64, 1, tmp_path / "cache")
    for path in (*ours.shards, ours.held_out):
        assert path.read_bytes() == (tmp_path / "other" / path.relative_to(tmp_path / "cache")).read_bytes()


def test_a_damaged_cache_is_rebuilt(make_text: MakeText, tmp_path: Path) -> None:
    """A second call reads the cache and a damaged cache is built again."""
    data, cache = make_text(some_text()), tmp_path / "cache"
    first = prepare(data, 3, 64, 1, cache)
    stamp = first.shards[0].stat().st_mtime_ns
    assert prepare(data, 3, 64, 1, cache) == first
    assert first.shards[0].stat().st_mtime_ns == stamp
    good = first.shards[1].read_bytes()
    first.shards[1].write_bytes(good[:-2])
    assert prepare(data, 3, 64, 1, cache) == first
    assert first.shards[1].read_bytes() == good
    (first.held_out.parent / "dataset.json").write_text("{}")
    assert prepare(data, 3, 64, 1, cache) == first


def test_concurrent_calls_agree(make_text: MakeText, tmp_path: Path) -> None:
    data = make_text(some_text())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: prepare(data, 3, 64, 1, tmp_path / "cache"), range(8)))
    assert all(dataset == found[0] for dataset in found)
    assert not list((tmp_path / "cache").glob(".*.part"))


def test_changed_text_is_another_dataset(make_text: MakeText, tmp_path: Path) -> None:
    first = prepare(make_text(some_text()), 3, 64, 1, tmp_path / "cache")
    second = prepare(make_text({"group0/file0.txt": "something else " * 100}), 3, 64, 1, tmp_path / "cache")
    assert first.digest != second.digest
    assert first.held_out.parent != second.held_out.parent


def test_everyone_may_read_the_shards(make_text: MakeText, tmp_path: Path) -> None:
    dataset = prepare(make_text(some_text()), 2, 64, 1, tmp_path / "cache")
    for path in (*dataset.shards, dataset.held_out):
        assert path.stat().st_mode & 0o004
        assert path.parent.stat().st_mode & 0o005 == 0o005


def test_copies_binaries_and_hidden_files_are_left_out(make_text: MakeText, tmp_path: Path) -> None:
    data = make_text({**some_text(), "copy.txt": some_text()["group0/file0.txt"], ".hidden/a.txt": "secret " * 99})
    (tmp_path / "text" / "image.png").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "text" / "empty.txt").write_bytes(b"\n")
    corpus = read_corpus(data)
    assert (len(corpus.files), corpus.duplicates) == (30, 1)
    assert not any("hidden" in file.name or "png" in file.name for file in corpus.files)


def write_tokens(path: Path, values: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.array(values, dtype="<u2").tofile(path)


def test_a_file_of_tokens_is_held_out_near_its_end(tmp_path: Path) -> None:
    write_tokens(tmp_path / "all.bin", list(range(10_000)))
    dataset = prepare(Data(source="tokens", path=str(tmp_path / "all.bin")), 2, 16, 1, tmp_path / "cache")
    assert np.fromfile(dataset.held_out, dtype="<u2").tolist() == list(range(9_800, 10_000))
    shards = np.concatenate([np.fromfile(path, dtype="<u2") for path in dataset.shards])
    assert sorted(shards.tolist()) == list(range(9_800))
    assert dataset.vocabulary == 10_000


def test_nanogpts_validation_file_is_held_out(tmp_path: Path) -> None:
    write_tokens(tmp_path / "bins" / "train.bin", list(range(5000)))
    write_tokens(tmp_path / "bins" / "val.bin", list(range(5000, 5200)))
    dataset = prepare(Data(source="tokens", path=str(tmp_path / "bins")), 2, 16, 1, tmp_path / "cache")
    assert dataset.held_out_files == ("val.bin",)
    assert sum(dataset.shard_tokens) == 5000


def refusal(data: Data, tmp_path: Path, sites: int = 2, sequence: int = 16, vocabulary: int | None = None) -> str:
    with pytest.raises(InputError) as error:
        prepare(data, sites, sequence, 1, tmp_path / "cache", vocabulary)
    assert not [path for path in (tmp_path / "cache").glob("*") if path.suffix == ".part"]
    return str(error.value)


def test_wrong_data_is_refused_with_the_field(make_text: MakeText, tmp_path: Path) -> None:
    data = make_text(some_text())
    (tmp_path / "nothing").mkdir()
    assert "data: path" in refusal(Data(source="text", path=str(tmp_path / "missing")), tmp_path)
    assert "no text" in refusal(Data(source="text", path=str(tmp_path / "nothing")), tmp_path)
    assert "at least 20000 tokens" in refusal(data, tmp_path, sequence=10_000)
    assert "at most as many sites as sources (5)" in refusal(
        data.model_copy(update={"partition": "by_source"}), tmp_path, sites=6
    )
    assert "a larger alpha" in refusal(
        data.model_copy(update={"partition": "dirichlet", "alpha": 1e-3}), tmp_path, sites=20, sequence=64
    )
    assert "token 110" in refusal(data, tmp_path, vocabulary=100)
    write_tokens(tmp_path / "odd.bin", [1, 2, 3])
    (tmp_path / "odd.bin").write_bytes((tmp_path / "odd.bin").read_bytes()[:-1])
    assert "a multiple of 2 bytes" in refusal(Data(source="tokens", path=str(tmp_path / "odd.bin")), tmp_path)
    write_tokens(tmp_path / "short.bin", list(range(400)))
    assert "held_out" in refusal(Data(source="tokens", path=str(tmp_path / "short.bin")), tmp_path)


def test_the_record_in_the_cache_describes_the_dataset(make_text: MakeText, tmp_path: Path) -> None:
    dataset = prepare(make_text(some_text()), 2, 64, 1, tmp_path / "cache")
    record = json.loads((dataset.held_out.parent / "dataset.json").read_text())
    assert record["digest"] == dataset.digest
    assert Dataset.model_validate_json(dataset.model_dump_json()) == dataset


def test_a_full_disk_leaves_no_part_behind(
    make_text: MakeText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, parts: object) -> None:
        path.write_bytes(b"the beginning")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset_module, "_write", full)
    with pytest.raises(OSError, match="No space"):
        prepare(make_text(some_text()), 3, 64, 1, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir() or path.suffix == ".part"] == []
