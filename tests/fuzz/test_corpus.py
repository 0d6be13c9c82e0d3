"""Inputs that once were, or might be, taken wrongly, and mutations of them: read, or refused with one clear message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.records.run_record import Result, Step, read_lines, read_record
from harness.spec.scenario import load_scenario
from harness.spec.suite import load_suite
from netsim.errors import InputError, LonghaulError
from netsim.importers import read_graph
from netsim.topology import load_topology
from tests.fuzz.guided import guided
from tests.fuzz.test_documents import EXAMPLES

CORPUS = Path(__file__).with_name("corpus")
PARSERS: dict[str, Callable[[Path], Any]] = {
    "suite": load_suite,
    "topology": load_topology,
    "scenario": load_scenario,
    "result": lambda path: read_record(path, Result),
    "steps": lambda path: list(read_lines(path, Step)),
    "graph": read_graph,
    "table": load_topology,
}
FILES = sorted(path for path in CORPUS.rglob("*.*") if path.is_file())
SOUND = [path for path in FILES if path.stem == "sound"]
FEW = settings(max_examples=EXAMPLES // 5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.timeout(20)
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_corpus_file_is_read_or_refused(path: Path) -> None:
    if path in SOUND:
        PARSERS[path.parent.name](path)
    else:
        with pytest.raises(InputError):
            PARSERS[path.parent.name](path)


@FEW
@given(path=st.sampled_from(FILES), data=st.data())
def test_any_mutation_of_the_corpus_is_read_or_refused(tmp_path: Path, path: Path, data: st.DataObject) -> None:
    """Bytes replaced, cut out and repeated."""
    content = path.read_bytes()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 40)))
        content = (
            content[:start]
            + data.draw(st.one_of(st.binary(max_size=8), st.just(content[start:end] * 3)))
            + content[end:]
        )
    mutated = tmp_path / path.name
    mutated.write_bytes(content)
    guided(lambda: PARSERS[path.parent.name](mutated), LonghaulError)
