"""Large language models: what a Hugging Face folder or an engine folder says, the contracts of the three layouts that
Triton serves them in (TensorRT-LLM's engines, its LLM API, vLLM), and the commands that build and launch them."""

from __future__ import annotations

MOUNT = "/models"
"""Where a server in a container sees the repository; paths in configs start with it."""
