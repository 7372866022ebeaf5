"""The command lines that start Triton."""

from __future__ import annotations

from dataclasses import replace

import pytest

from repo_builder.errors import SpecError
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import launch

ONE = EngineSettings("1.2.1", "LlamaForCausalLM", 8, 64, 128)


def test_one_gpu_takes_one_server() -> None:
    started = launch.launch("chat_tensorrt_llm", ONE)
    assert started.line == (
        "tritonserver --model-repository=/models --disable-auto-complete-config "
        "--backend-config=python,shm-region-prefix-name=prefix0_"
    )
    assert started.environment == {}


def test_leader_mode_has_a_section_for_each_rank() -> None:
    started = launch.launch("chat_tensorrt_llm", replace(ONE, tensor_parallel=2, pipeline_parallel=2))
    program, *sections = started.line.replace(" -n 1 ", " : ", 1).split(" : ")
    assert program == "mpirun --allow-run-as-root"
    ends = [
        f"--disable-auto-complete-config --backend-config=python,shm-region-prefix-name=prefix{i}_" for i in range(4)
    ]
    first = "tritonserver --model-repository=/models "
    loads = "--model-control-mode=explicit --load-model=chat_tensorrt_llm "
    assert sections == [first + ends[0], *(f"-n 1 {first}{loads}{end}" for end in ends[1:])]


def test_an_orchestrator_starts_its_ranks_itself() -> None:
    started = launch.launch("chat_tensorrt_llm", replace(ONE, tensor_parallel=2), "orchestrator", repository="/a b")
    assert started.environment == {"TRTLLM_ORCHESTRATOR": "1", "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "1"}
    assert started.line == (
        "TRTLLM_ORCHESTRATOR=1 TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES=1 mpirun --allow-run-as-root -n 1 tritonserver "
        "'--model-repository=/a b' --disable-auto-complete-config "
        "--backend-config=python,shm-region-prefix-name=prefix0_ --pinned-memory-pool-byte-size=0 "
        "--enable-peer-access=false --cuda-memory-pool-byte-size=0:0 --cuda-memory-pool-byte-size=1:0"
    )


def test_machines_are_counted() -> None:
    several = replace(ONE, tensor_parallel=8, pipeline_parallel=2)
    assert launch.nodes(several) == 2
    assert launch.nodes(replace(several, gpus_per_node=16)) == 1
    with pytest.raises(SpecError, match="the engine takes 16 GPUs, and a machine has 8") as error:
        launch.launch("chat_tensorrt_llm", several)
    assert error.value.mend.startswith("start it with chat_tensorrt_llm/launch.sh")
    with pytest.raises(SpecError, match=r"llm\.launch is orchestrator") as error:
        launch.nodes(several, "orchestrator")
    assert error.value.mend == "set llm.launch: leader"
    with pytest.raises(SpecError) as error:
        launch.nodes(replace(several, gpus_per_node=6))
    assert error.value.expected == "machines that are filled evenly"
