"""A decoding process that ends by a signal at some packets: ``crashing.py HOW SOCKET PACKET``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from penstock.annotate.media import child, speaker

HOW, FOLDER = sys.argv[1].split(":", 1)


def at(self: Any, packet: int, before: Any = speaker.Speaker.at) -> None:
    before(self, packet)
    once = Path(FOLDER) / "once"
    if HOW == "always" and packet == 20:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif HOW == "once" and packet == 20 and not once.exists():
        once.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    elif HOW == "each" and packet >= 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif HOW == "stall" and packet == 20:
        time.sleep(60)


speaker.Speaker.at = at  # type: ignore[method-assign]
sys.argv[1:] = sys.argv[2:]
child.main()
