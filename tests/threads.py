"""Work that is done in threads at the same time, and what became of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")
Who = TypeVar("Who", bound=Hashable)


def together(everyone: Sequence[Who], work: Callable[[Who], T]) -> list[T]:
    """`work(one)` in one thread for each of them; their results in order. The first error of any is raised."""
    results: dict[Who, T] = {}
    errors: list[BaseException] = []

    def body(one: Who) -> None:
        try:
            results[one] = work(one)
        except BaseException as error:  # brought to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=body, args=(one,)) for one in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[one] for one in everyone]
