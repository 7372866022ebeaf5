"""Free ports."""

from __future__ import annotations

import socket

import pytest

from repo_builder.errors import PortInUseError
from repo_builder.server import ports


def test_three_different_free_ports() -> None:
    chosen = ports.choose()
    assert len({chosen.grpc, chosen.http, chosen.metrics}) == 3
    again = ports.choose(chosen.grpc, 0, chosen.metrics)
    assert (again.grpc, again.metrics) == (chosen.grpc, chosen.metrics)
    assert again.http not in (chosen.grpc, chosen.metrics)


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port {port} for HTTP cannot be used on 127.0.0.1: Address already"):
            ports.choose(http=port)


def test_one_port_for_two_services() -> None:
    free = ports.choose().grpc
    with pytest.raises(PortInUseError, match=f"port {free} for HTTP"):
        ports.choose(grpc=free, http=free)
