"""EngineSettings: what a TensorRT-LLM engine can do, as its ``config.json`` says, or as it is to be built."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineSettings:
    """Limits and features of one engine; sizes in tokens, batches in sequences.

    Attributes:
        version: of TensorRT-LLM, ``1.2.1``; empty where an engine does not tell (before 0.8).
        architecture: ``LlamaForCausalLM``, ``ChatGLMForCausalLM``, ...
        dtype, logits_dtype: ``float16``, ``bfloat16``, ``float32``.
        quantization: ``quant_algo`` of the engine (``FP8``, ``W4A16_AWQ``), empty for none.
        max_input_len: as the engine was built; the server may take longer prompts (:attr:`longest_prompt`).
        kv_cache_type: ``paged``, ``continuous`` or ``disabled``.
        tensor_parallel, pipeline_parallel, context_parallel: of ``pretrained_config.mapping``.
        max_draft_len: tokens of a draft that the engine verifies; 0 without speculative decoding.
        speculative_decoding: ``draft_tokens_external``, ``medusa``, ...; empty for none.
    """

    version: str
    architecture: str
    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int | None = None
    max_beam_width: int = 1
    dtype: str = "float16"
    logits_dtype: str = "float32"
    quantization: str = ""
    kv_cache_type: str = "paged"
    remove_input_padding: bool = True
    gpt_attention_plugin: bool = True
    context_fmha: bool = True
    paged_context_fmha: bool = True
    tokens_per_block: int = 32
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    context_parallel: int = 1
    gpus_per_node: int = 8
    lora: bool = False
    max_prompt_embedding_table_size: int = 0
    gather_context_logits: bool = False
    gather_generation_logits: bool = False
    speculative_decoding: str = ""
    max_draft_len: int = 0
    vocab_size: int = 0

    @property
    def world_size(self) -> int:
        """Ranks, and so GPUs: one each."""
        return self.tensor_parallel * self.pipeline_parallel * self.context_parallel

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that the server takes (TensorRT-LLM's batch_manager/trtGptModel.h).

        With packed input and context FMHA the sizes of the sequence and of a step bound it, not ``max_input_len``.
        """
        if not (self.remove_input_padding and self.context_fmha and self.max_num_tokens):
            return self.max_input_len
        return max(1, min(self.max_seq_len - 1, self.max_num_tokens))
