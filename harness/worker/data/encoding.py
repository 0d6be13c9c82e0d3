"""Text to tokens: its UTF-8 bytes and a NUL after each document, or by a tokenizer of Hugging Face's library."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.spec.run_spec import Data
from harness.worker.data.tokens import Tokens, narrow
from netsim.errors import HostError, InputError, Phrase

# What known tokenizers call the token after a document: GPT-2 and OLMo, Llama 2, Llama 3, Gemma, BERT.
END_OF_DOCUMENT = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[SEP]")


class Encoder:
    """Documents to tokens. `digest` is that of the tokenizer; empty for bytes."""

    def __init__(self, data: Data) -> None:
        """Raises InputError for a tokenizer that cannot be read, HostError where the library is missing."""
        self._tokenizer, self.digest, self._end = None, b"", None
        if data.tokenizer is not None:
            self._tokenizer, self.digest = _open(Path(data.tokenizer))
            known = (self._tokenizer.token_to_id(name) for name in END_OF_DOCUMENT)
            self._end = next((number for number in known if number is not None), None)

    def tokens(self, documents: Sequence[str]) -> Tokens:
        """(n,), the documents one after the other, each with its end."""
        if self._tokenizer is None:
            return np.frombuffer(b"".join(text.encode() + b"\0" for text in documents), dtype=np.uint8)
        end = [] if self._end is None else [self._end]
        found = self._tokenizer.encode_batch(list(documents), add_special_tokens=False)
        numbers = [number for one in found for number in (*one.ids, *end)]
        return narrow(numbers)


def _open(path: Path) -> tuple[Any, bytes]:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise HostError(
            "data.tokenizer needs the tokenizers package: pip install 'longhaul-bench[tokenizers]'"
        ) from None
    try:
        content = path.read_bytes()
        return Tokenizer.from_str(content.decode()), hashlib.sha256(content).digest()
    except Exception as error:  # the library raises bare Exceptions
        raise InputError(str(path), "", Phrase(str(error)), "a tokenizer.json of Hugging Face's") from None
