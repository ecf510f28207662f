"""A process group seen from one of its processes: a leader, or a follower of what it sent."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from bench.distillation.process_group import SingleProcess


class Leader(SingleProcess):
    """Notes what it sends, as it was then."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def broadcast(self, make: Callable[[], Any]) -> Any:
        self.sent.append(deepcopy(make()))
        return self.sent[-1]


class Follower(SingleProcess):
    """Receives what a leader has sent, and calls nothing of its own for it."""

    is_leader = False

    def __init__(self, received: list[Any]) -> None:
        self.received = list(received)

    def broadcast(self, make: Callable[[], Any]) -> Any:
        return self.received.pop(0)
