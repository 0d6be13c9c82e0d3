"""What every substrate offers the network that it makes nodes for."""

from __future__ import annotations

from typing import Any, Protocol

from netsim.emulated.plan import Address
from netsim.emulated.substrates.launch import NetworkRequest


class Substrate(Protocol):
    """What brings nodes up, and takes them down."""

    name: str
    pins_sysctls: bool  # whether the agent sets the kernel settings; else they are set when the node is made

    def start(self, order: NetworkRequest) -> None: ...
    def address(self, index: int) -> Address: ...
    def user(self, index: int) -> int | None: ...  # that programs of a node run as; None: this process's own
    def alive(self) -> bool: ...
    def set_realtime(self, index: int, process: int, priority: int) -> None: ...
    def facts(self) -> dict[str, Any]: ...
    def close(self) -> None: ...
