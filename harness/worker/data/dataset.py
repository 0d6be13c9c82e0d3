"""Preparing the text of a run: read, hold out, divide among sites, write one file per site. Cached by content."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from filelock import FileLock
from pydantic import ValidationError

from harness.spec.run_spec import Data
from harness.worker.data.partitions import TextPiece, divide, pieces, tokens_in
from harness.worker.data.shards import dtype_of
from harness.worker.data.sources import Corpus, TextFile, read_corpus
from netsim.documents import Document
from netsim.errors import InputError

FORMAT = 2  # of the files; a new number makes old caches unused
_VALIDATION = re.compile(r"(?:^|[_\-./])val(?:id|idation)?(?:[_\-.\d]|$)")
_NUMBERED = (".bin", ".npy", ".jsonl", ".parquet", ".arrow")

PIECE_SEQUENCES = 16  # text is divided among sites in pieces of so many sequences


class Dataset(Document):
    """The prepared text of a run. Worker `rank` opens `shards[rank]` and `held_out`, nothing else."""

    digest: str  # of the text, before it was divided
    shards: tuple[Path, ...]
    shard_tokens: tuple[int, ...]
    shard_groups: tuple[tuple[str, ...], ...]  # the sources in each shard
    held_out: Path
    held_out_tokens: int
    held_out_files: tuple[str, ...]
    files: int
    duplicates: int  # files left out because another has the same content
    vocabulary: int  # largest token + 1


def prepare(data: Data, sites: int, sequence: int, seed: int, cache: Path, vocabulary: int | None = None) -> Dataset:
    """The dataset for `sites` workers, from the cache when it is there; safe under concurrent calls.

    vocabulary: of the model; a token beyond it is an InputError, as are missing and insufficient text.
    """
    corpus = read_corpus(data)
    identity = [
        FORMAT,
        corpus.digest,
        data.model_dump(mode="json", exclude={"path", "val", "tokenizer"}),
        sites,
        sequence,
        seed,
    ]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    directory = cache / key
    with FileLock(cache / f"{key}.lock"):
        dataset = _cached(directory) or _build(data, corpus, sites, sequence, seed, directory)
    _within(dataset.vocabulary, vocabulary)
    return dataset


def check_data(data: Data, sites: int, sequence: int, seed: int, vocabulary: int | None = None) -> None:
    """Whether `prepare` would succeed, without writing anything: the same InputErrors."""
    corpus = read_corpus(data)
    _divided(data, corpus, sites, sequence, seed)
    _within(1 + _largest(corpus), vocabulary)


def _within(tokens: int, vocabulary: int | None) -> None:
    if vocabulary is not None and tokens > vocabulary:
        raise InputError("data", "source", f"token {tokens - 1}", f"tokens below the model's {vocabulary}")


def _largest(corpus: Corpus) -> int:
    return max(int(file.tokens.max()) for file in (*corpus.files, *corpus.held_out))


def _cached(directory: Path) -> Dataset | None:
    """The dataset in `directory` if it is complete."""
    try:
        fields = json.loads((directory / "dataset.json").read_text(encoding="utf-8"))
        fields["shards"] = [directory / name for name in fields["shards"]]
        fields["held_out"] = directory / fields["held_out"]
        dataset = Dataset.model_validate(fields)
        sizes = [path.stat().st_size for path in (*dataset.shards, dataset.held_out)]
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None
    counts = (*dataset.shard_tokens, dataset.held_out_tokens)
    paths = (*dataset.shards, dataset.held_out)
    expected = [count * dtype_of(path).itemsize for count, path in zip(counts, paths, strict=True)]
    return dataset if sizes == expected else None


def _divided(
    data: Data, corpus: Corpus, sites: int, sequence: int, seed: int
) -> tuple[list[list[TextPiece]], list[TextPiece], list[TextFile]]:
    """Each site's text, and the held-out text with the files that it comes from."""
    if corpus.held_out:
        training, held_out = list(corpus.files), list(corpus.held_out)
    else:
        training, held_out = hold_out(corpus.files, data.held_out)
    shards = divide(data, pieces(training, PIECE_SEQUENCES * sequence), sites, 2 * sequence, seed)
    kept = [TextPiece(file.group, file.tokens) for file in held_out]
    if tokens_in(kept) <= sequence:
        allowed = f"more than {sequence} held-out tokens: a larger held_out, or more text"
        raise InputError("data", "held_out", f"{tokens_in(kept)} tokens in {len(held_out)} files", allowed)
    return shards, kept, held_out


