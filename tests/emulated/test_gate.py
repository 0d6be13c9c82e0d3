"""The gate's judgement: what passes, what does not, and how it says so."""

from dataclasses import replace
from random import Random

import pytest

from netsim.emulated.gate import FULL, SHORT, LinkMeasurement, LinkReport, evaluate, loss_interval
from netsim.emulated.node.probes import Arrivals
from netsim.framing import goodput
from netsim.links import GilbertElliott
from netsim.topology import Topology
from tests.emulated.networks import PAIR, pair

TOPOLOGY = pair()  # 40 Mbit/s, 30 ms
PAYLOAD = goodput(40e6, 1500)


def found(rtt: float = 0.0302, rate: float = PAYLOAD, sent: int = 1000, seen: int = 1000) -> LinkMeasurement:
    return LinkMeasurement((rtt,) * 9, rate, sent, seen, 0, "udp")


def why(observed: LinkMeasurement, topology: Topology = TOPOLOGY) -> tuple[str, ...]:
    return evaluate(topology, "a", "b", observed, FULL).why


def test_a_link_as_asked_passes() -> None:
    assert why(found()) == ()


def test_payload_at_the_line_rate_would_be_too_fast() -> None:
    assert why(found(rate=40e6)) == ("goodput 40 Mbit/s, expected 38.26 Mbit/s +/- 3.0%",)


def test_a_late_link_is_named_with_what_was_asked_and_found() -> None:
    assert why(found(rtt=0.0335)) == ("RTT 33.5 ms, expected 30 ms +/- 1 ms",)
    assert why(found(rtt=0.0285)) == ("RTT 28.5 ms, expected 30 ms +/- 1 ms",)


def test_a_long_link_may_be_off_by_a_share_of_its_time() -> None:
    distant = pair(defaults={**PAIR["defaults"], "delay": "150 ms"})
    assert why(found(rtt=0.3025), distant) == ()
    assert why(found(rtt=0.3035), distant) != ()


def test_one_lost_packet_on_a_link_that_loses_none_is_too_many() -> None:
    assert why(found(seen=999)) == ("1 of 1000 packets lost, expected 0 to 0 at a loss of 0.000%",)


def test_a_lossy_link_must_lose_about_what_was_asked() -> None:
    lossy = pair(defaults={**PAIR["defaults"], "loss": "2 %"})
    assert why(found(rate=PAYLOAD * 0.98, seen=980), lossy) == ()
    assert any("loss" in one for one in why(found(rate=PAYLOAD, seen=1000), lossy))
    assert any("loss" in one for one in why(found(rate=PAYLOAD * 0.9, seen=900), lossy))


def test_a_silent_link_fails_unless_it_is_severed() -> None:
    silent = LinkMeasurement((), 0.0, 1000, 0, 0, "udp")
    assert "no echo came back" in why(silent)[0]
    assert why(silent, pair(defaults={**PAIR["defaults"], "loss": 1.0})) == ()


def test_bursts_make_the_count_of_losses_vary_more() -> None:
    even = pair(defaults={**PAIR["defaults"], "loss": 0.04}).link("a", "b")
    bursty = pair(defaults={**PAIR["defaults"], "loss": {"to_bad": 0.01, "to_good": 0.24}}).link("a", "b")
    assert isinstance(bursty.loss, GilbertElliott)
    low, high = loss_interval(even, 10_000, 0.99)
    wide_low, wide_high = loss_interval(bursty, 10_000, 0.99)
    assert low < 400 < high
    assert wide_high - wide_low > 2 * (high - low)
    assert loss_interval(pair().link("a", "b"), 10_000, 0.99) == (0, 0)


def test_a_report_names_every_excess_and_passes_only_without_any() -> None:
    good, late = evaluate(TOPOLOGY, "a", "b", found(), FULL), evaluate(TOPOLOGY, "b", "a", found(rtt=0.04), FULL)
    report = LinkReport("pair", "nfqueue", "netns", (good, late), FULL)
    assert not report.passed
    assert report.problems() == ["b -> a: RTT 40 ms, expected 30 ms +/- 1 ms"]
    assert LinkReport("pair", "nfqueue", "netns", (good,), FULL).passed


def test_the_json_has_the_fields_that_other_programs_rely_on() -> None:
    report = LinkReport("pair", "nfqueue", "netns", (evaluate(TOPOLOGY, "a", "b", found(), FULL),), FULL).to_json()
    assert {"topology", "engine", "substrate", "passed", "links"} <= set(report)
    link = report["links"][0]
    assert link["rtt_ms_asked"] == 30.0
    assert link["goodput_mbit_expected"] == pytest.approx(38.2563, abs=1e-3)
    wanted = (
        "source target rtt_ms_asked rtt_ms rate_mbit_asked goodput_mbit_expected goodput_mbit loss_asked loss passed"
    )
    assert set(wanted.split()) <= set(link)


JITTERY = pair(defaults={**PAIR["defaults"], "delay": "100 ms", "jitter": {"spread": "30 ms"}})


