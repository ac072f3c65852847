"""Listen and serve until told to stop."""

from __future__ import annotations

import gc
import socket
import sys

import uvicorn

from igva.errors import UserError
from igva.serve.connections import ACCEPT_AT_ONCE, protocol_for
from igva.serve.guard import App
from igva.serve.limits import Limits

# Seconds that a thread which runs Python may keep the interpreter while another waits for it. The engine's thread gives
# it away at every operation of torch, hundreds for a token: by Python's own 5 ms, a token takes seconds where another
# thread is at work (docs/security.md).
SWITCH_SECONDS = 1e-4


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen()  # from now on a client waits; before, it would be refused until the server runs
    except OSError as error:
        listener.close()
        raise UserError(f"cannot listen on {host}:{port} ({error.strerror or error}): name another --port") from error
    return listener


def server(app: App, log_level: str = "warning", limits: Limits | None = None) -> uvicorn.Server:
    """The server, not running yet; its running answers get ten seconds to end once it is told to stop."""
    config = uvicorn.Config(
        app,
        http=protocol_for(limits or Limits()),
        log_level=log_level,
        access_log=False,
        server_header=False,
        backlog=ACCEPT_AT_ONCE,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 * 1024,
    )
    return _Server(config)


class _Server(uvicorn.Server):
    """Takes a few connections at a time, however many wait: where one more has no room to, its client tries again only
    a second later, then three."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():  # asyncio has one number for both, and set it
            listener.listen(socket.SOMAXCONN)


def run(app: App, listener: socket.socket, limits: Limits | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # what is loaded stays: looking through it for garbage would hold up everybody for a third of a second
    print(f"igva serves on http://{shown}:{port} (stop with Ctrl-C)", flush=True)
    server(app, limits=limits).run(sockets=[listener])
