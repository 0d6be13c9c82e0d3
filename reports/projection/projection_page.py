"""The page of a projection: one offline HTML file whose sliders evaluate the closed form in the browser."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.costmodel.calibration import FIRST_PRINCIPLES, Calibration
from harness.costmodel.planning.answer_tables import Answers
from harness.costmodel.planning.equal_loss import follows_law, law_of, reference_of
from harness.costmodel.projected_row import ProjectedRow, base_rows
from harness.costmodel.projection import link_model_of
from harness.costmodel.sites.site_costs import device_hour_usd
from harness.spec.scenario import METHOD_AXES, Scenario
from harness.spec.scenario_sites import EqualSites
from netsim.errors import InputError
from netsim.framing import goodput
from netsim.topology import Transport
from netsim.units import show_duration, show_rate, show_size
from reports.projection.answer_headings import heading_of_table
from reports.projection.page_loads import PageVariant, page_variants
from reports.projection.projection_tables import entries_table, flattened
from reports.style.palette import SeriesStyle, series_styles
from reports.style.tables import Table
from reports.style.web_page import page_css, page_scripts, page_template, script_json

_HERE = Path(__file__).parent
_SCRIPTS = (_HERE.parent / "templates" / "quantities.js", _HERE / "closed_form.js", _HERE / "projection_page.js")


@dataclass(frozen=True)
class _Answer:
    table: Table
    csv: str  # as a data: URL


def write_page(
    scenario: Scenario,
    rows: Sequence[ProjectedRow],
    found: Answers,
    calibration: Calibration | None,
    folder: Path,
    advance: Callable[[], None] = lambda: None,
) -> Path:
    """Write `<scenario>.html` into `folder`. InputError for a topology, whose time is simulated."""
    if scenario.rate is None or scenario.rtt is None:
        raise InputError(scenario.where, "network", "a topology", "rate and rtt: the page evaluates the closed form")
    text = page_template(_HERE / "projection_page.html").render(
        title=scenario.name,
        description=scenario.description.strip(),
        source=scenario.source.strip(),
        inputs=_inputs(scenario, calibration),
        answers=[_answer(name, entries) for name, entries in found.to_json().items() if entries],
        css=page_css(),
        js=page_scripts(*_SCRIPTS),
        data=script_json(page_data(scenario, rows, found, calibration, advance)),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{scenario.name}.html"
    path.write_text(text, encoding="utf-8")
    return path


def page_data(
    scenario: Scenario,
    rows: Sequence[ProjectedRow],
    found: Answers,
    calibration: Calibration | None,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """All that the scripts read; rates in bit/s, times in seconds, sizes in bytes."""
    link = link_model_of(calibration, scenario.framing)
    labels = [entry.label or entry.method for entry in scenario.methods]
    styles = series_styles(labels, {row.label: row.algorithm for row in rows})
    prices, worth = scenario.prices, {entry.label: entry.token_factor for entry in found.equal_loss or ()}
    tokens = _reference_tokens(scenario, rows) if worth else None

    def factor(variant: PageVariant) -> float | None:
        one = variant.projected
        if tokens is not None and follows_law(scenario, variant.label, one.variant.entry.method):
            return law_of(one.parameters, one.variant.sites, tokens)[1]
        return worth.get(variant.label)

    return {
        "name": scenario.name,
        "methods": [_style(label, styles[label]) for label in labels],
        "rate": scenario.rate,
        "rtt": scenario.rtt,
        "rates": sorted({scenario.rate or 0.0, *scenario.sweep.rate}),
        "rtts": sorted({scenario.rtt or 0.0, *scenario.sweep.rtt}),
        "axes": {
            "sites": sorted({scenario.sites, *scenario.sweep.sites}),
            **{axis: sorted(set(getattr(scenario.sweep, axis))) for axis in METHOD_AXES},
        },
        "sites": scenario.sites,
        "link": {
            "goodput": goodput(1.0, Transport().mtu) / 8 * link.efficiency,
            "message": link.message_seconds,
            "transfer": link.transfer_seconds,
            "byte": link.byte_seconds,
        },
        "off": {"compute": scenario.uncertainty.compute, "rate": scenario.uncertainty.rate},
        "targets": scenario.targets,
        "devices": sum(group.count * group.site.devices for group in scenario.groups),
        "deviceHour": _device_hour(scenario),
        "gigabyteSent": prices.gigabyte_sent if prices else None,
        "quality": tokens,
        "variants": [{**one.to_json(), "factor": factor(one)} for one in page_variants(scenario, advance)],
    }


def _reference_tokens(scenario: Scenario, rows: Sequence[ProjectedRow]) -> int:
    return reference_of([row for row in base_rows(rows, scenario) if row.model == scenario.model.name]).tokens


def _device_hour(scenario: Scenario) -> float | None:
    """US$, the mean over all devices; None where that of any is unknown."""
    if scenario.prices is None:
        return None
    each, devices = 0.0, 0
    for group in scenario.groups:
        if (hourly := device_hour_usd(group, scenario.prices)) is None:
            return None
        devices += group.count * group.site.devices
        each += group.count * group.site.devices * hourly
    return each / devices


def _style(label: str, style: SeriesStyle) -> dict[str, str]:
    return {"label": label, "light": style.colour, "dark": style.dark}


def _answer(name: str, entries: Sequence[dict[str, Any]]) -> _Answer:
    table = entries_table(name, heading_of_table(name), [flattened(entry) for entry in entries])
    csv = b64encode(table.csv().encode()).decode()
    return _Answer(table, f"data:text/csv;base64,{csv}")


def _inputs(scenario: Scenario, calibration: Calibration | None) -> list[tuple[str, str, str]]:
    """(input, value, source)."""
    model, device, off = scenario.model, scenario.device, scenario.uncertainty
    rate, rtt = show_rate(scenario.rate or 0.0), f"{1e3 * (scenario.rtt or 0.0):g} ms"
    file = Path(scenario.where).name
    found = [
        ("model", f"{model.name}: {model.count() / 1e9:,.4g} billion parameters, {model.layers} layers", file),
        *(_group(group, scenario.rate or 0.0, file) for group in scenario.groups),
        ("network", f"access rate {rate}, RTT {rtt}", file),
        ("batch", f"{scenario.batch:,} sequences of {model.sequence:,} tokens, all sites together", file),
        ("steps", f"{scenario.steps:,}", file),
        ("peak of a device", f"{device.peak_flops / 1e12:,.4g} TFLOP/s", device.sources["peak_flops"]),
        ("memory of a device", show_size(device.memory), device.sources["memory"]),
        *(
            [("achieved share of the peak", f"{device.achieved_mfu:.0%}", device.sources["achieved_mfu"])]
            if scenario.site.parallel is None
            else []
        ),
        ("uncertainty", f"compute {off.compute:.0%}, rate {off.rate:.0%}", off.reason),
        ("basis", FIRST_PRINCIPLES if calibration is None else f"calibration {calibration.name}", ""),
    ]
    found += [row for group in scenario.groups for row in _machines(group, file)]
    types = ", ".join(f"{name}: {kind}" for name, kind in scenario.state_dtypes.items())
    found.append(("precision", f"{scenario.precision} {{{types}}}" if types else scenario.precision, file))
    if scenario.step_jitter:
        found.append(("jitter of a step", f"{scenario.step_jitter:.0%} (standard deviation)", file))
    if (failures := scenario.failures) is not None:
        of_one, mtbf = ("device", failures.device_mtbf) if failures.site_mtbf is None else ("site", failures.site_mtbf)
        found.append((f"time between failures of a {of_one}", show_duration(mtbf or 0.0), failures.source))
        costs = f"restart {show_duration(failures.restart)}, checkpoint {show_duration(failures.checkpoint)}"
        found.append(("costs of failures", costs, file))
    if scenario.prices:
        found.append(
            (
                "prices",
                f"{scenario.prices.device_hour or device.price_per_hour} US$ a device-hour",
                scenario.prices.source,
            )
        )
    for entry in scenario.methods:
        options = ", ".join(f"{name}: {value}" for name, value in entry.options.items())
        found.append((entry.label or entry.method, f"{entry.method} {{{options}}}", entry.note or file))
    return found


def _group(group: EqualSites, rate: float, file: str) -> tuple[str, str, str]:
    machines = f"{group.count} of {group.site.devices} {group.device.name}"
    if group.up == group.down == 1:
        return group.name, machines, file
    return group.name, f"{machines}, {show_rate(rate * group.up)} up, {show_rate(rate * group.down)} down", file


def _machines(group: EqualSites, file: str) -> Iterator[tuple[str, str, str]]:
    """What is stated of how the devices of a site work together."""
    site = group.site
    if (layout := site.parallel) is not None:
        parts = f"tensor {layout.tensor}, pipeline {layout.pipeline} x {layout.interleave}, sharding {layout.sharding}"
        reached = f"kernels reach {layout.kernel_mfu:.0%} of the peak"
        rates = f"{show_rate(layout.device_link)} within {layout.node} devices, {show_rate(layout.nic)} beyond"
        yield f"division of the model, {group.name}", f"{parts}; {reached}; {rates}", layout.source
    if site.workers > 1:
        nic = "" if site.worker_nic is None else f", {show_rate(site.worker_nic)} each to the network"
        yield f"workers, {group.name}", f"{site.workers}, {show_rate(site.inside or 0.0)} among them{nic}", file
    if site.offload != "none":
        yield f"at the host, {group.name}", f"{site.offload}, over {show_rate(site.host_link or 0.0)} a device", file