def jittery(link_spread: float = 0.03, spacing: float = 0.03, seed: int = 1) -> LinkMeasurement:
    """45 echoes over a link of 100 ms and that jitter, kept in order as the engines do."""
    random = Random(seed)
    times = []
    last = {"there": 0.0, "back": 0.0}
    for number in range(2000):
        due = number * spacing
        for way in last:
            due = last[way] = max(last[way], due + max(0.0, 0.1 + link_spread * random.gauss()))
        times.append(due - number * spacing)
    return LinkMeasurement(tuple(times[::45][:45]), PAYLOAD, 1000, 1000, 0, "udp", spacing=spacing)


def test_jitter_is_expected_with_the_mean_that_is_applied() -> None:
    finding = evaluate(JITTERY, "a", "b", jittery(), FULL)
    assert finding.why == ()
    assert finding.rtt_ms_asked == 200
    assert finding.rtt_ms_expected == pytest.approx(217, abs=4)


def test_a_stall_of_the_host_does_not_fail_a_jittery_link() -> None:
    """The mean of the others is what it should be; a link that is longer by as much is still named."""
    stalled = jittery()
    stalled = replace(stalled, round_trips=(*stalled.round_trips[:-1], 3.0))
    assert not any("RTT" in one and "middle" not in one for one in why(stalled, JITTERY))
    longer = replace(stalled, round_trips=tuple(took + 0.06 for took in jittery().round_trips))
    assert any(one.startswith("RTT") for one in why(longer, JITTERY))


def test_jitter_above_the_delay_has_a_longer_mean() -> None:
    short = pair(defaults={**PAIR["defaults"], "delay": "5 ms", "jitter": {"spread": "20 ms", "reorder": True}})
    assert evaluate(short, "a", "b", found(), FULL).rtt_ms_expected == pytest.approx(21.5, abs=0.5)


def test_jitter_of_half_or_twice_the_spread_is_named() -> None:
    for spread in (0.0, 0.07):
        assert any("middle half" in one for one in why(jittery(spread), JITTERY))


def test_copies_where_none_were_requested_are_named() -> None:
    copied = replace(found(), duplicated=3)
    assert why(copied) == ("3 of 1000 packets duplicated, expected 0 to 0",)
    copying = pair(defaults={**PAIR["defaults"], "duplicate": "5 %"})
    assert why(replace(found(), duplicated=50), copying) == ()
    assert any("duplicated" in one for one in why(found(), copying))


def test_packets_out_of_order_are_named_unless_requested() -> None:
    assert why(replace(found(), reordered=2)) == ("2 packets overtaken, expected none",)
    loose = pair(defaults={**PAIR["defaults"], "jitter": {"spread": "4 ms", "reorder": True}})
    assert any("no packet overtaken" in one for one in why(found(), loose))
    assert not any("overtaken" in one for one in why(replace(found(), reordered=300), loose))


def test_bursts_of_another_length_are_named() -> None:
    bursty = pair(defaults={**PAIR["defaults"], "loss": {"to_bad": 0.01, "to_good": 0.25}})
    lost = replace(found(rate=PAYLOAD * 0.96, sent=10_000, seen=9_615), gaps=96)
    assert why(lost, bursty) == ()
    assert any("in a row" in one for one in why(replace(lost, gaps=380), bursty))


def test_a_late_tail_is_named_by_the_full_check() -> None:
    tail = replace(found(), round_trips=(0.0302,) * 26 + (0.06,) * 4)
    assert why(tail) == ("4 of 30 RTTs above 50 ms, expected 1 % of them at most",)
    once = replace(found(), round_trips=(0.0302,) * 29 + (0.06,))
    assert why(once) == ()  # a busy moment of the host
    assert evaluate(TOPOLOGY, "a", "b", tail, SHORT).why == ()


def test_what_the_tolerance_hides_is_stated_as_not_judged() -> None:
    near = pair(defaults={**PAIR["defaults"], "delay": "0.1 ms"})
    finding = evaluate(near, "a", "b", found(rtt=0.0006), FULL)
    assert (finding.why, finding.not_judged) == ((), ("whether the RTT is too short",))
    assert evaluate(near, "a", "b", found(rtt=0.0016), FULL).why != ()
    assert evaluate(TOPOLOGY, "a", "b", found(), FULL).not_judged == ()


def test_the_tail_of_a_jittery_stream_counts_for_no_rate() -> None:
    """A stream of 1 kB each millisecond, whose last two datagrams come 100 ms late."""
    arrivals = Arrivals(times=[0.001 * number for number in range(1000)] + [1.1, 1.1], sizes=[1000] * 1002)
    assert arrivals.rate(0.5, tail=0.1) == pytest.approx(8e6, rel=1e-2)
    assert arrivals.rate(0.5) == pytest.approx(0.8 * 8e6, rel=1e-2)
    assert Arrivals(times=[0.0, 0.1], sizes=[10, 10]).rate(0.5, tail=1.0) == pytest.approx(800)