def _build(data: Data, corpus: Corpus, sites: int, sequence: int, seed: int, directory: Path) -> Dataset:
    shards, kept, held_out = _divided(data, corpus, sites, sequence, seed)
    building = directory.with_name(f".{directory.name}.part")
    for old in (building, directory):
        shutil.rmtree(old, ignore_errors=True)
    try:
        building.mkdir(mode=0o755)
        largest = _largest(corpus)
        suffix = "bin" if largest < 2**16 else "u32"
        names, last = [f"shard-{site}.{suffix}" for site in range(sites)], f"held-out.{suffix}"
        for name, parts in zip([*names, last], [*shards, kept], strict=True):
            _write(building / name, parts)
        fields = {
            "digest": corpus.digest,
            "shards": names,
            "shard_tokens": [tokens_in(parts) for parts in shards],
            "shard_groups": [sorted({part.group for part in parts}) for parts in shards],
            "held_out": last,
            "held_out_tokens": tokens_in(kept),
            "held_out_files": [file.name for file in held_out],
            "files": len(corpus.files),
            "duplicates": corpus.duplicates,
            "vocabulary": 1 + largest,
        }
        (building / "dataset.json").write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
        building.replace(directory)
    except BaseException:  # a full disk, an interrupt
        shutil.rmtree(building, ignore_errors=True)
        raise
    dataset = _cached(directory)
    assert dataset is not None
    return dataset


def hold_out(files: tuple[TextFile, ...], share: float) -> tuple[list[TextFile], list[TextFile]]:
    """(training, held out). Token files, lines of JSON and tables with `val` in their names are the held-out ones, as
    nanoGPT and llm.c write them. Otherwise files are held out in the order of a hash of their names, up to `share` of
    the text; of a file that is more than a tenth of the text only the end, so that the rule never takes most of a
    corpus.

    At least one file is on either side; a single file is divided near its end.
    """
    total = sum(len(file.tokens) for file in files)
    named = {file.name for file in files if _VALIDATION.search(file.name) and file.name.endswith(_NUMBERED)}
    if named and len(named) < len(files):
        return [file for file in files if file.name not in named], [file for file in files if file.name in named]
    by_hash = sorted(files, key=lambda file: hashlib.blake2b(file.name.encode()).digest())
    missing, kept = share * total, dict[str, int]()  # by name, the token from which on a file is held out
    for file in by_hash if len(files) == 1 else by_hash[:-1]:
        if missing <= 0:
            break
        whole = len(files) > 1 and 10 * len(file.tokens) <= total
        kept[file.name] = 0 if whole or missing >= len(file.tokens) else round(len(file.tokens) - missing)
        missing -= len(file.tokens) - kept[file.name]
    cut = [(file, kept.get(file.name, len(file.tokens))) for file in files]
    training = [_part(file, 0, end) if end < len(file.tokens) else file for file, end in cut if end]
    held_out = [_part(file, end, len(file.tokens)) if end else file for file, end in cut if end < len(file.tokens)]
    return training, held_out


def _part(file: TextFile, start: int, end: int) -> TextFile:
    return TextFile(file.name, file.group, file.tokens[start:end], file.digest)


def _write(path: Path, parts: Iterable[TextPiece]) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(np.asarray(part.tokens, dtype=dtype_of(path)).tobytes())
