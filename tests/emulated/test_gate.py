"""The gate's judgement: what passes, what does not, and how it says so."""

import pytest

from netsim.emulated.gate import FULL, LinkMeasurement, LinkReport, evaluate, loss_interval
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
