"""The agent's interface: one frozen record per request, each with the type of its answer. Standard library only.

On the wire a request is a JSON line `{"id": number, "do": name, ...fields}`, and its answer `{"id": number, ...fields}`
or `{"id": number, "error": text}`.
"""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from inspect import get_annotations
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar, cast, dataclass_transform, get_args

from netsim.emulated.node.probes import ProbeStream
from netsim.emulated.plan import NodePlan

Json = dict[str, Any]
A = TypeVar("A", bound="AgentAnswer")


@dataclass_transform(frozen_default=True)
class _Message:
    """A frozen record of its annotated fields. To the type checker it is a dataclass; at run time it is made without

    compiling methods per class, which for thirty of them would cost the agent a seventh of its start.
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._fields = tuple(name for name in get_annotations(cls) if not name.startswith("_"))

    def __init__(self, *values: Any, **named: Any) -> None:
        given = {**dict(zip(self._fields, values, strict=False)), **named}
        defaults = {name: getattr(type(self), name) for name in self._fields if hasattr(type(self), name)}
        complete = {**defaults, **given}
        if len(given) != len(values) + len(named) or set(complete) != set(self._fields):
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(self._fields) or 'none'}")
        vars(self).update(complete)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def to_json(self) -> Json:
        return {name: _plain(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """From the fields, without `id` and `do`."""
        return cls(**data)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, _Message):
        return value.to_json()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


class AgentAnswer(_Message):
    """Something that an agent answers."""


class AgentRequest(_Message, Generic[A]):
    """Something that an agent can be asked for; `A` is its answer."""

    _answer: ClassVar[type[AgentAnswer]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        (cls._answer,) = get_args(cls.__orig_bases__[0])  # type: ignore[attr-defined]  # typing sets it

    def to_json(self) -> Json:
        return {"do": type(self).__name__, **super().to_json()}

    def read_answer(self, data: Json) -> A:
        """The answer from its fields, without `id`."""
        return cast(A, self._answer.from_json(data))


# --- answers ----------------------------------------------------------------------------------------------------------


class Done(AgentAnswer):
    """It was done."""


class HelperGreeting(AgentAnswer):
    """A helper process of a node: its name, process number, and the priority that the kernel granted."""

    name: str
    pid: int
    priority: str
    ready: bool = True


class Mismatches(AgentAnswer):
    """Where a node is not what was requested, in words; empty if it is."""

    mismatches: tuple[str, ...]

    @classmethod
    def from_json(cls, data: Json) -> Self:
        return cls(tuple(data["mismatches"]))


class Shaped(AgentAnswer):
    """A node after its set-up."""

    mismatches: tuple[str, ...]
    helpers: tuple[HelperGreeting, ...]

    @classmethod
    def from_json(cls, data: Json) -> Self:
        helpers = tuple(HelperGreeting.from_json(helper) for helper in data["helpers"])
        return cls(tuple(data["mismatches"]), helpers)


class NodeFacts(AgentAnswer):
    """What the kernel reports about a node's links, as it goes into the run record."""

    classes: list[str]
    qdiscs: list[Json]
    offloads: dict[str, int]
    mtu: int
    sysctls: dict[str, str]
    priorities: dict[str, str]


class Counters(AgentAnswer):
    """wan0 as the kernel's shapers count it: bytes with Ethernet headers, and frames."""

    tx_bytes: int
    rx_bytes: int
    tx_packets: int
    rx_packets: int


class NodeTraffic(AgentAnswer):
    """The queues of a node: out to each peer, and in from all of them. at: seconds on the monotonic clock.

    out: by site, what its queue has let pass (bytes, packets), dropped (packets), and holds (queue_bytes,
    queue_packets). lost: by site, packets from there that the link's loss took. down: the downlink's queue, like `out`.
    overrun: by site, packets from there that the delay daemon never saw; daemon: what it counted (`punctuality`).
    """

    at: float
    out: dict[str, dict[str, int]]
    down: dict[str, int]
    lost: dict[str, int]
    overrun: dict[str, int]
    daemon: dict[str, float]


class RoundTrips(AgentAnswer):
    """For each target, its echoes: time sent (monotonic clock) and round-trip time, seconds; None: not back in time."""

    echoes: tuple[tuple[tuple[float, float | None], ...], ...]

    @classmethod
    def from_json(cls, data: Json) -> Self:
        return cls(tuple(tuple((at, took) for at, took in target) for target in data["echoes"]))


class StreamSent(AgentAnswer):
    """Datagrams (udp) or bytes (tcp) that a probe handed to the kernel."""

    sent: int


class TrafficSent(AgentAnswer):
    """Cross-traffic datagrams: how many were due, and how many of them the kernel refused."""

    offered: int
    dropped: int


class CrossBytes(AgentAnswer):
    """Bytes of cross-traffic that this node has sent so far, as they are on the wire."""

    bytes: int


class StreamReceived(AgentAnswer):
    """A receiver's count of one stream. rate: payload bit/s of first copies. quiet: seconds since the last arrival."""

    rate: float
    seen: int
    datagrams: int
    bytes: int
    quiet: float | None
    reordered: int = 0  # datagrams that a later one had overtaken
    gaps: int = 0  # runs of consecutive datagrams that are missing


