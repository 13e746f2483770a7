"""What the kernel does for us: it finds peers that vanished, and buffers little for those that do not read.

Set on a listening socket, and inherited by every connection.
"""

from __future__ import annotations

import socket

NOT_SENT_LOW = 128 * 1024  # bytes the kernel keeps of what the peer has no room for
PROBES = 3  # within the time in which a silent peer must be found


def find_vanished(listener: socket.socket, within_s: float, silent_s: float) -> None:
    """Have connections ended whose peer has vanished: no FIN, no RST, nothing acknowledged.

    Args:
        within_s: Seconds after which the peer must be missed, whether or not something is written to it.
        silent_s: Seconds that may pass before something is written to it, and remains unacknowledged.
    """
    silence_s = min(silent_s, within_s / 2)
    unacknowledged_ms = round(1000 * (within_s - silence_s))
    idle_s = max(1, int(silence_s))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set(listener, "TCP_KEEPIDLE", idle_s)
    _set(listener, "TCP_KEEPINTVL", max(1, int(unacknowledged_ms / 1000 / PROBES)))
    _set(listener, "TCP_KEEPCNT", PROBES)
    _set(listener, "TCP_USER_TIMEOUT", unacknowledged_ms)  # RFC 5482; it also ends the probing


def buffer_little(listener: socket.socket) -> None:
    """Keep what a peer does not read out of the kernel; a fast peer over a long line is not slowed down, as
    what is on its way does not count."""
    _set(listener, "TCP_NOTSENT_LOWAT", NOT_SENT_LOW)


def _set(listener: socket.socket, name: str, value: int) -> None:
    option = getattr(socket, name, None)  # not every system has each of them
    if option is not None:
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
