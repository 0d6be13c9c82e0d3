"""Which method trains a 7B model fastest over the WAN, and what would a faster or slower link change?

    python examples/projection.py

Needs no root: the cost model alone.
"""

import longhaul

projection = longhaul.project("photon-7b")
print(f"{projection.scenario.name}: {projection.scenario.model.name} on {projection.scenario.sites} sites")
for row in sorted(projection.base, key=lambda row: row.total_seconds):
    days, sent = row.total_seconds / 86_400, row.payload_bytes_per_worker / 1e12
    print(f"  {row.label:16} {days:5.2f} days  {sent:8.2f} TB per worker  {row.compute_utilisation:4.0%} computing")

print("ddp against diloco, by the rate of a site's link")
rtt = projection.base[0].rtt_ms
points = {(row.label, row.rate_gbit): row for row in projection.rows if row.axis == "base" and row.rtt_ms == rtt}
for rate in sorted({rate for _, rate in points}):
    ratio = points["ddp", rate].total_seconds / points["diloco", rate].total_seconds
    print(f"  {rate:6g} Gbit/s, RTT {rtt:g} ms: ddp takes {ratio:.2f} times as long")
