"""Two sites with a slow uplink between them, brought up on this host; programs of your own run inside.

    python examples/own_network.py

Needs root, or user namespaces (`longhaul doctor`).
"""

import statistics
import sys
import tempfile
from pathlib import Path

import longhaul

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

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "farm.yaml").write_text(TOPOLOGY)
    # Containers run programs as users of their own, who cannot write into a private folder; network namespaces can.
    with longhaul.open_network(folder / "farm.yaml", folder, substrate="netns") as network:
        report = network.check(short=True)
        print(f"{len(report.links)} directed pairs probed")
        for problem in report.problems():
            print(f"  {problem}")  # on a busy host

        echoes = network.echo("barn", "city", count=20)
        times = [seconds for _, seconds in echoes if seconds is not None]
        print(f"{len(times)} echoes came back, median {statistics.median(times) * 1e3:.0f} ms")

        barn, city = network.nodes
        log = folder / "city.log"
        server = city.start([sys.executable, "-c", f"import sys; {SERVE}", city.wan_address], {}, log)
        sender = f"import sys, time; time.sleep(1); {SEND}"
        barn.start([sys.executable, "-c", sender, city.wan_address], {}, folder / "barn.log").wait(20)
        print(f"the program in city ended with {server.wait(20)}: {log.read_text().strip()}")
