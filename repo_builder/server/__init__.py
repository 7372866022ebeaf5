"""Starting, awaiting and stopping a real server: embedded (from a wheel) or in Docker."""

from __future__ import annotations

from repo_builder.server import docker, needs
from repo_builder.server.embedded import start
from repo_builder.server.running import Ports, RunningServer

__all__ = ["Ports", "RunningServer", "docker", "needs", "start"]
