"""Two sites with a slow uplink between them, brought up on this host; programs of your own run inside.

    python examples/own_network.py [netns | docker]

Needs root, user namespaces or a Docker engine (`longhaul doctor`).
"""

import statistics
import sys
import tempfile
from pathlib import Path

import longhaul
from netsim.emulated.network import Network

SUBSTRATE = sys.argv[1] if len(sys.argv) > 1 else "auto"
TOPOLOGY = """
name: farm
sites:
  barn: {up: 20 Mbit, down: 100 Mbit}
  city: {up: 100 Mbit, down: 100 Mbit}
links:
  - {between: [barn, city], delay: 15 ms}
"""
SERVE = (
    "import socket; s = socket.create_server((sys.argv[1], 5000)); print(len(s.accept()[0].recv(100)), 'bytes came')"
)
SEND = "import socket; socket.create_connection((sys.argv[1], 5000)).sendall(b'x' * 42)"


def round_trip(network: Network) -> float:
    """Median of 20 echoes between the sites, milliseconds."""
    echoes = network.echo("barn", "city", count=20)
    return 1e3 * statistics.median(seconds for _, seconds in echoes if seconds is not None)


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "farm.yaml").write_text(TOPOLOGY)
    with longhaul.open_network(folder / "farm.yaml", folder, substrate=SUBSTRATE) as network:
        report = network.check(short=True)
        print(f"{len(report.links)} directed pairs probed")
        for problem in report.problems():
            print(f"  {problem}")  # on a busy host

        print(f"median round trip {round_trip(network):.0f} ms")

        barn, city = network.nodes
        log = folder / "city.log"
        server = city.start([sys.executable, "-c", f"import sys; {SERVE}", city.wan_address], {}, log)
        barn.run([sys.executable, "-c", f"import sys, time; time.sleep(1); {SEND}", city.wan_address], timeout=20)
        print(f"the program in city ended with {server.wait(20)}: {log.read_text().strip()}")

        network.change({"between": ["barn", "city"], "delay": "60 ms"})
        print(f"median round trip {round_trip(network):.0f} ms after the change")
        left = sum(link.packets for link in network.traffic().links if link.source == "barn")
        print(f"{left} packets have left barn")
