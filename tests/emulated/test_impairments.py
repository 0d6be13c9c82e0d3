"""What each packet meets: distributions, bursts, and the same again for the same seed."""

from itertools import groupby
from statistics import fmean, stdev

import pytest

from netsim.emulated.node.delay import Crowd
from netsim.emulated.node.impairments import Fate, pareto_moments
from netsim.emulated.plan import Impairment


def fates(count: int = 40_000, **fields: object) -> list[bool]:
    fate = Fate(Impairment(**{"delay": 0.05, "seed": "1:a:b", **fields}))  # type: ignore[arg-type]
    return [fate.lost() for _ in range(count)]


def delays(count: int = 40_000, **fields: object) -> list[float]:
    fate = Fate(Impairment(**{"delay": 0.05, "seed": "1:a:b", **fields}))  # type: ignore[arg-type]
    return [fate.delay() for _ in range(count)]


def test_without_jitter_every_packet_is_delayed_alike() -> None:
    assert set(delays(100)) == {0.05}


@pytest.mark.parametrize(
    ("distribution", "deviation"), [("normal", 0.004), ("pareto", 0.004), ("uniform", 0.004 / 3**0.5)]
)
def test_jitter_keeps_the_mean_and_has_the_deviation_asked_for(distribution: str, deviation: float) -> None:
    found = delays(spread=0.004, distribution=distribution)
    assert fmean(found) == pytest.approx(0.05, rel=0.01)
    assert stdev(found) == pytest.approx(deviation, rel=0.02)


def test_a_pareto_delay_is_rarely_long_and_never_much_shorter() -> None:
    found = delays(spread=0.004, distribution="pareto")
    assert min(found) >= 0.05 - 0.8 * 0.004
    assert max(found) == pytest.approx(0.05 + 4.92 * 0.004, rel=0.01)


def test_netems_pareto_table_is_not_centred() -> None:
    """Netems pareto table is neither centred nor of deviation one."""
    assert pareto_moments() == pytest.approx((-0.0335, 0.8197), abs=0.001)


def test_a_delay_is_never_negative() -> None:
    assert min(delays(delay=0.001, spread=0.01)) == 0.0


def test_random_loss_has_the_share_asked_for() -> None:
    assert fmean(fates(loss_in_good=0.02)) == pytest.approx(0.02, rel=0.1)


def test_bursty_loss_has_share_and_length_of_its_chain() -> None:
    """Bursty loss has the share and the burst length of its chain."""
    lost = fates(200_000, to_bad=0.01, to_good=0.25, loss_in_bad=1.0)
    assert fmean(lost) == pytest.approx(0.01 / 0.26, rel=0.05)
    bursts = [len(list(group)) for gone, group in groupby(lost) if gone]
    assert fmean(bursts) == pytest.approx(1 / 0.25, rel=0.05)


def test_the_fate_of_packets_follows_from_the_seed() -> None:
    """The same seed meets the same fate and another seed another."""
    assert fates(1000, loss_in_good=0.1) == fates(1000, loss_in_good=0.1)
    assert fates(1000, loss_in_good=0.1) != fates(1000, loss_in_good=0.1, seed="1:b:a")
    assert delays(1000, spread=0.01) == delays(1000, spread=0.01)


def test_adding_jitter_does_not_change_which_packets_are_lost() -> None:
    plain, jittery = Fate(Impairment(0.05, loss_in_good=0.1)), Fate(Impairment(0.05, loss_in_good=0.1, spread=0.01))
    for _ in range(1000):
        jittery.delay()
        assert plain.lost() == jittery.lost()


def test_a_change_goes_on_where_the_generators_are() -> None:
    whole, changed = Fate(Impairment(0.05, loss_in_good=0.1)), Fate(Impairment(0.05, loss_in_good=0.1))
    changed.change(Impairment(0.08, loss_in_good=0.1))
    assert [whole.lost() for _ in range(500)] == [changed.lost() for _ in range(500)]
    assert changed.delay() == 0.08


def test_only_packets_that_come_fast_are_read_together() -> None:
    """Sixty-four packets in 2 ms are a crowd, in 20 ms they are none."""
    crowd = Crowd()
    crowd.count(64, 1.0)
    crowd.count(64, 1.002)
    assert crowd.dense
    crowd.count(32, 1.01)
    assert crowd.dense
    crowd.count(32, 1.022)
    assert not crowd.dense
