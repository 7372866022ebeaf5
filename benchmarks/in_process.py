"""tokenizers and ONNX Runtime in one process, on the very files that are served; commands as in load.py.

``python in_process.py REPOSITORY ARRANGEMENT CPUS``, with the Python that serves: the same ONNX Runtime, the same
tokenizers library. It does not merge the requests of different clients: that takes a queue and a batcher, a server.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import load
import numpy as np
import onnxruntime
import workloads


def sessions(path: Path, arrangement: str, cpus: int) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = cpus if arrangement == "one session, all threads" else 1
    count = cpus if arrangement == "a session per core" else 1
    return [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for _ in range(count)]


def caller(repository: Path, arrangement: str, cpus: int) -> Callable[[str], Any]:
    folder = repository / "minilm_tokenizer" / "1"
    sys.path.insert(0, str(folder / "vendor"))
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    running = sessions(repository / "minilm_encoder" / "1" / "model.onnx", arrangement, cpus)
    free: queue.Queue[Any] = queue.Queue()
    for session in running:
        free.put(session)

    def inputs(text: str) -> dict[str, Any]:
        encoding = tokenizer.encode(text)
        return {
            "input_ids": np.array([encoding.ids], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask], dtype=np.int64),
            "token_type_ids": np.array([encoding.type_ids], dtype=np.int64),
        }

    def shared(text: str) -> Any:
        return running[0].run(None, inputs(text))[0]

    def alone(text: str) -> Any:
        feed = inputs(text)
        session = free.get()
        try:
            return session.run(None, feed)[0]
        finally:
            free.put(session)

    return alone if arrangement == "a session per core" else shared


def main(repository: Path, arrangement: str, cpus: int) -> None:
    items = {name: workloads.texts(name) for name in ("fixed", "mixed")}
    call = caller(repository, arrangement, cpus)
    load.obey(call, items, call(items["fixed"][0]).reshape(-1).tolist())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
