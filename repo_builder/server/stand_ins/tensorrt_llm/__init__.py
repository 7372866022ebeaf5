"""A stand-in of TensorRT-LLM's Python package, as far as the layout ``llmapi`` uses it: transformers on the CPU, fp32.

It is on the path of the embedded server alone. What it does not do it refuses by name.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

__version__ = "0+stand.in"
_IGNORED = {
    *("backend", "dtype", "tensor_parallel_size", "pipeline_parallel_size", "max_batch_size", "max_num_tokens"),
    *("kv_cache_config", "max_input_len", "max_seq_len"),
}
"""Of GPUs and their memory; the lengths are kept."""


@dataclass
class SamplingParams:
    max_tokens: int = 32
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    best_of: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None

    def __post_init__(self) -> None:
        for name in ("best_of", "frequency_penalty", "presence_penalty"):
            if getattr(self, name) not in (None, 0.0, 1):
                raise ValueError(f"the stand-in of TensorRT-LLM does not serve {name}")


@dataclass
class CompletionOutput:
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | None = None
    cumulative_logprob: float = 0.0


@dataclass
class RequestOutput:
    prompt: str
    outputs: list[CompletionOutput]


class LLM:
    def __init__(self, model: str, **options) -> None:
        import torch
        import transformers

        unknown = sorted(set(options) - _IGNORED)
        if unknown:
            raise ValueError(f"the stand-in of TensorRT-LLM does not serve {', '.join(unknown)}")
        torch.set_num_threads(1)
        self.torch = torch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model, local_files_only=True)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, local_files_only=True, attn_implementation="eager"
        ).eval()
        ends = self.model.generation_config.eos_token_id
        self.ends = set(ends if isinstance(ends, list) else [ends]) - {None}
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 20
        self.longest = options.get("max_seq_len") or positions
        self.lock = threading.Lock()
        print("a stand-in of tensorrt_llm serves: transformers on the CPU, no TensorRT-LLM", flush=True)

    def generate_async(self, prompt: str, sampling_params: SamplingParams, streaming: bool = False) -> Generation:
        return Generation(self, prompt, sampling_params, streaming)

    def shutdown(self) -> None:
        pass

    def step(self, ids, cache):
        with self.lock, self.torch.no_grad():
            found = self.model(input_ids=self.torch.tensor([ids]), past_key_values=cache, use_cache=True)
        return found.logits[0, -1].float(), found.past_key_values


class Generation:
    """An answer on its way; iterate over it asynchronously."""

    def __init__(self, llm: LLM, prompt: str, sampling: SamplingParams, streaming: bool) -> None:
        self.llm, self.prompt, self.sampling, self.streaming = llm, prompt, sampling, streaming
        self.aborted = False
        self.ids = llm.tokenizer(prompt).input_ids
        if not self.ids:
            raise ValueError("the prompt has no tokens")
        if len(self.ids) + sampling.max_tokens > llm.longest:
            raise ValueError(
                f"the prompt has {len(self.ids)} tokens and {sampling.max_tokens} are asked for: "
                f"more than max_seq_len ({llm.longest})"
            )

    def abort(self) -> None:
        self.aborted = True

    async def __aiter__(self):
        new, logprob, cache, reason = [], 0.0, None, None
        random = self.llm.torch.Generator().manual_seed(self.sampling.seed or 0)
        while reason is None and not self.aborted:
            logits, cache = await asyncio.to_thread(self.llm.step, self.ids if not new else new[-1:], cache)
            token = self._chosen(logits, random)
            logprob += float(self.llm.torch.log_softmax(logits, 0)[token])
            ended = token in self.llm.ends
            new += [] if ended else [token]
            text = self.llm.tokenizer.decode(new, skip_special_tokens=True)
            word = next((word for word in self.sampling.stop if word and word in text), None)
            text = text[: text.index(word)] if word else text
            reason = "stop" if ended or word else "length" if len(new) >= self.sampling.max_tokens else None
            shown = text if reason else text.rstrip("�")
            if self.streaming or reason:
                output = CompletionOutput(shown, list(new), reason, word, logprob)
                yield RequestOutput(self.prompt, [output])

    def _chosen(self, logits, random) -> int:
        torch, asked = self.llm.torch, self.sampling
        if asked.top_k == 1 or not asked.temperature:
            return int(torch.argmax(logits))
        scores = logits / asked.temperature
        if asked.top_k:
            scores = scores.masked_fill(scores < torch.topk(scores, asked.top_k).values[-1], float("-inf"))
        chances = torch.softmax(scores, 0)
        if asked.top_p and asked.top_p < 1:
            ordered, places = torch.sort(chances, descending=True)
            chances[places[torch.cumsum(ordered, 0) - ordered >= asked.top_p]] = 0
        return int(torch.multinomial(chances, 1, generator=random))
