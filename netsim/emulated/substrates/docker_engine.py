"""The Docker engine, and removing from it what a run made there."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.models.networks import Network

from netsim.emulated.owner import LABEL, Owner
from netsim.errors import HostError

REMOVAL_SECONDS = 20.0  # for the engine to remove a container that was killed

_log = logging.getLogger(__name__)


def sweep_containers() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Removes what dead owners left; the names of containers and networks. Nothing if no engine answers."""
    try:
        client = engine()
    except HostError:
        return (), ()
    try:
        containers = client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
        dead = [container for container in containers if _dead(container.labels.get(LABEL, ""))]
        for container in dead:
            remove_container(container)
        networks = client.networks.list(filters={"label": LABEL})
        loose = [network for network in networks if _dead(network.attrs["Labels"].get(LABEL, ""))]
        gone = [network for network in loose if remove_network(network)]
        return tuple(str(one.name) for one in dead), tuple(str(one.name) for one in gone)
    finally:
        client.close()


def _dead(label: str) -> bool:
    owner = Owner.parse(label)
    return owner is not None and not owner.alive


def remove_container(container: Container) -> None:
    """Kills it; the engine then removes it by itself, and only if it does not is it asked to.

    Two removals of one container at once may leave an endpoint behind that holds its network for ever.
    """
    with contextlib.suppress(NotFound):
        container.reload()
        if container.status == "created":  # and never started, so that its end removes nothing
            container.remove(force=True, v=True)
            return
        with contextlib.suppress(APIError):  # it has ended already
            container.kill()
        try:
            container.wait(condition="removed", timeout=REMOVAL_SECONDS)
        except (APIError, requests.RequestException):
            container.remove(force=True, v=True)


def remove_network(network: Network) -> bool:
    """Whether it is gone; not if the engine counts endpoints of containers that are no more.

    Containers are named, not looked up: the engine lets go of the endpoint of one that is gone if asked by its name.
    """
    try:
        network.reload()
        for endpoint in (network.attrs["Containers"] or {}).values():
            with contextlib.suppress(NotFound, APIError):
                network.disconnect(endpoint["Name"], force=True)
        network.remove()
    except NotFound:
        return True
    except APIError as error:
        _log.warning(
            "network %s stays until the Docker engine is restarted: %s", network.name, error.explanation or error
        )
        return False
    return True


def engine() -> docker.DockerClient:
    try:
        return docker.from_env(timeout=60)
    except DockerException as error:
        raise HostError(f"no Docker engine answers: {error}") from None


@contextlib.contextmanager
def explained() -> Iterator[None]:
    try:
        yield
    except (APIError, DockerException, requests.RequestException) as error:
        reason = getattr(error, "explanation", None) or str(error)
        raise HostError(f"Docker refused: {reason}") from None
