"""The command line with real servers: build, serve, infer, validate, and what they say when it goes wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import models
import numpy as np
import pytest
from cli_process import Ended, command, environment, run, start

pytestmark = pytest.mark.server


def listing(folder: Path) -> dict[str, bytes]:
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def refused(ended: Ended, code: int, *texts: str) -> None:
    assert ended.code == code, ended.text
    assert [line[:7] for line in ended.err.splitlines()].count("error: ") == 1, ended.err
    assert "Traceback" not in ended.text
    for text in texts:
        assert text in ended.err


def random_onnx(path: Path) -> Path:
    """A model that answers otherwise each time."""
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("RandomNormalLike", ["x"], ["y"])
    tensors = [("x", TensorProto.FLOAT, ["batch", 3])], [("y", TensorProto.FLOAT, ["batch", 3])]
    onnx.save(models.onnx_model(*tensors, [node]), str(path))
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A folder with a proven repository ``r``, and what its build said."""
    place = tmp_path_factory.mktemp("cli")
    models.linear_onnx(place / "my model (1).onnx")
    np.save(place / "x.npy", np.ones((2, 4), np.float32))
    np.save(place / "wide.npy", np.ones((2, 5), np.float32))
    ended = run("build", "my model (1).onnx", "-o", "r", "--target", "24.10", "--report", "sub/report.json", cwd=place)
    assert ended.code == 0, ended.text
    return place, ended


@pytest.fixture(scope="module")
def serving(built: tuple[Path, Ended]) -> Iterator[tuple[str, str]]:
    """gRPC and HTTP addresses of ``repo-builder serve r``; ended by Ctrl-C, which is no failure."""
    place, _ = built
    process = start("serve", "r", "--grpc-port", "0", "--http-port", "0", "--metrics-port", "0", cwd=place)
    said = ""
    while "Ctrl-C stops it." not in said:
        line = process.stdout.readline()
        assert line, process.communicate()
        said += line
    assert said.startswith("serving r with tritonserver 2.51.0\n")
    assert f"\nElsewhere: tritonserver --model-repository={place / 'r'}\n" in said
    yield tuple(f"127.0.0.1:{port}" for port in re.findall(r"127\.0\.0\.1:(\d+)", said)[:2])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert err.endswith("stopped\n")
    assert "Traceback" not in err


def test_build_says_what_it_proved_and_what_to_type_next(built: tuple[Path, Ended]) -> None:
    place, ended = built
    assert ended.out.startswith(
        "my_model_1: proven\n"
        "  task        tensors (onnx files carry no task)\n"
        "  converted   by none: taken as it is, opset 17, IR 8\n"
    )
    for text in (
        "  served by   triton 2.51.0 (embedded, python 3.",
        "  against     the onnx file itself, in ONNX Runtime in process\n",
        "  y  max abs error ",
        "  latency     p50 ",
        "  limit       Python stand-ins served for the compiled backends onnxruntime\n",
        "\nNext:\n  repo-builder infer r my_model_1 --input x=FILE.npy\n  repo-builder serve r\n",
        f"  tritonserver --model-repository={place / 'r'}\n",
    ):
        assert text in ended.out
    stages = list(dict.fromkeys(line.split(": ")[1] for line in ended.err.splitlines()))
    assert stages == ["load", "convert", "plan", "reference", "serve", "prove", "write"]
    assert "\x1b" not in ended.text
    assert sorted(listing(place / "r")) == ["my_model_1/1/model.onnx", "my_model_1/config.pbtxt"]
    report = json.loads((place / "sub" / "report.json").read_text(encoding="utf-8"))
    assert report["passed"] is True
    assert report["models"]["my_model_1"]["requests"] == {"alone": 8, "batched": 2, "concurrent": 8}


def test_a_second_build_has_nothing_to_do_and_leaves_every_file(built: tuple[Path, Ended]) -> None:
    place, _ = built
    before = listing(place)
    ended = run("build", "my model (1).onnx", "-o", "r", "--target", "24.10", "--report", "sub/report.json", cwd=place)
    assert ended.code == 0
    assert ended.out.startswith("my_model_1: proven (unchanged, not built again)\n")
    assert ended.err == ""
    assert listing(place) == before


