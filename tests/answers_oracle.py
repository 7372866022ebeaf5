"""The question-answering pipeline of transformers 5.2 without a model: its own windows, and its answers out of logits
made here. A script for the Python of ``older_transformers``: ``PYTHON -I answers_oracle.py REQUEST.json ANSWERS.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(request_file: str, answers_file: str) -> None:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    sys.path.extend(path for path in request["site_packages"] if path not in sys.path)
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    whole = {}
    for folder in request["folders"]:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer._tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        whole[folder] = [answered(tokenizer, row, number, request) for number, row in enumerate(request["rows"])]
    Path(answers_file).write_text(json.dumps(whole), encoding="utf-8")


def answered(tokenizer: Any, row: Any, number: int, request: Any) -> Any:
    """Ids and logits of every window, and the pipeline's answers with each set of options; None where it refuses."""
    import numpy as np
    import torch
    from transformers.pipelines.question_answering import QuestionAnsweringPipeline

    pipeline = QuestionAnsweringPipeline.__new__(QuestionAnsweringPipeline)
    pipeline.tokenizer = tokenizer
    random = np.random.default_rng(number)
    try:
        features = list(pipeline.preprocess({"question": row[0], "context": row[1]}))
    except BaseException as error:  # noqa: BLE001 (the library panics where windows cannot share so many tokens)
        return {"refused": str(error)}
    logits = [3 * random.standard_normal((2, 1, f["input_ids"].shape[1])).astype(np.float32) for f in features]
    outputs = [
        {**feature, "start": torch.from_numpy(start), "end": torch.from_numpy(end)}
        for feature, (start, end) in zip(features, logits, strict=True)
    ]
    answers = [pipeline.postprocess(outputs, **options) for options in request["options"]]
    return {
        "ids": [feature["input_ids"][0].tolist() for feature in features],
        "logits": [one[:, 0].T.tolist() for one in logits],
        "answers": [found or None for found in answers],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
