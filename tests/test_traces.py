"""Measured rates and delays as sources of what a timeline plays."""

from pathlib import Path
from statistics import fmean

import pytest

from netsim.documents import validate
from netsim.errors import InputError
from netsim.states import states as states_of
from netsim.topology import Topology, read_topology, topology_from
from netsim.traces import EMPTY_RATE, PACKET, TraceFile, read_columns, read_mahimahi
from tests.topology_files import written

TRACED = """
name: traced
defaults: {up: 10 Mbit, down: 10 Mbit, delay: 10 ms}
sites: {a: {}, b: {}}
timeline:
  - {from: 0 s, to: 1 s, trace: {site: a, side: up, file: cell.trace, every: 100 ms}}
"""


def test_a_mahimahi_trace_becomes_rates_in_the_document(tmp_path: Path) -> None:
    """A mahimahi trace becomes rates and the document stands alone."""
    written(tmp_path, "cell.trace", "\n".join(["10", "20", "30", "150", "200"]))
    document = read_topology(written(tmp_path, "traced.yaml", TRACED))
    topology = topology_from(document, "elsewhere")
    packet = 1504 * 8 / 0.1
    found = [(time, state.site("a").up) for time, state in states_of(topology)][:3]
    assert found == [(0.0, 3 * packet), (0.1, 2 * packet), (0.2, 3 * packet)]


@pytest.mark.parametrize(
    ("lines", "every", "seconds"),
    [
        ([1, 1, 1, 1], 0.1, 0.001),  # 48 Mbit/s, far shorter than a stretch
        (list(range(1, 251)), 0.1, 0.25),  # 12 Mbit/s, two and a half stretches
        ([10, 20, 30, 150, 200], 0.1, 0.2),
        ([0, 7, 7, 950, 1001], 0.1, 1.001),  # most stretches empty
    ],
)
def test_a_trace_keeps_its_mean_rate_and_period(tmp_path: Path, lines: list[int], every: float, seconds: float) -> None:
    rates, step = read_mahimahi(written(tmp_path, "cell.trace", "\n".join(map(str, lines))), every)
    assert fmean(rates) == pytest.approx(len(lines) * PACKET * 8 / seconds, rel=1e-12)
    assert len(set(rates)) == 1 or len(rates) * step == pytest.approx(seconds, rel=1e-12)
    assert min(rates) > 0


@pytest.mark.parametrize("line", ["\u0661", "1.5", "-3", "1" * 5000])
def test_a_trace_line_must_be_ascii_digits(tmp_path: Path, line: str) -> None:
    written(tmp_path, "cell.trace", f"1\n{line}\n")
    with pytest.raises(InputError, match="line 2"):
        read_topology(written(tmp_path, "traced.yaml", TRACED))


def test_a_trace_of_no_duration_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "cell.trace", "10\n")
    with pytest.raises(InputError, match="every: found 0.0; allowed: greater than 0"):
        read_topology(written(tmp_path, "traced.yaml", TRACED.replace("100 ms", "0 s")))


def traced(tmp_path: Path, entry: str, file: str) -> list[tuple[float, Topology]]:
    """The states of two sites, 10 ms apart, of which an event of one second plays `file`."""
    written(tmp_path, "own.csv", file)
    event = f"  - {{from: 0 s, to: 1 s, trace: {{file: own.csv, {entry}}}}}\n"
    text = "name: traced\ndefaults: {up: 10 Mbit, down: 10 Mbit, delay: 10 ms}\nsites: {a: {}, b: {}}\ntimeline:\n"
    return states_of(topology_from(read_topology(written(tmp_path, "traced.yaml", text + event)), "elsewhere"))


def test_a_two_column_trace_of_rates_is_played(tmp_path: Path) -> None:
    """Headings are skipped; a value holds until the next row."""
    found = traced(tmp_path, "values: rate, site: a, side: up, every: 250 ms", "seconds,Mbit/s\n0,4\n0.5,2\n0.75,6\n")
    assert [(time, state.site("a").up) for time, state in found] == [(0.0, 4e6), (0.5, 2e6), (0.75, 6e6), (1.0, 10e6)]


def test_a_trace_of_round_trips_gives_each_direction_half(tmp_path: Path) -> None:
    found = traced(tmp_path, "values: rtt, time: ms, between: [a, b], every: 500 ms", "100 30\n600 50\n")
    assert [time for time, _ in found] == [0.0, 0.5, 1.0]
    assert [state.link("b", "a").delay for _, state in found] == pytest.approx([0.015, 0.025, 0.01])


def test_a_trace_of_delays_may_have_its_own_unit(tmp_path: Path) -> None:
    found = traced(tmp_path, "values: delay, unit: us, from: a, to: b, every: 1 s", "0\t3000\n1\t3000\n")
    assert found[0][1].link("a", "b").delay == pytest.approx(0.003)
    assert found[0][1].link("b", "a").delay == 0.01


@pytest.mark.parametrize(
    ("entry", "file", "message"),
    [
        ("values: rate, site: a", "0 1\n", "two rows or more"),
        ("values: rate, site: a", "0 1\n1 x\n", "line 2: found '1 x'"),
        ("values: rate, site: a", "0 1\n1 2 3\n", "line 2"),
        ("values: rate, site: a", "0 1\n0 2\n", "a later time than"),
        ("values: rate, unit: ms, site: a", "0 1\n1 2\n", "unit: found 'ms'; allowed: a rate unit"),
        ("values: delay, unit: Mbit, between: [a, b]", "0 1\n1 2\n", "allowed: a unit of time"),
        ("values: delay, site: a", "0 1\n1 2\n", "since a site has none"),
        ("values: delay, between: [a, b]", "0 70000\n1 2\n", "at most 60 s"),
        ("unit: Mbit, site: a", "10\n", "values: rate, delay or rtt beside it"),
        ("values: speed, site: a", "10\n", "values: found 'speed'"),
        ("values: rate, site: a, rates: [1 Mbit]", "0 1\n1 2\n", "one of them"),
    ],
)
def test_a_wrong_trace_file_is_one_error(tmp_path: Path, entry: str, file: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        traced(tmp_path, entry, file)


@pytest.mark.parametrize("every", [0.1, 0.3, 0.7, 10.0])
def test_a_two_column_trace_keeps_its_mean_and_period(tmp_path: Path, every: float) -> None:
    rows = [(0.0, 8.0), (0.4, 0.0), (1.1, 3.0), (2.0, 12.0)]  # the last for 0.9 s, as the one before it
    path = written(tmp_path, "own.csv", "\n".join(f"{time} {value}" for time, value in rows))
    described = validate(TraceFile, {"file": "own.csv", "values": "rate", "every": f"{every} s"}, "here")
    rates, step = read_columns(path, described, "here", "trace")
    assert fmean(rates) == pytest.approx((8.0 * 0.4 + 3.0 * 0.9 + 12.0 * 0.9) / 2.9 * 1e6, rel=1e-9)
    assert len(rates) == 1 or len(rates) * step == pytest.approx(2.9, rel=1e-9)
    assert min(rates) >= EMPTY_RATE


def test_a_trace_that_goes_back_in_time_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "cell.trace", "10\n5\n")
    with pytest.raises(InputError, match="line 2: found '5'"):
        read_topology(written(tmp_path, "traced.yaml", TRACED))
