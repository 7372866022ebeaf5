"""The reference answers of question-answering: a script for a Python that holds transformers below 5.3.

``PYTHON -I question_answering.py REQUEST.json ANSWERS.json``. The request: ``site_packages`` (folders that PyTorch is
found in, behind this Python's own), ``model`` (folder), ``tokenizer`` (content of a tokenizer.json),
``trust_remote_code``, ``options`` (of the pipeline's call), ``rows`` (question and context each). The answers:
versions, and for every row ``answer``, ``score``, ``start``, ``end``, or nothing where the pipeline finds none.

The tokenizer is the builder's: transformers 5.2 itself joins pairs of XLM-RoBERTa with one ``</s>``, where these models
were trained with two.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(request_file: str, answers_file: str) -> None:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    sys.path.extend(path for path in request["site_packages"] if path not in sys.path)
    import torch
    import transformers
    from tokenizers import Tokenizer

    read = transformers.pipeline(
        "question-answering",
        model=request["model"],
        device="cpu",
        dtype=torch.float32,
        trust_remote_code=request["trust_remote_code"],
    )
    read.tokenizer._tokenizer = Tokenizer.from_str(request["tokenizer"])
    answers = []
    for row in request["rows"]:
        found: Any = read(question=row["question"], context=row["context"], **request["options"])
        answers.append({name: found[name] for name in ("answer", "score", "start", "end")} if found else None)
    whole = {"transformers": transformers.__version__, "torch": torch.__version__, "answers": answers}
    Path(answers_file).write_text(json.dumps(whole), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
