"""The command lines that start Triton for an engine of one or many GPUs.

Sources: TensorRT-LLM triton_backend/scripts/launch_triton_server.py and docs (leader and orchestrator mode), 1.2.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from repo_builder.errors import SpecError
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import MOUNT

Mode = Literal["leader", "orchestrator"]
SERVER = "tritonserver"
MPIRUN = ("mpirun", "--allow-run-as-root")
WITHOUT_ENDPOINTS = ("--allow-http=false", "--allow-grpc=false", "--allow-metrics=false")
"""Of ranks on other nodes, which nobody calls."""


@dataclass(frozen=True)
class Launch:
    """One command: its words, and the variables that it needs beside the machine's."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """As it is typed into a shell."""
        return shlex.join([f"{name}={value}" for name, value in self.environment.items()] + list(self.argv))


def server(engine_model: str, rank: int, *, repository: str = MOUNT, further: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Triton of one rank: rank 0 serves the whole repository, the others run their part of the engine alone."""
    words = [SERVER, f"--model-repository={repository}"]
    if rank:
        words += ["--model-control-mode=explicit", f"--load-model={engine_model}"]
    words += ["--disable-auto-complete-config", f"--backend-config=python,shm-region-prefix-name=prefix{rank}_"]
    return (*words, *further)


def launch(engine_model: str, settings: EngineSettings, mode: Mode = "leader", *, repository: str = MOUNT) -> Launch:
    """The command for one machine.

    Args:
        engine_model: the model with the engine, ``NAME_tensorrt_llm``.
        settings: its engine.
        mode: ``leader`` starts a server for each rank; ``orchestrator`` one, which starts the other ranks itself.
        repository: where the server sees it; the configs of the repository name ``/models``.

    Raises:
        SpecError: the engine takes several machines (see ``NAME_tensorrt_llm/launch.sh``).
    """
    if nodes(settings, mode) > 1:
        raise SpecError(
            f"the engine takes {settings.world_size} GPUs, and a machine has {settings.gpus_per_node}",
            expected="an engine for one machine",
            mend=f"start it with {engine_model}/launch.sh, which starts the other machines too",
        )
    ranks = settings.world_size
    if mode == "orchestrator":
        pools = (f"--cuda-memory-pool-byte-size={gpu}:0" for gpu in range(ranks))
        further = ("--pinned-memory-pool-byte-size=0", "--enable-peer-access=false", *pools)
        return Launch(
            (*MPIRUN, "-n", "1", *server(engine_model, 0, repository=repository, further=further)),
            {"TRTLLM_ORCHESTRATOR": "1", "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "1"},
        )
    if ranks == 1:
        return Launch(server(engine_model, 0, repository=repository))
    words = list(MPIRUN)
    for rank in range(ranks):
        words += [":"] * (rank > 0) + ["-n", "1", *server(engine_model, rank, repository=repository)]
    return Launch(tuple(words))


def nodes(settings: EngineSettings, mode: Mode = "leader") -> int:
    """How many machines the engine takes.

    Raises:
        SpecError: its ranks do not fill them evenly, or orchestrator mode, which has one machine only.
    """
    ranks, each = settings.world_size, settings.gpus_per_node
    if ranks <= each:
        return 1
    if mode == "orchestrator":
        raise SpecError(
            f"the engine takes {ranks} GPUs, a machine has {each}, and llm.launch is orchestrator",
            expected=f"at most {each} GPUs: an orchestrator starts processes on its own machine",
            mend="set llm.launch: leader",
        )
    if ranks % each:
        raise SpecError(
            f"the engine takes {ranks} GPUs, and a machine has {each}",
            expected="machines that are filled evenly",
            mend="choose tp and pp so that their product divides by gpus_per_node, or set llm.gpus_per_node",
        )
    return ranks // each