class Started(AgentAnswer):
    """The process number of a started program."""

    program: int


class ProgramStatus(AgentAnswer):
    """An exit code, or minus the signal that ended the program; None while it runs. stopped: it stands still."""

    status: int | None
    stopped: bool = False


class Signalled(AgentAnswer):
    """The programs that got the signal."""

    programs: tuple[int, ...]

    @classmethod
    def from_json(cls, data: Json) -> Self:
        return cls(tuple(data["programs"]))


# --- requests about the network ---------------------------------------------------------------------------------------


class NameInterfaces(AgentRequest[Done]):
    """Gives the interfaces that have these addresses the names that Longhaul uses."""

    wan: str
    mgmt: str


class Shape(AgentRequest[Shaped]):
    """Sets up the node. pin: the kernel settings of this namespace are written too."""

    plan: NodePlan
    pin: bool

    @classmethod
    def from_json(cls, data: Json) -> Self:
        return cls(NodePlan.from_json(data["plan"]), data["pin"])


class Reshape(AgentRequest[Done]):
    """Changes the links of a node that was set up before."""

    plan: NodePlan

    @classmethod
    def from_json(cls, data: Json) -> Self:
        return cls(NodePlan.from_json(data["plan"]))


class CheckHealth(AgentRequest[Mismatches]):
    """Compares the node with its plan, and looks whether its helpers are alive."""


class ReadFacts(AgentRequest[NodeFacts]):
    """Reads the kernel's own report of the node's links."""


class ReadCounters(AgentRequest[Counters]):
    """Reads the byte and frame counters of wan0."""


class ReadTraffic(AgentRequest[NodeTraffic]):
    """Reads the counters of every queue of the node."""


# --- requests that the prober of the node answers ---------------------------------------------------------------------


class Echo(AgentRequest[RoundTrips]):
    """Sends `count` echoes to each address, one per `interval` seconds, and waits `patience` seconds for the last."""

    targets: tuple[str, ...]
    count: int
    interval: float
    patience: float


class SendStream(AgentRequest[StreamSent]):
    """Sends one stream, as fast as its link takes it."""

    stream: ProbeStream

    @classmethod
    def from_json(cls, data: Json) -> Self:
        return cls(ProbeStream(**data["stream"]))


class ReadStream(AgentRequest[StreamReceived]):
    """Reads what has arrived of a stream. over: seconds at its end that count for the rate, but for those of the tail.
    finish: forget it then.
    """

    stream: int
    over: float
    finish: bool
    tail: float = 0.0


class SendTraffic(AgentRequest[TrafficSent]):
    """Sends cross-traffic of `rate` bit/s on the wire for `seconds`."""

    target: str
    rate: float
    seconds: float
    mtu: int


class StopTraffic(AgentRequest[Done]):
    """Ends all cross-traffic that the node still sends."""


class ReadCrossBytes(AgentRequest[CrossBytes]):
    """Reads how much cross-traffic the node has sent."""


# --- requests about programs ------------------------------------------------------------------------------------------


class StartProgram(AgentRequest[Started]):
    """Starts a program without powers over the network.

    Its standard input, output and error come as three descriptors with the request: the runner opened them, so that
    the program needs no right to their places. terminal: the input is one, which the program's session controls.
    raw_sockets: it may capture and forge packets.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    directory: str
    terminal: bool = False
    raw_sockets: bool = False


class StartCapture(AgentRequest[Started]):
    """Starts writing what passes wan0, in pcap form, to the second of three descriptors. kept: bytes of a packet."""

    kept: int


class PollProgram(AgentRequest[ProgramStatus]):
    """Looks whether a program has ended."""

    program: int


class WaitForProgram(AgentRequest[ProgramStatus]):
    """Is answered when the program has ended."""

    program: int


class SignalProgram(AgentRequest[Done]):
    """Sends a signal to a program and all that it started."""

    program: int
    signal: int


class SignalAllPrograms(AgentRequest[Signalled]):
    """Sends a signal to every running program of the node."""

    signal: int


NodeRequest = (
    NameInterfaces
    | Shape
    | Reshape
    | CheckHealth
    | ReadFacts
    | ReadCounters
    | ReadTraffic
    | StartProgram
    | StartCapture
    | PollProgram
    | WaitForProgram
    | SignalProgram
    | SignalAllPrograms
)
ProbeRequest = Echo | SendStream | ReadStream | SendTraffic | StopTraffic | ReadCrossBytes
_KINDS = {kind.__name__: kind for kind in (*get_args(NodeRequest), *get_args(ProbeRequest))}


def read_request(data: Json) -> tuple[int, NodeRequest | ProbeRequest]:
    """The number and the request of a decoded line. Raises KeyError or TypeError for what is none."""
    fields = dict(data)
    number = fields.pop("id")
    request: NodeRequest | ProbeRequest = _KINDS[fields.pop("do")].from_json(fields)
    return number, request