def test_infer_by_address(built: tuple[Path, Ended], serving: tuple[str, str]) -> None:
    place, _ = built
    for where in (serving[0], f"grpc://{serving[0]}"):
        ended = run("infer", where, "my_model_1", "--input", "x=x.npy", "--json", cwd=place)
        assert ended.code == 0, ended.text
        assert np.array(json.loads(ended.out)["y"]).shape == (2, 3)
    ended = run("infer", serving[0], "my_model_1", "--input", "x=x.npy", "--out", "answers", cwd=place)
    assert ended.out == ""
    assert "answers/y.npy float32[2, 3]" in ended.err
    ended = run("infer", serving[0], "my_model_1", "--input", "x=x.npy", cwd=place)
    assert ended.out.startswith("y float32[2, 3]\n[[")


@pytest.mark.parametrize(
    ("model", "given", "code", "texts"),
    [
        ("my_model_1", ["--input", "x=wide.npy"], 44, ["input 'x' was given shape [2, 5]", "x FP32[?, 4]"]),
        ("my_model_1", ["--input", "z=x.npy"], 44, ["the model has no input 'z'", "inputs x FP32[?, 4]"]),
        ("my_model_1", ["--text", "hello"], 2, ["--text does not fit 'my_model_1': its inputs are x FP32[?, 4]"]),
        ("nope", ["--input", "x=x.npy"], 44, ["'nope' is not found"]),
    ],
    ids=["wrong shape", "wrong name", "text", "unknown model"],
)
def test_infer_refuses(
    built: tuple[Path, Ended], serving: tuple[str, str], model: str, given: list[str], code: int, texts: list[str]
) -> None:
    refused(run("infer", serving[0], model, *given, cwd=built[0]), code, *texts)


def test_the_http_port_is_not_grpcs(built: tuple[Path, Ended], serving: tuple[str, str]) -> None:
    ended = run("infer", serving[1], "my_model_1", "--input", "x=x.npy", cwd=built[0])
    refused(ended, 43, f"no inference server answers at {serving[1]}", "rather than the one for HTTP (8000)")


def test_validate_by_address(built: tuple[Path, Ended], serving: tuple[str, str]) -> None:
    assert run("validate", "r", "--url", serving[0], "--quiet", cwd=built[0]) == Ended(0, "", "")
    ended = run("validate", "r", "--url", serving[0], "--json", cwd=built[0])
    assert json.loads(ended.out)["models"]["my_model_1"]["server"]["version"] == "2.51.0"
    assert ended.err == ""


def test_a_port_that_a_server_has(built: tuple[Path, Ended], serving: tuple[str, str]) -> None:
    port = serving[0].partition(":")[2]
    ended = run("serve", "r", "--grpc-port", port, "--http-port", "0", "--metrics-port", "0", cwd=built[0])
    refused(ended, 42, f"port {port} for gRPC cannot be used on 127.0.0.1: Address already in use")


def test_serve_shows_the_servers_own_words_for_a_broken_model(tmp_path: Path) -> None:
    models.linear_onnx(tmp_path / "m.onnx")
    assert run("build", "m.onnx", "-o", "r", "--no-verify", "-q", "--target", "24.10", cwd=tmp_path).code == 0
    config = tmp_path / "r" / "m" / "config.pbtxt"
    config.write_text(config.read_text(encoding="utf-8").replace("dims: [ 4 ]", "dims: [ 5 ]"), encoding="utf-8")
    ended = run("serve", "r", "--grpc-port", "0", "--http-port", "0", "--metrics-port", "0", cwd=tmp_path)
    refused(
        ended,
        41,
        "serve: the server ended while starting; its log says:",
        "failed to load 'm' version 1: ",
        "the model expects 2 dimensions (shape [-1,4])",
        "making complete shape [-1,5]",
    )
    assert "NVML" not in ended.err, "what every machine without a GPU says is no error"


def test_bad_models_of_a_spec_are_named_and_the_good_one_is_proven(tmp_path: Path) -> None:
    """One that the server does not load, one that answers wrongly, one that is fine: by two processes."""
    models.linear_onnx(tmp_path / "good.onnx")
    random_onnx(tmp_path / "random.onnx")
    (tmp_path / "s.yaml").write_text(
        """\
target: 24.10
models:
  - source: good.onnx
  - {source: good.onnx, name: on_gpu, config: {instance_group: [{kind: KIND_GPU, count: 1}]}}
  - source: random.onnx
""",
        encoding="utf-8",
    )
    ended = run("build", "s.yaml", "-o", "r", "--jobs", "2", "--json", cwd=tmp_path)
    assert ended.code == 51, ended.text
    found = json.loads(ended.out)
    assert {name: problem["exit_code"] for name, problem in found["failed"].items()} == {"on_gpu": 41, "random": 50}
    assert "has kind KIND_GPU but no GPUs are available" in found["failed"]["on_gpu"]["found"]
    assert found["failed"]["random"]["found"].startswith("output y: max abs error ")
    assert found["error"]["exit_code"] == 51
    assert found["error"]["expected"] == "all of 3 models; these are fine: good"
    assert found["passed"] is False
    assert found["models"]["good"]["passed"] is True
    assert {name.split("/")[0] for name in listing(tmp_path / "r")} == {"good"}
    assert run("validate", "r", "--quiet", cwd=tmp_path) == Ended(0, "", "")


