"""JSON Schemas of the documents that people write and of the records that runs leave, from the models behind them."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from harness.costmodel.calibration import Calibration
from harness.records.run_record import LinkRecord, RecordedEvent, Result, Step
from harness.spec.run_spec import RunSpec
from harness.spec.scenario import ScenarioFile
from harness.spec.suite import SuiteFile
from netsim.topology import TopologyFile
from reports.claims import ClaimsFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMAS: dict[str, tuple[type[BaseModel], str]] = {
    "topology": (TopologyFile, "A network: topologies/*.yaml"),
    "suite": (SuiteFile, "What to run: suites/*.yaml"),
    "scenario": (ScenarioFile, "What to project: scenarios/*.yaml"),
    "claims": (ClaimsFile, "Claims to hold against runs: `longhaul report --claims`"),
    "calibration": (Calibration, "Constants of the cost model: `longhaul calibrate`"),
    "run-spec": (RunSpec, "spec.json of a run: its frozen cell"),
    "result": (Result, "result.json of a run"),
    "step": (Step, "A line of rank-N/steps.jsonl"),
    "links": (LinkRecord, "`longhaul wan check --json`, and both parts of links.json of a run"),
    "event": (RecordedEvent, "A line of events.jsonl of a run"),
}


def schema_of(name: str) -> dict[str, Any]:
    """The schema of one kind, as its files are spelt."""
    kind, summary = SCHEMAS[name]
    schema = _tidy(kind.model_json_schema(by_alias=True, mode="validation"))
    return {"$schema": DIALECT, "title": name, "description": summary, **schema}


def schema_text(name: str) -> str:
    """The text of schemas/<name>.json."""
    return json.dumps(schema_of(name), indent=1, ensure_ascii=False) + "\n"


def _tidy(node: Any, names: bool = False) -> Any:
    """Without the titles that repeat each key, and with the classes' names as nothing but names.

    names: whether the keys of `node` are those of a document, which may well be called `title`.
    """
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if isinstance(node, str) and node.startswith("#/$defs/_"):
        return node.replace("#/$defs/_", "#/$defs/")
    if not isinstance(node, dict):
        return node
    return {
        key.lstrip("_") if names else key: _tidy(value, names=not names and key in ("properties", "$defs"))
        for key, value in node.items()
        if names or key != "title"
    }
