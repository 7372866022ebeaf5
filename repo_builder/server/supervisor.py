"""The server's keeper, run as a script of its own: no server outlives the process that started it.

Arguments: process id of the owner, prefix of the server's shared memory, seconds of grace, then the server's command.
It prints the server's process id, waits for the end of either, ends what is left of the server's process group and
removes its shared memory. Standard library only; it is started with ``python -I``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.1


def main(arguments: list[str]) -> int:
    owner, prefix, grace, command = int(arguments[0]), arguments[1], float(arguments[2]), arguments[3:]
    stopping: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopping.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    # PDEATHSIG covers the keeper's own violent end; the keeper has one thread, so the signal is not premature.
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, preexec_fn=_leave_with_the_keeper)
    print(server.pid, flush=True)
    os.close(1)
    while server.poll() is None and not stopping and os.getppid() == owner:
        time.sleep(_POLL_SECONDS)
    if server.poll() is None:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    status = server.wait()
    for leftover in Path("/dev/shm").glob(f"{prefix}*"):
        leftover.unlink(missing_ok=True)
    return status if status >= 0 else 128 - status


def _leave_with_the_keeper() -> None:
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