def test_a_proof_that_fails_leaves_nothing(tmp_path: Path) -> None:
    random_onnx(tmp_path / "m.onnx")
    ended = run("build", "m.onnx", "-o", "r", "--target", "24.10", cwd=tmp_path)
    refused(
        ended, 50, "m: proof: output y: max abs error ", "(allowed: max_rel_error 0.0001)", "raise `tolerances:` only"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_the_server_starts(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    models.linear_onnx(tmp_path / "m.onnx")
    process = start("build", "m.onnx", "-o", "r", "--target", "24.10", cwd=tmp_path)
    while not (line := process.stderr.readline()).startswith("m: serve"):
        assert line, process.communicate()
    server = children(process.pid)
    end = time.monotonic() + 60
    while not server and time.monotonic() < end:
        time.sleep(0.01)
        server = children(process.pid)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "interrupted; what was there before is unchanged" in err
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert server
    end = time.monotonic() + 60
    while any(runs(pid) for pid in server):
        assert time.monotonic() < end, "the server goes too"
        time.sleep(0.05)


def children(pid: int) -> list[str]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return path.read_text(encoding="ascii").split() if path.exists() else []


def runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_two_builds_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        models.linear_onnx(tmp_path / f"{name}.onnx")
    both = [start("build", f"{n}.onnx", "-o", "r", "--target", "24.10", cwd=tmp_path) for n in ("a", "b")]
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert {name.split("/")[0] for name in listing(tmp_path / "r")} == {"a", "b"}
    assert run("validate", "r", "--quiet", cwd=tmp_path) == Ended(0, "", "")


def test_strange_tensors_are_served(tmp_path: Path) -> None:
    """Names with spaces and letters of other scripts, strings, an input that is an output and that nothing reads."""
    import onnx
    from onnx import TensorProto, helper

    relu = helper.make_node("Relu", ["ein gang/ü"], ["aus gang"])
    shape = ["batch", 3]
    tensors = [("ein gang/ü", TensorProto.FLOAT, shape), ("unused", TensorProto.INT8, shape)]
    model = models.onnx_model(tensors, [("aus gang", TensorProto.FLOAT, shape), tensors[1]], [relu])
    onnx.save(model, str(tmp_path / "odd.onnx"))
    same = helper.make_node("Identity", ["words"], ["said"])
    words = ("words", TensorProto.STRING, ["batch", 2])
    model = models.onnx_model([words], [("said", TensorProto.STRING, ["batch", 2])], [same])
    onnx.save(model, str(tmp_path / "strings.onnx"))
    (tmp_path / "s.yaml").write_text("target: 24.10\nmodels: [{source: odd.onnx}, {source: strings.onnx}]\n", "utf-8")
    ended = run("build", "s.yaml", "-o", "r", cwd=tmp_path)
    assert ended.code == 0, ended.text
    assert "  aus gang  max abs error 0.00e+00" in ended.out
    assert "  unused  equal" in ended.out
    assert "  said  equal" in ended.out


@pytest.mark.torch
@pytest.mark.slow
def test_names_that_an_ensemble_takes(tmp_path: Path) -> None:
    """The steps of ``a`` are models of their own: another model cannot have one of their names."""
    models.bert_folder(tmp_path / "bert")
    models.linear_onnx(tmp_path / "a_encoder.onnx")
    (tmp_path / "s.yaml").write_text("models: [{source: bert, name: a}, {source: a_encoder.onnx}]\n", "utf-8")
    ended = run("build", "s.yaml", "-o", "r", "--no-verify", cwd=tmp_path)
    refused(ended, 51, "model 'a_encoder' of 'a_encoder' already belongs to 'a'", "these are fine: a\n")
    assert {name.split("/")[0] for name in listing(tmp_path / "r")} == {"a", "a_encoder", "a_tokenizer"}


def test_a_terminal_gets_colours(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    done = subprocess.run(
        command("build", "nope.onnx"),
        cwd=tmp_path,
        env=environment(TERM="xterm-256color"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
        check=False,
    )
    os.close(follower)
    said = os.read(leader, 4096).decode()
    os.close(leader)
    assert done.returncode == 10
    assert "\x1b[1;31merror:\x1b[0m" in said
