"""Starting, awaiting and stopping a real server."""

from __future__ import annotations

from repo_builder.server.embedded import start
from repo_builder.server.running import Ports, RunningServer

__all__ = ["Ports", "RunningServer", "start"]
