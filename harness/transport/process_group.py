# mypy: disable-error-code="override"
# torch calls these methods with lists and options; its stubs also name forms that it translates to these itself.
"""A torch.distributed process group over our transport: what `init_process_group("longhaul")` makes.

Sums and means of floating-point numbers are the transport's own collectives. Other operations and types travel as
bytes to whoever needs them, who then reduces in rank order: correct, and for more than a few numbers slow. All members
must call the same collectives in the same order, as with every backend. Tensors must be on the CPU.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ReduceOp

from harness.transport.group_connection import connect_group
from harness.transport.group_work import Completions, GroupWork, failed
from harness.transport.wan_exchange import WanExchange
from netsim.errors import LonghaulError, PeerError
from netsim.traffic import Algorithm, Collective, Transfer, WireType

_WIRES = {
    torch.float64: WireType.FP64,
    torch.float32: WireType.FP32,
    torch.bfloat16: WireType.BF16,
    torch.float16: WireType.FP16,
}
_REDUCE: dict[Any, Callable[[Tensor], Tensor]] = {
    ReduceOp.SUM: lambda rows: rows.sum(0, dtype=rows.dtype),
    ReduceOp.AVG: lambda rows: rows.sum(0, dtype=rows.dtype).div_(len(rows)),
    ReduceOp.PRODUCT: lambda rows: rows.prod(0, dtype=rows.dtype),
    ReduceOp.MIN: lambda rows: rows.amin(0),
    ReduceOp.MAX: lambda rows: rows.amax(0),
    ReduceOp.BAND: lambda rows: reduce(torch.bitwise_and, rows.unbind()),
    ReduceOp.BOR: lambda rows: reduce(torch.bitwise_or, rows.unbind()),
    ReduceOp.BXOR: lambda rows: reduce(torch.bitwise_xor, rows.unbind()),
}
_Part = tuple[int, Transfer, Tensor]  # step, transfer, its tensor


def _nothing() -> None:
    """What has arrived is in its place already."""


def _bytes(tensor: Tensor) -> Tensor:
    """The memory of a contiguous tensor, uint8."""
    return tensor.detach().reshape(-1).view(torch.uint8)


def _sums(op: Any) -> bool:
    return bool(op == ReduceOp.SUM or op == ReduceOp.AVG)  # `in` asks the other side, which says no


def _all_of(endings: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def ending() -> None:
        for one in endings:
            one()

    return ending


def _add_up(op: Any, rows: Tensor) -> Tensor:
    for known, function in _REDUCE.items():
        if op == known:
            return function(rows)
    raise LonghaulError(f"this backend has no reduction {op}")


class LonghaulProcessGroup(dist.ProcessGroup):
    """Collectives over TCP that survive a long fat pipe. Works are asynchronous; an error names the peer."""

    def __init__(self, exchange: WanExchange, rank: int, world: int) -> None:
        super().__init__(rank, world)  # type: ignore[call-arg]  # as for every group written in Python
        self._exchange, self._rank, self._world = exchange, rank, world
        self._everyone = tuple(range(world))
        self._name = ""
        self._completions = Completions()
        self._lock = threading.Lock()
        self._step = 0
        self._passed: Counter[tuple[int, int, int]] = Counter()  # messages by source, target and tag

    def getBackendName(self) -> str:
        return "longhaul"

    def setGroupName(self, name: str) -> None:
        self._name = name

    def getGroupName(self) -> str:
        return self._name

    @property
    def group_name(self) -> Any:
        return self._name

    def shutdown(self) -> None:
        """Waits until the others have what was sent, and disconnects."""
        self._exchange.close()
        self._completions.close()

    def abort(self) -> None:
        self.shutdown()

    # --- reductions ---------------------------------------------------------------------------------------------------

    def allreduce(self, tensors: Sequence[Tensor], opts: Any = None) -> GroupWork:
        return self._together(tensors, opts.reduceOp if opts is not None else ReduceOp.SUM)

    def allreduce_coalesced(self, tensors: Sequence[Tensor], opts: Any = None) -> GroupWork:
        return self._together(tensors, opts.reduceOp if opts is not None else ReduceOp.SUM)

    def reduce(self, tensors: Sequence[Tensor], opts: Any) -> GroupWork:
        (tensor,) = tensors
        return self._together([tensor], opts.reduceOp, root=opts.rootRank)

    def _together(self, tensors: Sequence[Tensor], op: Any, root: int | None = None) -> GroupWork:
        """An all-reduce, or with a root a reduce."""
        parts: list[_Part] = []
        endings: list[Callable[[], None]] = []
        for tensor in tensors:
            part, ending = self._reduction(_on_cpu(tensor), op, root)
            parts.append(part)
            endings.append(ending)
        return self._begin(parts, tensors, _all_of(endings))

    def _reduction(self, tensor: Tensor, op: Any, root: int | None) -> tuple[_Part, Callable[[], None]]:
        wire = _WIRES.get(tensor.dtype)
        mine = root is None or root == self._rank
        if wire is not None and _sums(op):
            ours = tensor.detach().contiguous().reshape(-1)
            if root is not None and not mine:
                ours = ours.clone()
            kind = Collective.ALL_REDUCE if root is None else Collective.REDUCE
            part = self._part("reduce", kind, ours.numel(), wire, ours, root)

            def ending() -> None:
                if mine:
                    if op == ReduceOp.AVG:
                        ours.div_(self._world)
                    _put(ours, tensor)

            return part, ending
        rows = self._rows(tensor, mine)
        kind = Collective.ALL_GATHER if root is None else Collective.GATHER
        part = self._part("gather", kind, _size(tensor), WireType.UINT8, rows, root)

        def combine() -> None:
            if mine:
                values = rows.view(self._world, -1).view(tensor.dtype)
                tensor.detach().copy_(_add_up(op, values).reshape(tensor.shape))

        return part, combine

    def reduce_scatter(
        self, output_tensors: Sequence[Tensor], input_tensors: Sequence[Sequence[Tensor]], opts: Any = None
    ) -> GroupWork:
        op = opts.reduceOp if opts is not None else ReduceOp.SUM
        pairs = [(output, list(inputs)) for output, inputs in zip(output_tensors, input_tensors, strict=True)]
        return self._scattered(pairs, op)

    def reduce_scatter_single(self, output: Tensor, input: Tensor, opts: Any = None) -> GroupWork:
        return self.reduce_scatter([output], [self._shares(input, output)], opts)

    def reduce_scatter_single_coalesced(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], opts: Any = None
    ) -> GroupWork:
        shares = [self._shares(given, output) for output, given in zip(outputs, inputs, strict=True)]
        return self.reduce_scatter(outputs, shares, opts)

    def _shares(self, given: Tensor, output: Tensor) -> list[Tensor]:
        if given.numel() != self._world * output.numel():
            raise LonghaulError(f"{given.numel()} numbers for {self._world} members with {output.numel()} each")
        return list(given.detach().contiguous().reshape(self._world, -1).unbind())

    def _scattered(self, pairs: Sequence[tuple[Tensor, list[Tensor]]], op: Any) -> GroupWork:
        parts: list[_Part] = []
        endings: list[Callable[[], None]] = []
        for output, inputs in pairs:
            count = _on_cpu(output).numel()
            wire = _WIRES.get(output.dtype)
            if wire is not None and _sums(op):
                room = count + count % 2  # the members' shares of a transfer start at even numbers
                rows = torch.zeros(self._world, room, dtype=output.dtype)
                for row, given in zip(rows, inputs, strict=True):
                    row[:count].copy_(given.detach().reshape(-1))
                flat = rows.view(-1)
                parts.append(self._part("reduce", Collective.REDUCE_SCATTER, flat.numel(), wire, flat))

                def ending(output: Tensor = output, rows: Tensor = rows, count: int = count) -> None:
                    own = rows[self._rank, :count]
                    _put(own.div_(self._world) if op == ReduceOp.AVG else own, output)

                endings.append(ending)
            else:
                flat = torch.cat([_bytes(given.contiguous()) for given in inputs])
                parts.append(self._part("gather", Collective.ALL_TO_ALL, _size(output), WireType.UINT8, flat))

                def combine(output: Tensor = output, flat: Tensor = flat) -> None:
                    _put(_add_up(op, flat.view(self._world, -1).view(output.dtype)), output)

                endings.append(combine)
        outputs = [output for output, _ in pairs]
        return self._begin(parts, outputs, _all_of(endings))

    # --- copies -------------------------------------------------------------------------------------------------------

    def broadcast(self, tensors: Sequence[Tensor], opts: Any) -> GroupWork:
        (tensor,) = tensors
        ours = _on_cpu(tensor).detach().contiguous()
        raw = _bytes(ours)
        part = self._part("copy", Collective.BROADCAST, raw.numel(), WireType.UINT8, raw, opts.rootRank)
        return self._begin([part], tensors, lambda: _put(ours, tensor))

    def allgather(
        self, output_tensors: Sequence[Sequence[Tensor]], input_tensors: Sequence[Tensor], opts: Any = None
    ) -> GroupWork:
        (outputs,), (given,) = output_tensors, input_tensors
        rows = self._rows(_on_cpu(given), True)
        part = self._part("gather", Collective.ALL_GATHER, _size(given), WireType.UINT8, rows)
        return self._begin([part], outputs, lambda: self._spread(rows, outputs))

    def all_gather_single(self, output: Tensor, input: Tensor, opts: Any = None) -> GroupWork:
        return self.all_gather_single_coalesced([output], [input], opts)

    def all_gather_single_coalesced(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], opts: Any = None
    ) -> GroupWork:
        parts, buffers = [], []
        for output, given in zip(outputs, inputs, strict=True):
            whole = output.detach() if _on_cpu(output).is_contiguous() else output.detach().contiguous()
            raw = _bytes(whole)
            if raw.numel() != self._world * _size(given):
                raise LonghaulError(f"{output.numel()} numbers for {self._world} members with {given.numel()} each")
            raw.view(self._world, -1)[self._rank].copy_(_bytes(given.contiguous()))
            parts.append(self._part("gather", Collective.ALL_GATHER, _size(given), WireType.UINT8, raw))
            buffers.append(whole)

        def ending() -> None:
            for whole, output in zip(buffers, outputs, strict=True):
                _put(whole, output)

        return self._begin(parts, outputs, ending)

    def gather(
        self, output_tensors: Sequence[Sequence[Tensor]], input_tensors: Sequence[Tensor], opts: Any
    ) -> GroupWork:
        (given,) = input_tensors
        mine = opts.rootRank == self._rank
        outputs = list(output_tensors[0]) if mine else []
        rows = self._rows(_on_cpu(given), mine)
        part = self._part("gather", Collective.GATHER, _size(given), WireType.UINT8, rows, opts.rootRank)
        return self._begin([part], outputs, lambda: self._spread(rows, outputs))

    def scatter(
        self, output_tensors: Sequence[Tensor], input_tensors: Sequence[Sequence[Tensor]], opts: Any
    ) -> GroupWork:
        (output,) = output_tensors
        root, step = opts.rootRank, self._next()
        if root != self._rank:
            whole = _on_cpu(output).detach().contiguous()
            part = self._message(step, f"scatter/{self._rank}", root, self._rank, _bytes(whole))
            return self._begin([part], [output], lambda: _put(whole, output))
        shares = [_bytes(_on_cpu(given).contiguous()) for given in input_tensors[0]]
        parts = [
            self._message(step, f"scatter/{peer}", root, peer, share)
            for peer, share in enumerate(shares)
            if peer != root
        ]
        return self._begin(parts, [output], lambda: _put(input_tensors[0][root], output))

    def all_to_all_single(
        self, output: Tensor, input: Tensor, output_split_sizes: Any, input_split_sizes: Any, opts: Any = None
    ) -> GroupWork:
        def pieces(tensor: Tensor, sizes: Any) -> list[Tensor]:
            return list(
                torch.split_with_sizes(tensor.detach(), list(sizes) or [len(tensor) // self._world] * self._world)
            )

        return self.alltoall(pieces(output, output_split_sizes or ()), pieces(input, input_split_sizes or ()))

    def alltoall(
        self, output_tensors: Sequence[Tensor], input_tensors: Sequence[Tensor], opts: Any = None
    ) -> GroupWork:
        step, parts = self._next(), []
        arriving = {peer: output.detach().contiguous() for peer, output in enumerate(output_tensors)}
        for peer in self._everyone:
            if peer != self._rank:
                leaving = _bytes(_on_cpu(input_tensors[peer]).contiguous())
                parts.append(self._message(step, f"all/{self._rank}", self._rank, peer, leaving))
                parts.append(self._message(step, f"all/{peer}", peer, self._rank, _bytes(arriving[peer])))

        def ending() -> None:
            arriving[self._rank] = input_tensors[self._rank]
            for peer, output in enumerate(output_tensors):
                _put(arriving[peer], output)

        return self._begin(parts, output_tensors, ending)

    def send(self, tensors: Sequence[Tensor], dst: int, tag: int = 0) -> GroupWork:
        (tensor,) = tensors
        return self._begin(
            [self._letter(self._rank, dst, tag, _bytes(_on_cpu(tensor).contiguous()))], tensors, _nothing
        )

    def recv(self, tensors: Sequence[Tensor], src: int, tag: int = 0) -> GroupWork:
        (tensor,) = tensors
        whole = _on_cpu(tensor).detach().contiguous()
        part = self._letter(src, self._rank, tag, _bytes(whole))
        return self._begin([part], tensors, lambda: _put(whole, tensor))

    def barrier(self, opts: Any = None) -> GroupWork:
        nothing = torch.zeros(1)
        part = self._part("barrier", Collective.ALL_REDUCE, 1, WireType.FP32, nothing)
        return self._begin([part], [nothing], _nothing)

    # --- transfers ----------------------------------------------------------------------------------------------------

    def _rows(self, tensor: Tensor, all_of_them: bool) -> Tensor:
        """Room for the bytes of every member, ours in their place; or ours alone."""
        own = _bytes(tensor.contiguous())
        if not all_of_them:
            return own
        rows = torch.empty(self._world, own.numel(), dtype=torch.uint8)
        rows[self._rank].copy_(own)
        return rows.view(-1)

    def _spread(self, rows: Tensor, outputs: Sequence[Tensor]) -> None:
        if not outputs:  # somebody else's
            return
        for row, output in zip(rows.view(self._world, -1), outputs, strict=True):
            _put(row.view(output.dtype), output)

    def _part(
        self, name: str, kind: Collective, elements: int, wire: WireType, tensor: Tensor, root: int | None = None
    ) -> _Part:
        small = kind is Collective.ALL_REDUCE and elements <= self._world
        algorithm = Algorithm.DIRECT if small else Algorithm.AUTO
        return self._next(), Transfer(name, elements, self._everyone, wire, kind, algorithm, root), tensor

    def _message(self, step: int, name: str, source: int, target: int, raw: Tensor) -> _Part:
        members = (min(source, target), max(source, target))
        return step, Transfer(name, raw.numel(), members, WireType.UINT8, Collective.SEND, root=source), raw

    def _letter(self, source: int, target: int, tag: int, raw: Tensor) -> _Part:
        if source == target:
            raise LonghaulError("a member cannot send to itself")
        with self._lock:
            self._passed[source, target, tag] += 1
            count = self._passed[source, target, tag]
        return self._message(count, f"letter/{tag}", source, target, raw)

    def _next(self) -> int:
        with self._lock:
            self._step += 1
            return self._step

    def _begin(self, parts: Sequence[_Part], result: Sequence[Tensor], finish: Callable[[], None]) -> GroupWork:
        work = GroupWork(self._completions, result, finish)
        try:
            for step, transfer, tensor in parts:
                work.expect()
                with self._lock:
                    work.watch(self._exchange.start(step, transfer, tensor, on_end=work.arrived))
        except PeerError as error:
            raise failed(error) from None
        work.arrived()
        return work


def _on_cpu(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cpu":
        raise LonghaulError(
            f"a tensor on {tensor.device}: this backend carries those on the CPU (cpu:longhaul,cuda:nccl)"
        )
    return tensor


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _put(source: Tensor, target: Tensor) -> None:
    if source.data_ptr() != target.data_ptr() or not target.numel():
        target.detach().copy_(source.reshape(target.shape))


def create_process_group(store: Any, rank: int, world: int, timeout: timedelta) -> LonghaulProcessGroup:
    """What torch calls to make a group; see `connect_group`."""
    return LonghaulProcessGroup(connect_group(store, rank, world, timeout), rank, world)
