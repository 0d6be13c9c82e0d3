"""Sweeps over many processes: joblib on this host, or an existing Dask or Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TypeVar

from joblib import Parallel, delayed, parallel_config

from harness.cluster.dask_client import connected
from netsim.errors import HostError, InputError

BACKENDS = ("local", "dask", "ray")
BATCH = 4  # tasks that travel together

T = TypeVar("T")
R = TypeVar("R")


def sweep(
    function: Callable[[T], R],
    tasks: Sequence[T],
    backend: str = "local",
    scheduler: str | None = None,
    jobs: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> list[R]:
    """function(task) for every task, in their order.

    local: `jobs` processes, or this one.  dask: the cluster whose scheduler listens at `scheduler` (tcp://host:port).
    ray: the cluster at `scheduler`, or the one that Ray finds. InputError for an unknown backend or a scheduler that is
    missing, HostError if the cluster's client is not installed or the cluster does not answer.
    """
    if backend not in BACKENDS:
        raise InputError("--sweep-backend", "", backend, ", ".join(BACKENDS))
    if backend == "local" and jobs == 1:
        found = []
        for task in tasks:
            found.append(function(task))
            progress()
        return found
    with _cluster(backend, scheduler, jobs):
        how = "list" if backend == "ray" else "generator"  # Ray's backend can give them only all at once
        results: Iterable[R] = Parallel(return_as=how, batch_size=BATCH)(delayed(function)(t) for t in tasks)
        found = []
        for result in results:
            found.append(result)
            progress()
    return found


@contextmanager
def _cluster(backend: str, scheduler: str | None, jobs: int) -> Iterator[None]:
    if backend == "local":
        with parallel_config("loky", n_jobs=jobs):
            yield
    elif backend == "dask":
        with connected(scheduler) as client, parallel_config("dask", client=client, n_jobs=-1):
            yield
    else:
        with _ray(scheduler):
            yield


@contextmanager
def _ray(scheduler: str | None) -> Iterator[None]:
    try:
        ray, adapter = import_module("ray"), import_module("ray.util.joblib")
    except ImportError:
        raise HostError("--sweep-backend ray needs the package ray: pip install 'longhaul-bench[ray]'") from None
    try:
        ray.init(address=scheduler or "auto", ignore_reinit_error=True)
    except (ConnectionError, ValueError) as error:
        raise HostError(f"no Ray cluster answers at {scheduler or 'auto'}: {error}") from None
    adapter.register_ray()
    try:
        with parallel_config("ray", n_jobs=-1):
            yield
    finally:
        ray.shutdown()
