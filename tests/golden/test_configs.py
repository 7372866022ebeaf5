"""Rendered configs as a person reads them. After a deliberate change, write them anew with ``UPDATE_GOLDEN=1``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from repo_builder.model_config import build
from repo_builder.render import render_config

FOLDER = Path(__file__).parent / "configs"


def tensor(name: str, data_type: str, *dims: int) -> dict[str, Any]:
    return {"name": name, "data_type": data_type, "dims": dims}


STATE = {
    "input_name": "hidden_in",
    "output_name": "hidden_out",
    "data_type": "TYPE_FP32",
    "dims": [2, 128],
    "initial_state": [{"name": "zeros", "data_type": "TYPE_FP32", "dims": [2, 128], "zero_data": True}],
}
CONTROLS = [
    {"name": "START", "control": [{"kind": "CONTROL_SEQUENCE_START", "fp32_false_true": [0, 1]}]},
    {"name": "ID", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_UINT64"}]},
]
CONFIGS: dict[str, dict[str, Any]] = {
    "onnx_model": {
        "name": "resnet50",
        "platform": "onnxruntime_onnx",
        "max_batch_size": 32,
        "input": [tensor("pixels", "TYPE_FP32", 3, 224, 224)],
        "output": [{**tensor("scores", "TYPE_FP32", 1000), "label_filename": "labels.txt"}],
        "instance_group": [{"kind": "KIND_GPU", "count": 2, "gpus": [0, 1]}],
        "optimization": {
            "graph": {"level": 1},
            "execution_accelerators": {
                "gpu_execution_accelerator": [
                    {"name": "tensorrt", "parameters": {"precision_mode": "FP16", "max_workspace_size_bytes": 1 << 30}}
                ]
            },
        },
        "model_warmup": [
            {
                "name": "one image",
                "batch_size": 1,
                "inputs": {"pixels": {"data_type": "TYPE_FP32", "dims": [3, 224, 224], "random_data": True}},
            }
        ],
    },
    "tokenizer": {
        "name": "minilm_tokenizer",
        "backend": "python",
        "max_batch_size": 64,
        "input": [tensor("text", "TYPE_STRING", 1)],
        "output": [tensor("input_ids", "TYPE_INT64", -1), tensor("attention_mask", "TYPE_INT64", -1)],
        "parameters": {"max_length": 256, "pad_token": "[PAD]", "lowercase": True, "separator": "\u2581\n\t\"'"},
    },
    "ensemble": {
        "name": "minilm",
        "platform": "ensemble",
        "max_batch_size": 64,
        "input": [tensor("text", "TYPE_STRING", 1)],
        "output": [tensor("embedding", "TYPE_FP32", 384)],
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": "minilm_tokenizer",
                    "model_version": -1,
                    "input_map": {"text": "text"},
                    "output_map": {"input_ids": "ids", "attention_mask": "mask"},
                },
                {
                    "model_name": "minilm_model",
                    "model_version": -1,
                    "input_map": {"input_ids": "ids", "attention_mask": "mask"},
                    "output_map": {"embedding": "embedding"},
                },
            ]
        },
    },
    "dynamic_batching": {
        "name": "queued",
        "backend": "onnxruntime",
        "max_batch_size": 16,
        "version_policy": {"specific": {"versions": [1, 3]}},
        "dynamic_batching": {
            "preferred_batch_size": [4, 8],
            "max_queue_delay_microseconds": 100,
            "priority_levels": 2,
            "default_priority_level": 2,
            "default_queue_policy": {"timeout_action": "DELAY", "max_queue_size": 64},
            "priority_queue_policy": {"1": {"max_queue_size": 8}},
        },
        "response_cache": {"enable": True},
    },
    "sequence_direct": {
        "name": "stateful",
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "sequence_batching": {
            "direct": {"max_queue_delay_microseconds": 50, "minimum_slot_utilization": 0.1},
            "max_sequence_idle_microseconds": 5_000_000,
            "control_input": CONTROLS,
            "state": [STATE],
        },
    },
    "sequence_oldest": {
        "name": "speech",
        "backend": "python",
        "max_batch_size": 8,
        "sequence_batching": {"oldest": {"max_candidate_sequences": 4}, "iterative_sequence": True},
        "model_transaction_policy": {"decoupled": True},
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_rendered_config(name: str):
    path, text = FOLDER / f"{name}.pbtxt", render_config(build(CONFIGS[name]))
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over():
    assert {path.stem for path in FOLDER.iterdir()} == set(CONFIGS)
