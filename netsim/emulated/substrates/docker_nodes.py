"""The docker substrate: every node a container on two internal bridge networks.

The root file system is read-only; all capabilities are dropped but those that the agent needs and does not pass on; the
trainer runs as an ordinary user without any.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from docker.errors import DockerException
from docker.models.containers import Container
from docker.models.networks import Network

from netsim.emulated.node.realtime import set_realtime_in_container
from netsim.emulated.owner import LABEL, RUN_LABEL
from netsim.emulated.plan import Address
from netsim.emulated.substrates.docker_engine import engine, explained, remove_container, remove_network
from netsim.emulated.substrates.docker_watch import start_watch
from netsim.emulated.substrates.gpus import device_files
from netsim.emulated.substrates.host_image import host_image, mounts
from netsim.emulated.substrates.launch import PROCESSES, AgentSpec, NetworkRequest, program_user

# NET_ADMIN: shaping and the delay daemon's queues. SYS_NICE: the daemon's priority. The rest: to start the trainer as
# another user with fewer rights, and to end it.
CAPABILITIES = ["NET_ADMIN", "SYS_NICE", "SETUID", "SETGID", "SETPCAP", "KILL"]
SHARED_MEMORY = 2**30  # bytes, at most, for the data loaders of programs


class DockerNodes:
    """Brings nodes up by the Docker engine that the environment names."""

    name = "docker"
    pins_sysctls = False

    def __init__(self) -> None:
        self._client = engine()
        self._watch: subprocess.Popen[bytes] | None = None
        self._networks: dict[str, Network] = {}
        self._containers: list[Container] = []
        self._image = ""

    def start(self, order: NetworkRequest) -> None:
        """Returns when every container runs; the agents then connect by themselves."""
        labels = {LABEL: str(order.owner), RUN_LABEL: order.run_id}
        self._watch = start_watch(order.owner, order.runtime)
        with explained():
            self._image = host_image(self._client)
            with ThreadPoolExecutor(max_workers=4) as pool:
                # Both networks at once would race for the same address range.
                for kind in ("wan", "mgmt"):
                    self._networks[kind] = self._network(kind, order, labels)
                made = pool.map(lambda launch: self._container(launch, order, labels), order.nodes)
                self._containers = list(made)
                list(pool.map(lambda container: container.start(), self._containers))
                list(pool.map(lambda container: container.reload(), self._containers))

    def _network(self, kind: str, order: NetworkRequest, labels: dict[str, str]) -> Network:
        mtu = order.mtu if kind == "wan" else 1500
        return self._client.networks.create(
            f"longhaul-{order.runtime.name[-8:]}-{kind}",
            driver="bridge",
            internal=True,
            enable_ipv6=False,
            options={"com.docker.network.driver.mtu": str(mtu)},
            labels=labels,
        )

    def _container(self, launch: AgentSpec, order: NetworkRequest, labels: dict[str, str]) -> Container:
        writable = [launch.log.parent, launch.control.parent, *order.writable]
        container = self._client.containers.create(
            self._image,
            command=launch.argv(program_user(launch.index)),
            name=f"longhaul-{order.runtime.name[-8:]}-{launch.site}",
            hostname=launch.site,
            labels={**labels, "longhaul.site": launch.site},
            environment=launch.env(order.owner),
            network=self._networks["wan"].name,
            mounts=mounts(writable, order.read_only),
            read_only=True,
            tmpfs={"/tmp": "mode=1777", "/run": "mode=755"},
            cap_drop=["ALL"],
            cap_add=[*CAPABILITIES, *(["NET_RAW"] if order.raw_sockets else [])],
            security_opt=["no-new-privileges"],
            sysctls={**order.sysctls, **launch.sysctls},
            pids_limit=PROCESSES,
            devices=[f"{path}:{path}:rw" for path in device_files(order.gpus)],
            shm_size=SHARED_MEMORY,
            nano_cpus=None if order.cpus is None else round(order.cpus * 1e9),
            mem_limit=order.memory,
            auto_remove=True,
            user="0:0" if os.getuid() == 0 else f"0:{os.getgid()}",
            working_dir="/",
        )
        self._networks["mgmt"].connect(container)
        return container

    def address(self, index: int) -> Address:
        ends = self._containers[index].attrs["NetworkSettings"]["Networks"]
        wan, mgmt = (ends[str(self._networks[kind].name)] for kind in ("wan", "mgmt"))
        return Address(
            wan["IPAddress"],
            wan["MacAddress"],
            mgmt["IPAddress"],
            mgmt["MacAddress"],
            wan["IPPrefixLen"],
            mgmt["IPPrefixLen"],
        )

    def user(self, index: int) -> int | None:
        return program_user(index)

    def alive(self) -> bool:
        with contextlib.suppress(DockerException, requests.RequestException):
            for container in self._containers:
                container.reload()
                if container.status not in ("running", "created"):
                    return False
            return True
        return False

    def set_realtime(self, index: int, process: int, priority: int) -> None:
        set_realtime_in_container(int(self._containers[index].attrs["State"]["Pid"]), process, priority)

    def facts(self) -> dict[str, Any]:
        return {"docker": self._client.version()["Version"], "image": self._image}

    def close(self) -> None:
        """Removes every container and both networks; one that the engine does not let go stays, with a warning."""
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(remove_container, self._containers))
        self._containers = []
        for network in self._networks.values():
            remove_network(network)
        self._networks = {}
        if self._watch is not None:
            self._watch.kill()
            self._watch.wait()
        self._client.close()
