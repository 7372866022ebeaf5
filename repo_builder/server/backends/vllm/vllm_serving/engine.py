"""vLLM's AsyncLLM on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import threading
from pathlib import Path


class Engine:
    """Started when it is made; vLLM's own error is raised where it does not start.

    Args:
        arguments: of vLLM's AsyncEngineArgs.
    """

    def __init__(self, arguments):
        # The process that hosts us is the server's stub, not a Python that can be started again.
        python = Path(sys.prefix) / "bin" / "python"
        sys.executable = str(python)
        multiprocessing.set_executable(str(python))
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="vllm", daemon=True)
        self.thread.start()
        try:
            self.vllm = self.call(self._start(arguments))
        except BaseException:
            self._end_loop()
            raise

    async def _start(self, arguments):
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))

    def call(self, coroutine):
        """The coroutine's result; it runs on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def submit(self, coroutine):
        """Run the coroutine on the engine's loop; nobody waits for it."""
        asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def failure(self):
        """Why the engine cannot answer; None while it can."""
        try:
            self.call(self.vllm.check_health())
        except Exception as error:  # noqa: BLE001 (whatever the engine died of)
            return error
        return None

    def stop(self):
        """Cancel what still runs, end vLLM's processes and the thread."""
        try:
            self.call(self._stop())
        finally:
            self._end_loop()

    async def _stop(self):
        self.vllm.shutdown()
        self.vllm = None
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _end_loop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
