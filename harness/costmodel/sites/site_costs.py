"""What sites use and cost: device-hours, energy, money."""

from __future__ import annotations

from collections.abc import Sequence

from harness.spec.scenario import Prices
from harness.spec.scenario_sites import EqualSites


def device_hours(groups: Sequence[EqualSites], seconds: float) -> float:
    """Of all sites together."""
    return sum(group.count * group.site.devices for group in groups) * (seconds / 3600)


def device_hour_usd(group: EqualSites, prices: Prices) -> float | None:
    """What an hour of one of the devices costs; None where nobody says."""
    return prices.device_hour if prices.device_hour is not None else group.device.price_per_hour


def energy_kwh(groups: Sequence[EqualSites], prices: Prices | None, seconds: float) -> float | None:
    """Devices draw their board power all the time, waiting or not; None where that of a device is unknown."""
    overhead = prices.power_usage_effectiveness if prices else 1.0
    used = 0.0
    for group in groups:
        if group.device.watts is None:
            return None
        used += device_hours([group], seconds) * group.device.watts / 1000 * overhead
    return used


def cost_usd(
    groups: Sequence[EqualSites], prices: Prices | None, seconds: float, sent: float, energy: float | None
) -> float | None:
    """Money, where prices are given. sent: bytes of all sites."""
    if prices is None:
        return None
    cost = (prices.gigabyte_sent or 0.0) * sent / 1e9
    for group in groups:
        if (hourly := device_hour_usd(group, prices)) is not None:
            cost += device_hours([group], seconds) * hourly
    if prices.kilowatt_hour is not None and energy is not None:
        cost += prices.kilowatt_hour * energy
    return cost
