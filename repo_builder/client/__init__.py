"""A client for Triton servers over gRPC: numpy arrays and text in, numpy arrays out.

    from repo_builder import client

    with client.connect("127.0.0.1:8001") as triton:
        triton.wait_ready()
        answer = triton.infer("minilm", {"text": ["one", "two"]})

Stands alone: needs numpy and ``tritonclient[grpc]``, which is imported by ``connect`` and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repo_builder.client.asynchronous import AsyncClient
from repo_builder.client.blocking import Client
from repo_builder.client.generation import Generation
from repo_builder.client.metadata import ModelMetadata, ServerMetadata
from repo_builder.client.wire import text

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from repo_builder.client.generation import GenerationOptions

__all__ = [
    "AsyncClient",
    "Client",
    "Generation",
    "ModelMetadata",
    "ServerMetadata",
    "connect",
    "connect_async",
    "generate",
    "text",
]


def connect(url: str, *, timeout: float = 60.0, retries: int = 3) -> Client:
    """A client of the server at ``host:port`` or ``grpc://host:port`` (default port 8001); a context manager.

    Nothing is sent yet: the first call, or ``wait_ready``, meets the server.

    Args:
        timeout: seconds for every call, its retries included.
        retries: how often a call that met UNAVAILABLE is tried again, after growing pauses.

    Raises:
        UsageError: ``url`` is not a gRPC address.
    """
    return Client(url, timeout=timeout, retries=retries)


def connect_async(url: str, *, timeout: float = 60.0, retries: int = 3) -> AsyncClient:
    """``connect`` for asyncio: ``async with connect_async(url) as triton: await triton.infer(...)``."""
    return AsyncClient(url, timeout=timeout, retries=retries)


def generate(
    url: str, model: str, prompt: str | None = None, *, stream: bool = True, **options: Unpack[GenerationOptions]
) -> Generation:
    """``Client.generate`` over a connection of its own, which ends with the answer.

    Raises:
        UsageError, InferenceError: see there.
    """
    client = connect(url)
    try:
        answer = client.generate(model, prompt, stream=stream, **options)
    except BaseException:
        client.close()
        raise
    answer.afterwards(client.close)
    return answer
