"""The netem engine's arguments, and what tc reports back."""

from netsim.emulated.node.netem import netem_arguments, netem_expected, netem_limit, netem_seed, netem_state
from netsim.emulated.plan import Impairment


def arguments(**fields: object) -> str:
    return netem_arguments(Impairment(**{"delay": 0.035, **fields}), 100e6, seeded=False)  # type: ignore[arg-type]


def test_a_plain_delay_names_its_limit() -> None:
    assert arguments() == "netem limit 11254 delay 35000us"


def test_the_limit_holds_the_bandwidth_delay_product() -> None:
    """netem's default of 1000 packets caps a path of 50 ms at 242 Mbit/s."""
    assert netem_limit(Impairment(0.05), 1e9) > 1e9 * 0.05 / 8 / 1514 * 1.5


def test_the_limit_holds_the_smallest_packets_of_a_long_path() -> None:
    """15,000 frames of 100 bytes per second over 300 ms: 2,250 under way each way."""
    assert netem_limit(Impairment(0.15), 20e6) > 15_000 * 0.15


def test_a_seed_is_given_where_it_is_taken() -> None:
    impairment = Impairment(0.05, seed="7:a:b")
    assert netem_arguments(impairment, 1e6, seeded=True).endswith(f" seed {netem_seed(impairment)}")


def test_jitter_names_its_table_and_keeps_order() -> None:
    """Jitter names its table and keeps order unless told otherwise."""
    assert arguments(spread=0.004).endswith("delay 35000us 4000us distribution normal rate 32000000000bit")
    assert arguments(spread=0.004, distribution="uniform", reorder=True).endswith("delay 35000us 4000us")


def test_pareto_jitter_is_corrected_for_netems_table() -> None:
    """A pareto jitter has the mean and deviation asked for whatever netems table has."""
    found = arguments(spread=0.004, distribution="pareto", reorder=True)
    assert found.endswith("delay 35163us 4880us distribution pareto")


def test_loss_is_random_or_in_bursts() -> None:
    assert arguments(loss_in_good=0.015).endswith("loss random 1.5%")
    burst = arguments(to_bad=0.01, to_good=0.25, loss_in_bad=1.0, loss_in_good=0.001)
    assert burst.endswith("loss gemodel 1% 25% 100% 0.1%")


def test_impairments_stand_side_by_side() -> None:
    both = arguments(spread=0.004, loss_in_good=0.01, duplicate=0.02)
    assert all(part in both for part in ("delay 35000us 4000us", "loss random 1%", "duplicate 2%"))


def test_what_tc_reports_is_read_in_our_units() -> None:
    entry = {
        "kind": "netem",
        "handle": "10:",
        "options": {
            "limit": 1534,
            "delay": {"delay": 0.035, "jitter": 0.004, "correlation": 0},
            "loss-gemodel": {"p": 0.01, "r": 0.25, "1-h": 1, "1-k": 0.001},
            "duplicate": {"duplicate": 0.02, "correlation": 0},
        },
    }
    assert netem_state(entry) == {
        "limit": 1534.0,
        "delay": 0.035,
        "spread": 0.004,
        "loss": 0.0,
        "to_bad": 0.01,
        "to_good": 0.25,
        "duplicate": 0.02,
    }


def test_what_is_requested_is_compared_in_the_terms_of_tc() -> None:
    found = netem_expected(Impairment(0.035, spread=0.004, to_bad=0.01, to_good=0.25, duplicate=0.02), 100e6)
    assert found["limit"] == 100e6 * 1.5 * 0.055 // 512 + 1001
    rest = {"delay": 0.035, "spread": 0.004, "loss": 0.0, "to_bad": 0.01, "to_good": 0.25, "duplicate": 0.02}
    assert {name: value for name, value in found.items() if name != "limit"} == rest
