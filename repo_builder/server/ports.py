"""Free ports on 127.0.0.1."""

from __future__ import annotations

import contextlib
import socket

from repo_builder.errors import PortInUseError
from repo_builder.server.running import Ports

_HOST = "127.0.0.1"


def choose(grpc: int = 0, http: int = 0, metrics: int = 0) -> Ports:
    """The wanted ports, each 0 replaced by a free one.

    Raises:
        PortInUseError: a wanted port is taken, or wanted twice.
    """
    wanted = {"gRPC": grpc, "HTTP": http, "metrics": metrics}
    chosen: list[int] = []
    with contextlib.ExitStack() as held:
        for name, port in sorted(wanted.items(), key=lambda item: item[1] == 0):
            listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((_HOST, port))
                listener.listen()
            except OSError as error:
                raise PortInUseError(
                    f"port {port} for {name} cannot be used on {_HOST}: {error.strerror}",
                    expected="a free port",
                    mend="choose another port, or 0 for any free one (a stopped server keeps its gRPC port for some "
                    "seconds)",
                    stage="serve",
                ) from error
            wanted[name] = listener.getsockname()[1]
            chosen.append(wanted[name])
    return Ports(wanted["gRPC"], wanted["HTTP"], wanted["metrics"])
