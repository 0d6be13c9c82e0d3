"""The events of a timeline, as they are written in a topology file: a time and one action each."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from netsim.documents import Document
from netsim.links import Impairments
from netsim.traces import TraceFile
from netsim.units import Delay, Moment, Rate, Share


class Place(Document):
    """Where something happens: `between` two sites (both directions), `from` one `to` another, or at a `site`."""

    between: tuple[str, str] | None = None
    source: str | None = Field(default=None, alias="from")
    target: str | None = Field(default=None, alias="to")
    site: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        directed = self.source is not None and self.target is not None
        if (self.source is None) != (self.target is None) or (
            (self.between is not None) + directed + (self.site is not None) != 1
        ):
            raise ValueError("one of: between: [a, b]; from: a with to: b; site: a")
        return self

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The directed links meant; none for a site."""
        if self.between is not None:
            a, b = self.between
            return (a, b), (b, a)
        return ((self.source, self.target),) if self.source and self.target else ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.site,) if self.site else tuple(dict.fromkeys(name for pair in self.pairs for name in pair))


class Set(Place, Impairments):
    """New values for a link's impairments or a site's rates; what is not named stays."""

    up: Rate | None = None
    down: Rate | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        given = self.model_fields_set - set(Place.model_fields)
        wanted = {"up", "down"} if self.site else set(Impairments.model_fields)
        empty = any(getattr(self, name) is None for name in given & {"up", "down"})
        if not given or given - wanted or empty or 0 in (self.up, self.down):
            raise ValueError(f"one or more of: {', '.join(sorted(wanted))} (rates above zero)")
        return self


class Ramp(Place):
    """Values that are reached linearly, from what holds when the ramp begins, in steps of `step`."""

    delay: Delay | None = None
    rate: Rate | None = None
    loss: Share | None = None
    up: Rate | None = None
    down: Rate | None = None
    step: Moment = 0.1

    @model_validator(mode="after")
    def _something(self) -> Self:
        given = self.model_fields_set - set(Place.model_fields) - {"step"}
        wanted = {"up", "down"} if self.site else {"delay", "rate", "loss"}
        empty = any(getattr(self, name) is None for name in given)
        if not given or given - wanted or empty or self.step == 0 or 0 in (self.rate, self.up, self.down):
            raise ValueError(f"one or more of: {', '.join(sorted(wanted))} (rates and step above zero)")
        return self


class Flap(Place):
    """Comes and goes: gone for `away`, back for `back`, and so on; at the end it is back."""

    away: Moment = Field(gt=0)
    back: Moment = Field(gt=0)


class Partition(Document):
    """Sites of different groups cannot reach each other; a site in no group still reaches everyone."""

    groups: tuple[tuple[str, ...], ...] = Field(min_length=2)


def _allow_file(schema: dict[str, Any]) -> None:
    """As a file may have it: `file` in the place of the values (`traces.TraceFile`)."""
    described = TraceFile.model_json_schema()["properties"]
    schema["properties"] |= {name: value for name, value in described.items() if name != "every"}
    schema["required"] = [name for name in schema["required"] if name != "every"]


class Trace(Place):
    """Measured rates or one-way delays played back: one value per `every`, again from the start when they run out.

    side: which rate of a site. A `file` is read when the topology file is, and becomes `rates` or `delays`.
    """

    model_config = ConfigDict(json_schema_extra=_allow_file)

    rates: tuple[Annotated[Rate, Field(gt=0)], ...] = ()
    delays: tuple[Delay, ...] = ()
    every: Moment = Field(gt=0)
    side: Literal["up", "down", "both"] = "both"

    @model_validator(mode="after")
    def _one_series(self) -> Self:
        if bool(self.rates) == bool(self.delays):
            raise ValueError("one of: rates, delays (or a file that has them), with at least one value")
        if self.delays and self.site:
            raise ValueError("delays between: [a, b], or from: a with to: b, since a site has none")
        return self


class Traffic(Document):
    """Somebody else's datagrams on a link: at `rate` all the time, or for `busy` of every `busy` + `idle`."""

    source: str = Field(alias="from")
    target: str = Field(alias="to")
    rate: Rate = Field(gt=0)
    busy: Moment | None = None
    idle: Moment | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.busy is None) != (self.idle is None) or self.busy == 0 or self.idle == 0:
            raise ValueError("busy and idle together, both above zero, or neither")
        return self


class SiteEvent(Document):
    """Something that happens to a site's workers."""

    site: str


Action = Set | Ramp | Flap | Partition | Trace | Traffic | SiteEvent | str
INSTANT = ("set", "partition", "heal", "crash", "restart")
LASTING = ("ramp", "flap", "trace", "traffic", "pause")


class Event(Document):
    """One entry: a time (`at`, or `from` and `to`) and one action."""

    at: Moment | None = None
    begin: Moment | None = Field(default=None, alias="from")
    end: Moment | None = Field(default=None, alias="to")
    set: Set | None = None
    ramp: Ramp | None = None
    flap: Flap | None = None
    partition: Partition | None = None
    heal: Literal["all"] | None = None
    trace: Trace | None = None
    traffic: Traffic | None = None
    pause: SiteEvent | None = None
    crash: SiteEvent | None = None
    restart: SiteEvent | None = None

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        actions = [name for name in (*INSTANT, *LASTING) if getattr(self, name) is not None]
        if len(actions) != 1:
            raise ValueError(f"exactly one action of: {', '.join((*INSTANT, *LASTING))}")
        if actions[0] in INSTANT and (self.at is None or self.begin is not None or self.end is not None):
            raise ValueError(f"{actions[0]} happens at one time: at: 10 s")
        if actions[0] in LASTING and (self.at is not None or self.begin is None or self.end is None):
            raise ValueError(f"{actions[0]} lasts: from: 10 s with to: 20 s")
        if self.begin is not None and self.end is not None and self.begin >= self.end:
            raise ValueError("a `to` later than its `from`")
        return self

    @property
    def action(self) -> Action:
        found: Action = next(one for name in (*INSTANT, *LASTING) if (one := getattr(self, name)) is not None)
        return found

    @property
    def start(self) -> float:
        start = self.at if self.at is not None else self.begin
        assert start is not None
        return start

    @property
    def stop(self) -> float:
        return self.end if self.end is not None else self.start

    def names(self) -> tuple[str, ...]:
        """The sites that the event speaks of."""
        match self.action:
            case Partition(groups=groups):
                return tuple(name for group in groups for name in group)
            case Traffic(source=source, target=target):
                return source, target
            case SiteEvent(site=site):
                return (site,)
            case Place() as place:
                return place.names
            case _:
                return ()
