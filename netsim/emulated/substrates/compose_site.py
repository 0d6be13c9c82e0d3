"""A site that somebody else brought up, like a service of compose.yaml: it lends itself to one network after another.

The runner listens at a socket in a directory that both see. A site connects, says who and where it is, and waits for an
order; then it starts the agent. One connection is one network: when it closes, every process of that network is ended
and its shaping removed, so that the next network finds bare interfaces. Only the standard library is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from netsim.emulated.node.core_tc import is_entrance
from netsim.emulated.node.devices import batch, run
from netsim.emulated.node.tc import DOWN, IFB, MGMT, WAN
from netsim.errors import HostError, LonghaulError
from netsim.library import ROOT

MEETING_VARIABLE = "LONGHAUL_MEETING"
SOCKET = "sites"
_RETRY_SECONDS = 0.1
_GRACE_SECONDS = 2.0  # for an agent to end by itself, once its runner has gone


def main() -> None:
    """Serves networks until SIGTERM. The environment names the directory where runner and sites meet."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    meeting = Path(os.environ[MEETING_VARIABLE], SOCKET)
    with contextlib.suppress(OSError):
        Path("/tmp").chmod(0o1777)  # an engine that starts a container again gives its tmpfs another mode
    try:
        greeting = {
            "site": socket.gethostname(),
            "wan": _interface(WAN),
            "mgmt": _interface(MGMT),
            "able": _able(),
        }
    except HostError as error:
        sys.exit(str(error))
    while True:
        with socket.socket(socket.AF_UNIX) as link:
            try:
                link.connect(str(meeting))
                link.sendall(json.dumps(greeting).encode() + b"\n")
                _serve(link)
            except (ConnectionError, FileNotFoundError):
                pass  # no runner, or no longer
            except HostError as error:
                print(error, file=sys.stderr)
        time.sleep(_RETRY_SECONDS)


def _able() -> dict[str, str]:
    """What the kernel can do here: an empty text per capability that is there, else what it said."""
    try:
        argv = [sys.executable, "-S", "-m", "netsim.emulated.substrates.capabilities", "here"]
        return dict(json.loads(subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout))
    finally:
        _bare()


def _interface(name: str) -> dict[str, Any]:
    for link in json.loads(run(["ip", "-j", "address", "show"])):
        if link["ifname"] == name:
            address = next((info for info in link["addr_info"] if info["family"] == "inet"), None)
            if address is not None:
                return {"address": address["local"], "prefix": address["prefixlen"], "mac": link["address"]}
    raise HostError(
        f"this site has no interface {name} with an address; give its network the driver option "
        f"com.docker.network.container_iface_prefix: {name.rstrip('0')}, as compose.yaml does"
    )


def _serve(link: socket.socket) -> None:
    """One network: waits for the order, answers it, and stays until the runner closes the connection."""
    line = link.makefile("rb").readline()
    if not line:
        return
    order = json.loads(line)
    agent = None
    try:
        _check(order["sysctls"])
        agent = _start(order)
        _answer(link, "")
        while agent.poll() is None and not select.select([link], [], [], 0.2)[0]:
            _reap(agent.pid)
    except LonghaulError as error:
        _answer(link, str(error))
    finally:
        if agent is not None:
            _end(agent)
        _bare()


def _answer(link: socket.socket, error: str) -> None:
    link.sendall(json.dumps({"error": error}).encode() + b"\n")


def _check(asked: dict[str, str]) -> None:
    """Kernel settings were fixed when this site was made; a network that needs others must not start."""
    for key, value in asked.items():
        path = Path("/proc/sys", *key.split("."))
        if not path.exists() and ".ipv6." in key:
            continue  # a kernel without IPv6 needs none of it
        found = path.read_text().strip()
        if found.split() != value.split():
            raise HostError(f"the topology asks {key} = {value}, but this site was made with {' '.join(found.split())}")


def _start(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    log: Any = None  # the container's own output
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            log = stack.enter_context(Path(order["log"]).open("ab"))
        return subprocess.Popen(
            order["argv"],
            env=order["env"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _reap(agent: int) -> None:
    """As the first process of a container, this one inherits every orphan."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == agent:
            return
        os.waitpid(ended.si_pid, 0)


def _end(agent: subprocess.Popen[bytes]) -> None:
    """The agent ends what it started; the kernel kills the rest with it."""
    try:
        agent.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _bare() -> None:
    """Takes away what an agent may have set up, also if it was killed half-way."""
    present = {link["ifname"] for link in json.loads(run(["ip", "-j", "link", "show"]))}
    made = (IFB, DOWN, "lh-a", "lh-i")
    batch("ip", [f"link delete {name}" for name in sorted(present) if name in made or is_entrance(name)])
    for entry in json.loads(run(["tc", "-j", "qdisc", "show", "dev", WAN]) or "[]"):
        if entry["kind"] == "ingress":
            run(["tc", "qdisc", "delete", "dev", WAN, "ingress"])
        elif entry.get("root") and entry["handle"] != "0:":
            run(["tc", "qdisc", "delete", "dev", WAN, "root"])
    for device in (WAN, MGMT):
        run(["ip", "neighbour", "flush", "dev", device, "nud", "permanent"])
    with contextlib.suppress(HostError):  # without iptables there is nothing to remove
        run(["iptables-restore", "--wait", "10"], "*mangle\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n")


if __name__ == "__main__":
    main()
