"""What ``penstock.client.pacing`` is, for threads."""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.client import pacing
from penstock.client.blocking.transport import BlockingReply
from penstock.protocol.messages import Frame


def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def read_end(reply: BlockingReply) -> list[Frame]:
    """See ``pacing.read_end``."""
    return reply.finish(pacing.read_end)


def closer() -> Callable[[BlockingReply], None]:
    """See ``pacing.closer``."""
    return BlockingReply.close_soon
