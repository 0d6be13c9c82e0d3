"""A Dask cluster that stands already: connecting to it, and seeing that its workers run this very program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from typing import Any

from netsim.errors import HostError, InputError


def version() -> str:
    return metadata.version("longhaul-bench")


@contextmanager
def connected(scheduler: str | None, identity: Callable[[], str] = version) -> Iterator[Any]:
    """A `distributed.Client` of the scheduler at `scheduler` (tcp://host:port).

    identity: of the program; every worker must give the same. InputError without an address, HostError if the client
    is not installed, nobody answers, there is no worker, or a worker has another program.
    """
    if scheduler is None:
        raise InputError("--scheduler", "", "nothing", "the address of a Dask scheduler, like tcp://10.0.0.1:8786")
    try:
        distributed = import_module("distributed")
    except ImportError:
        raise HostError("a Dask cluster needs the package distributed: pip install 'longhaul-bench[dask]'") from None
    try:
        client = distributed.Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise HostError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    try:
        if not client.nthreads():
            raise HostError(f"the Dask scheduler at {scheduler} has no workers")
        mine = identity()
        # A worker that cannot load our code would leave its caller waiting for ever.
        strangers = sorted(worker for worker, its in client.run(identity, on_error="return").items() if its != mine)
        if strangers:
            raise HostError(f"no longhaul {version()} with the same source at the Dask workers {', '.join(strangers)}")
        yield client
    finally:
        client.close()
