"""Inputs and outputs of the vllm backend, as its auto-complete adds them (vllm_backend src/model.py, r25.11)."""

from __future__ import annotations

RETURNS = (
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
"""Inputs that ask for an output more; each is BOOL [1]."""


def tensor(name, data_type, dims, **more):
    return {"name": name, "data_type": f"TYPE_{data_type}", "dims": dims, **more}


INPUTS = (
    tensor("text_input", "STRING", [1]),
    tensor("image", "STRING", [-1], optional=True),
    tensor("stream", "BOOL", [1], optional=True),
    tensor("sampling_parameters", "STRING", [1], optional=True),
    tensor("exclude_input_in_output", "BOOL", [1], optional=True),
    *(tensor(name, "BOOL", [1], optional=True) for name in RETURNS),
    tensor("embedding_request", "STRING", [1], optional=True),
)
OUTPUTS = (
    tensor("text_output", "STRING", [-1]),
    tensor("finish_reason", "STRING", [-1]),
    tensor("cumulative_logprob", "FP32", [-1]),
    tensor("logprobs", "STRING", [-1]),
    tensor("num_input_tokens", "UINT32", [1]),
    tensor("num_output_tokens", "UINT32", [-1]),
)


def complete(config):
    """Add what the config does not have; decoupled, and no batches of the server's."""
    given = config.as_dict()
    for tensors, known, add in (
        (INPUTS, given["input"], config.add_input),
        (OUTPUTS, given["output"], config.add_output),
    ):
        names = {one["name"] for one in known}
        for one in tensors:
            if one["name"] not in names:
                add(dict(one))
    config.set_model_transaction_policy({"decoupled": True})
    config.set_max_batch_size(0)
    return config
