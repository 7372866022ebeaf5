"""Scripts and manifests beside the model with the engine; the scripts run here against FAKE programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from repo_builder import releases
from repo_builder.artifact import Artifact
from repo_builder.errors import TargetError
from repo_builder.formats import tensorrt_llm_engine
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import build_commands, launch, settings, source, written
from repo_builder.llm.build_commands import CHECKPOINT, EXAMPLES, Step
from repo_builder.render import render
from repo_builder.spec import ModelSpec
from tests.unit.formats.test_tensorrt_llm_engine import MODERN, RANKS, changed, engine
from tests.unit.llm.llm_folders import CHATGLM2, LLAMA, folder

NASTY = 'it\'s "a" $(touch x) `y` \\ & ; # %s é漢字 \x7f\u2028'
ONE = EngineSettings("1.2.1", "LlamaForCausalLM", 8, 64, 128)
FAKE = """#!{python}
import os, sys
with open({log!r}, "a") as log:
    print(os.path.basename(sys.argv[0]), *sys.argv[1:], sep="|", file=log)
{body}
"""
FAKE_BUILD = """
import pathlib
out = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
out.mkdir()
for name in {names}:
    (out / name).write_text("fake")
"""


def files(where: Path, config: dict[str, Any] = LLAMA, target: str = "26.07", **llm: Any) -> dict[str, str]:
    path = folder(where, config)
    model = ModelSpec.model_validate({"name": "My_Chat", "source": str(path), "engine": "tensorrt-llm", "llm": llm})
    language, release = source.read(path), releases.release(target)
    planned = settings.planned(model, language, release)
    found = written.files(model, Artifact(path, "huggingface"), language, planned, release)
    return {name: content.decode() for name, content in found.items()}


def fake(where: Path, name: str, body: str = "") -> Path:
    where.mkdir(exist_ok=True)
    program = where / name
    program.write_text(FAKE.format(python=sys.executable, log=str(where / "log"), body=body))
    program.chmod(0o755)
    return program


def bash(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """Variables of a machine with a fake TensorRT-LLM 1.2.1, whose programs tell their arguments to ``bin/log``."""
    fake(tmp_path / "bin", "trtllm-build", FAKE_BUILD.format(names=["config.json", "rank0.engine"]))
    fake(tmp_path / "bin", "python3", 'print("1.2.1" if sys.argv[1] == "-c" else "")')
    (tmp_path / "examples" / "models").mkdir(parents=True)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "TENSORRT_LLM_EXAMPLES": str(tmp_path / "examples"), "TMPDIR": str(tmp_path)}


def test_the_files_of_an_engine_that_is_still_to_be_built(tmp_path: Path) -> None:
    found = files(tmp_path)
    assert sorted(found) == ["build_engine.job.yaml", "build_engine.sh", "launch.sh"]
    assert "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3" in found["build_engine.sh"]
    assert str(tmp_path) not in "".join(found.values())
    assert files(tmp_path) == found


@pytest.mark.parametrize(
    ("config", "llm"),
    [
        (LLAMA, {}),
        (LLAMA, {"tp": 4, "quantization": "fp8"}),
        (LLAMA, {"tp": 8, "pp": 2}),
        (LLAMA, {"tp": 2, "launch": "orchestrator"}),
        (CHATGLM2, {"build_flags": ["--parallel_build --use_inflight_batching"]}),
    ],
)
def test_bash_and_yaml_parse(tmp_path: Path, config: dict[str, Any], llm: dict[str, Any]) -> None:
    for name, text in files(tmp_path, config, **llm).items():
        if name.endswith(".sh"):
            (tmp_path / name).write_text(text)
            checked = subprocess.run(["bash", "-n", str(tmp_path / name)], capture_output=True, text=True, check=False)
            assert checked.stderr == ""
            assert text.startswith("#!/usr/bin/env bash\n")
            assert "\nset -euo pipefail\n" in text
        else:
            documents = list(yaml.safe_load_all(text))
            assert all(document["kind"] for document in documents)


def test_the_script_builds_into_the_version_folder(tmp_path: Path, machine: dict[str, str]) -> None:
    model = folder(tmp_path, LLAMA, "a 'model'")
    place = tmp_path / "re po" / "My_Chat_tensorrt_llm"
    place.mkdir(parents=True)
    script = place / "build_engine.sh"
    script.write_text(files(tmp_path)["build_engine.sh"])
    done = bash(script, str(model), **machine)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"the engine is in {place / '1'}"
    assert sorted(p.name for p in place.rglob("*")) == ["1", "build_engine.sh", "config.json", "rank0.engine"]
    _, convert, build = [line.split("|") for line in (tmp_path / "bin/log").read_text().splitlines()]
    assert convert[:4] == [
        "python3",
        f"{tmp_path}/examples/models/core/llama/convert_checkpoint.py",
        "--model_dir",
        str(model),
    ]
    assert build[:3] == ["trtllm-build", "--checkpoint_dir", convert[5]]
    assert build[5:7] == ["--max_batch_size", "2048"]
    assert not Path(convert[5]).exists()


def test_the_script_refuses_what_cannot_work(tmp_path: Path, machine: dict[str, str]) -> None:
    script = tmp_path / "build_engine.sh"
    script.write_text(files(tmp_path)["build_engine.sh"])
    model = str(folder(tmp_path, LLAMA))
    assert "the Hugging Face folder is missing" in bash(script, **machine).stderr
    assert "there is no config.json in" in bash(script, str(tmp_path), **machine).stderr
    bare = {**machine, "TENSORRT_LLM_EXAMPLES": str(tmp_path / "none")}
    assert "there are no examples of TensorRT-LLM in" in bash(script, model, **bare).stderr
    fake(tmp_path / "bin", "python3", 'print("0.19.0")')
    refused = bash(script, model, **machine)
    assert refused.returncode == 1
    assert "TensorRT-LLM 0.19.0 is installed, and the engine is for 1.2.1: run this in nvcr.io/" in refused.stderr
    fake(tmp_path / "bin", "python3", "sys.exit(1)")
    assert "tensorrt_llm is not installed" in bash(script, model, **machine).stderr
    (tmp_path / "bin" / "trtllm-build").unlink()
    assert "trtllm-build is not on the PATH" in bash(script, model, **machine).stderr


def test_a_torn_build_leaves_no_engine(tmp_path: Path, machine: dict[str, str]) -> None:
    fake(tmp_path / "bin", "trtllm-build", FAKE_BUILD.format(names=["config.json"]))
    script = tmp_path / "build_engine.sh"
    script.write_text(files(tmp_path)["build_engine.sh"])
    torn = bash(script, str(folder(tmp_path, LLAMA)), str(tmp_path / "engine"), **machine)
    assert torn.returncode == 1
    assert "trtllm-build left no engine for rank 0" in torn.stderr
    assert list(tmp_path.glob("engine*")) == []


def test_the_job_names_its_container_gpus_and_claims(tmp_path: Path) -> None:
    job = yaml.safe_load(files(tmp_path, tp=4, pp=2, gpus_per_node=4)["build_engine.job.yaml"])
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("batch/v1", "Job", "my-chat-build-engine")
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
    assert container["command"] == ["bash", "/models/My_Chat_tensorrt_llm/build_engine.sh", "/huggingface"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 4}}
    claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "emptyDir" not in v}
    assert claims == {"huggingface": "my-chat-huggingface", "repository": "my-chat-repository"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("mode", ["leader", "orchestrator"])
def test_the_launch_script_starts_what_launch_tells(tmp_path: Path, mode: launch.Mode) -> None:
    fake(tmp_path / "bin", "mpirun", 'print(os.environ.get("TRTLLM_ORCHESTRATOR"))')
    script = tmp_path / "launch.sh"
    script.write_text(files(tmp_path, tp=2, launch=mode)["launch.sh"])
    done = bash(script, "--http-port=9000", PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert done.stdout.strip() == ("1" if mode == "orchestrator" else "None")
    words = (tmp_path / "bin/log").read_text().strip().split("|")
    expected = list(
        launch.launch("My_Chat_tensorrt_llm", EngineSettings(**{**vars(ONE), "tensor_parallel": 2}), mode).argv
    )
    assert words.pop(words.index("--http-port=9000")) == "--http-port=9000"
    assert words == expected


def test_several_machines_take_a_leader_worker_set(tmp_path: Path) -> None:
    *others, lws = yaml.safe_load_all(files(tmp_path, tp=8, pp=2)["leader_worker_set.yaml"])
    assert [one["kind"] for one in others] == ["ServiceAccount", "Role", "RoleBinding", "Service"]
    assert (lws["apiVersion"], lws["metadata"]["name"]) == ("leaderworkerset.x-k8s.io/v1", "my-chat")
    group = lws["spec"]["leaderWorkerTemplate"]
    assert group["size"] == 2
    leader, worker = (group[f"{role}Template"]["spec"] for role in ("leader", "worker"))
    assert leader["containers"][0]["readinessProbe"]["httpGet"]["port"] == "http"
    assert "readinessProbe" not in worker["containers"][0]
    assert leader["containers"][0]["command"][2] == (
        'PATH="/tools:$PATH" exec bash /models/My_Chat_tensorrt_llm/launch.sh'
    )
    for pod in (leader, worker):
        assert pod["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": 8}}
        assert {"repository", "shared-memory"} <= {volume["name"] for volume in pod["volumes"]}


def test_the_script_of_several_machines_starts_every_rank(tmp_path: Path) -> None:
    text = files(tmp_path, tp=8, pp=2)["launch.sh"]
    script = tmp_path / "launch.sh"
    script.write_text(text)
    for program in ("mpirun", "kubectl", "tritonserver"):
        fake(tmp_path / "bin", program)
    where = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(tmp_path), "HOSTS": ""}
    pod = {**where, "HOSTNAME": "my-chat-0", "LWS_GROUP_SIZE": "2"}
    assert bash(script, "--http-port=9000", **pod).returncode == 0
    told = [line.split("|") for line in (tmp_path / "bin/log").read_text().splitlines()]
    assert told[0] == ["kubectl", "exec", "my-chat-0-1", "--container=triton", "--", "true"]
    program, options = told[1][0], told[1][1:]
    assert (program, options[-4:]) == ("mpirun", ["bash", str(script), "--rank", "--http-port=9000"])
    assert options[options.index("-n") + 1] == "16"
    hosts = Path(options[options.index("--hostfile") + 1])
    assert hosts.read_text() == "my-chat-0 slots=8\nmy-chat-0-1 slots=8\n"
    assert "exec kubectl exec" in Path(options[options.index("plm_rsh_agent") + 1]).read_text()

    (tmp_path / "bin/log").unlink()
    for rank in ("0", "9"):
        bash(script, "--rank", "--http-port=9000", OMPI_COMM_WORLD_RANK=rank, **where)
    first, other = [line.split("|") for line in (tmp_path / "bin/log").read_text().splitlines()]
    assert first == [*launch.server("My_Chat_tensorrt_llm", 0), "--http-port=9000"]
    assert other == [*launch.server("My_Chat_tensorrt_llm", 9), *launch.WITHOUT_ENDPOINTS]

    assert bash(script, **{**where, "HOSTS": "a b"}).returncode == 0
    refused = bash(script, **{**where, "HOSTS": "a b c"})
    assert "launch.sh: there are 3 machines, and the engine takes 2" in refused.stderr
    assert "not in a LeaderWorkerSet" in bash(script, **where).stderr


def test_an_engine_takes_launch_files_alone_and_its_own_version(tmp_path: Path) -> None:
    path = folder(tmp_path, LLAMA)
    built = tensorrt_llm_engine.describe(engine(tmp_path / "engine", MODERN, *RANKS))
    model = ModelSpec(name="chat", source=str(built.path), engine="tensorrt-llm")
    found = EngineSettings(**built.facts["engine"])
    files = written.files(model, built, source.read(path), found, releases.release("26.07"))
    assert list(files) == ["launch.sh"]
    assert files["launch.sh"].count(b"-n 1 tritonserver") == 4
    older = changed(MODERN, "version", "1.2.0")
    found = EngineSettings(**tensorrt_llm_engine.describe(engine(tmp_path / "older", older, *RANKS)).facts["engine"])
    with pytest.raises(TargetError, match=r"built by TensorRT-LLM 1\.2\.0, and Triton 26\.07 has 1\.2\.1"):
        written.files(model, built, source.read(path), found, releases.release("26.07"))


def test_nasty_words_reach_the_program_as_they_are(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "tool")
    step = Step("tool", (str(tmp_path / "bin/tool"), f"{EXAMPLES}/{NASTY}", "--flag", NASTY, CHECKPOINT))
    script = tmp_path / "run.sh"
    script.write_text("EXAMPLES='an example'\nCHECKPOINT='a b'\n" + written.shell(step) + "\n", encoding="utf-8")
    assert bash(script).stderr == ""
    told = (tmp_path / "bin/log").read_text(encoding="utf-8").rstrip("\n").split("|")
    assert told == ["tool", f"an example/{NASTY}", "--flag", NASTY, "a b"]
    assert list(tmp_path.glob("x")) == []


def test_nasty_values_come_back_from_yaml(tmp_path: Path) -> None:
    values = {"name": "n", "resource": NASTY, "engine_model": NASTY, "image": NASTY, "mount": "/m: [", "gpus": 1}
    text = render("llm/build_engine.job.yaml.j2", **{**values, "resource": "n"}, source_mount=NASTY)
    pod = yaml.safe_load(text)["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == NASTY
    assert pod["containers"][0]["command"][1:] == [f"/m: [/{NASTY}/build_engine.sh", NASTY]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My_Chat", "my-chat"),
        ("a" * 100, "a" * 40),
        ("...", "model"),
        ("x.Y-9_", "x-y-9"),
        ("a" * 39 + "._b", "a" * 39),
    ],
)
def test_names_that_kubernetes_takes(name: str, expected: str) -> None:
    assert written.resource_name(name) == expected


def test_the_steps_of_the_script_are_those_of_the_recipe(tmp_path: Path) -> None:
    path = folder(tmp_path, CHATGLM2)
    model = ModelSpec.model_validate({"name": "My_Chat", "source": str(path), "engine": "tensorrt-llm"})
    language = source.read(path)
    planned = settings.planned(model, language, releases.release("26.07"))
    recipe = build_commands.recipe(model, language, planned)
    text = files(tmp_path, CHATGLM2)["build_engine.sh"]
    assert all(f"# - {note}\n" in text for note in recipe.notes)
    assert all(f'echo "{step.name} (' in text for step in recipe.steps)
    assert json.dumps("--chatglm_version chatglm2")[1:-1] in text
