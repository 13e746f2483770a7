"""A pool as one would write it without thinking of speed: dictionaries, sets, and everything counted anew.

A cached block is known by its scope and all its tokens from the first one on; there are no hashes, no block
numbers and no queues.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

BLOCK = 2


class Refused(Exception):
    """What the pool must refuse; ``code`` is its error code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Path(NamedTuple):
    scope: str
    tokens: tuple[int, ...]


@dataclass
class Cached:
    age: int
    rank: int
    users: set[int] = field(default_factory=set)


@dataclass
class Request:
    device: str
    scope: str
    tokens: tuple[int, ...]
    room: int
    priority: int
    pins: int = 0
    paths: list[Path] = field(default_factory=list)

    @property
    def blocks(self) -> int:
        return -(-self.room // BLOCK)

    def full(self) -> list[Path]:
        ends = range(BLOCK, len(self.tokens) + 1, BLOCK)
        return [Path(self.scope, self.tokens[:end]) for end in ends]


class Model:
    def __init__(self, sizes: dict[str, int], policy: str, ttl_ms: int) -> None:
        self.sizes, self.policy, self.ttl_ms = sizes, policy, ttl_ms
        self.main = next(iter(sizes))
        self.cached: dict[str, dict[Path, Cached]] = {device: {} for device in sizes}
        self.requests: dict[int, Request] = {}
        self.tick = self.now_ms = 0
        self.veto_evict = False

    # -- what the pool is asked -------------------------------------------------------------------------

    def allocate(self, number: int, request: Request) -> int:
        self.tick += 1
        self.expire(request.device)
        shared = self.match(request.device, request.full())
        self.admit(number, request, shared, request.blocks - len(shared))
        self.requests[number] = request
        request.paths = list(shared)
        self.store(number, request)
        return len(shared) * BLOCK

    def extend(self, number: int, tokens: tuple[int, ...], more: int) -> None:
        self.tick += 1
        request = self.requests[number]
        room = max(request.room + more, len(request.tokens) + len(tokens))
        self.expire(request.device)
        self.admit(number, request, [], -(-room // BLOCK) - request.blocks)
        request.room, request.tokens = room, request.tokens + tokens
        for path in request.full()[len(request.paths) :]:
            if path in self.cached[request.device]:
                request.paths.append(path)
                self.hold(number, request, [path])
        self.store(number, request)

    def trim(self, number: int, room: int) -> None:
        request = self.requests[number]
        if room < max(1, len(request.tokens)):
            raise Refused("invalid_argument")
        request.room = min(request.room, room)

    def free(self, number: int, *, force: bool, keep: bool) -> None:
        self.tick += 1
        if self.requests[number].pins and not force:
            raise Refused("failed_precondition")
        self.release(number, self.requests.pop(number), keep=keep)

    def migrate(self, number: int, device: str) -> None:
        self.tick += 1
        old = self.requests[number]
        if device == old.device:
            return
        self.expire(device)
        new = Request(device, old.scope, old.tokens, old.room, old.priority, old.pins)
        shared = self.match(device, new.full())
        self.admit(number, new, shared, new.blocks - len(shared))
        self.release(number, old, keep=False)
        self.requests[number] = new
        new.paths = shared
        self.store(number, new)

    def prefetch(self, request: Request) -> int:
        self.tick += 1
        for device in self.sizes:
            self.expire(device)
        here = self.match(self.main, request.full())
        count = 0
        for path in request.full()[len(here) :]:
            if not any(path in self.cached[device] for device in self.sizes if device != self.main):
                break
            count += 1
        count = min(count, self.room_beside(self.main, here))
        self.admit(-1, request, here, count)
        request.paths = here
        request.tokens = request.tokens[: (len(here) + count) * BLOCK]
        self.store(-1, request)
        self.release(-1, request, keep=True)
        return len(request.tokens)

    def touch(self, number: int) -> None:
        request = self.requests[number]
        self.use(request, request.paths)

    def evict(self, count: int, device: str) -> int:
        count = min(count, len(self.reusable(device)))
        if count and self.veto_evict:
            raise Refused("failed_precondition")
        self.evict_now(device, count)
        return count

    def clear(self, *, force: bool) -> int:
        if self.requests and not force:
            raise Refused("failed_precondition")
        dropped = sum(map(len, self.cached.values()))
        self.requests.clear()
        for cached in self.cached.values():
            cached.clear()
        return dropped

    # -- how --------------------------------------------------------------------------------------------

    def match(self, device: str, paths: list[Path]) -> list[Path]:
        found = []
        for path in paths:
            if path not in self.cached[device]:
                break
            found.append(path)
        return found

    def reusable(self, device: str) -> list[Path]:
        return [path for path, block in self.cached[device].items() if not block.users]

    def held(self, device: str) -> int:
        private = sum(r.blocks - len(r.paths) for r in self.requests.values() if r.device == device)
        return private + len(self.cached[device]) - len(self.reusable(device))

    def blank(self, device: str) -> int:
        return self.sizes[device] - self.held(device) - len(self.reusable(device))

    def room_beside(self, device: str, paths: list[Path]) -> int:
        others = [path for path in self.reusable(device) if path not in paths]
        return self.blank(device) + len(others)

    def admit(self, number: int, request: Request, shared: list[Path], needed: int) -> None:
        missing = needed - self.blank(request.device)
        if needed > self.room_beside(request.device, shared) or (missing > 0 and self.veto_evict):
            raise Refused("resource_exhausted")
        self.hold(number, request, shared)
        self.evict_now(request.device, missing)

    def hold(self, number: int, request: Request, paths: list[Path]) -> None:
        for path in paths:
            self.cached[request.device][path].users.add(number)
        self.use(request, paths)

    def use(self, request: Request, paths: list[Path]) -> None:
        for path in paths:
            block = self.cached[request.device][path]
            if self.policy == "lfu":
                block.rank += 1
            elif self.policy == "priority":
                block.rank = max(block.rank, request.priority)
            elif self.policy == "ttl":
                block.rank = self.now_ms + self.ttl_ms

    def store(self, number: int, request: Request) -> None:
        rank = {"lfu": 1, "priority": request.priority, "ttl": self.now_ms + self.ttl_ms}
        for path in request.full()[len(request.paths) :]:
            assert path not in self.cached[request.device]
            self.cached[request.device][path] = Cached(self.tick, rank.get(self.policy, 0), {number})
            request.paths.append(path)

    def release(self, number: int, request: Request, *, keep: bool) -> None:
        cached = self.cached[request.device]
        for path in request.paths:
            cached[path].users.discard(number)
            if self.policy != "fifo":
                cached[path].age = self.tick
            if self.policy == "ttl":
                cached[path].rank = self.now_ms + self.ttl_ms
        while not keep and request.paths and request.paths[-1] in self.leaves(request.device):
            del cached[request.paths.pop()]

    def leaves(self, device: str) -> list[Path]:
        cached = self.cached[device]
        followed = {Path(path.scope, path.tokens[:-BLOCK]) for path in cached}
        return [path for path in self.reusable(device) if path not in followed]

    def evict_now(self, device: str, count: int) -> None:
        cached = self.cached[device]
        for _ in range(count):
            del cached[min(self.leaves(device), key=lambda path: (cached[path].rank, cached[path].age))]

    def expire(self, device: str) -> None:
        if self.policy != "ttl" or self.veto_evict:
            return
        cached = self.cached[device]
        while over := [path for path in self.leaves(device) if cached[path].rank <= self.now_ms]:
            del cached[over[0]]
