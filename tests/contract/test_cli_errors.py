"""Bad input through the real command line: one clear message, the documented exit code, nothing half-written."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import models
import numpy as np
import pytest
from cli_process import Ended, run, start

from repo_builder.errors import all_errors

CODES = {cls.__name__: cls.exit_code for cls in all_errors()}


class Poison:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("poisoned",)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, most of them bad."""
    import onnx
    from onnx import TensorProto, helper

    folder = tmp_path_factory.mktemp("sources")
    whole = models.linear_onnx(folder / "good.onnx").read_bytes()
    models.linear_onnx(folder / "static.onnx", 2)
    for name, content in (
        ("empty.onnx", b""),
        ("truncated.onnx", whole[:60]),
        ("page.onnx", b"<!DOCTYPE html><html>Please log in</html>"),
        ("pointer.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        ("words.txt", b"hello"),
        ("pickled.pt", pickle.dumps(Poison())),
    ):
        (folder / name).write_bytes(content)

    def save(name, kind, nodes, *, inputs=True, outputs=("batch", 3)):
        tensors = [("x", kind, ["batch", 3])] if inputs else []
        onnx.save(models.onnx_model(tensors, [("y", kind, list(outputs))], nodes), str(folder / name))

    identity = [helper.make_node("Identity", ["x"], ["y"])]
    save("complex.onnx", TensorProto.COMPLEX64, identity)
    save("bf16.onnx", TensorProto.BFLOAT16, identity)
    save("unknown_op.onnx", TensorProto.FLOAT, [helper.make_node("NoSuchOp", ["x"], ["y"])])
    constant = helper.make_tensor("v", 1, [2], [1.0, 2.0])
    save("no_inputs.onnx", 1, [helper.make_node("Constant", [], ["y"], value=constant)], inputs=False, outputs=[2])
    (folder / "outside").mkdir()
    model = onnx.load(models.linear_onnx(folder / "outside" / "m.onnx", external=True), load_external_data=False)
    (folder / "outside" / "m.onnx.data").rename(folder / "secret.data")
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret.data"
    (folder / "outside" / "m.onnx").write_bytes(model.SerializeToString())
    with zipfile.ZipFile(folder / "poisoned.pt2", "w") as archive:
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as tensors:
            tensors.writestr("archive/data.pkl", pickle.dumps(Poison(), protocol=2))
            tensors.writestr("archive/version", "3")
        for name, content in (
            ("archive_format", b"pt2"),
            ("archive_version", b"0"),
            ("byteorder", b"little"),
            ("models/model.json", b"{}"),
            ("data/sample_inputs/model.pt", inner.getvalue()),
        ):
            archive.writestr(f"m/{name}", content)
    return folder


@pytest.fixture
def place(tmp_path: Path, sources: Path) -> Path:
    """An empty folder to run in, with ``m`` leading to the models."""
    (tmp_path / "m").symlink_to(sources)
    return tmp_path


@dataclass(frozen=True)
class Done:
    """What a command said, and what lay in its folder before and after."""

    ended: Ended
    before: dict[str, bytes]
    after: dict[str, bytes]


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Done]]]:
    """The commands of all tests that ask for ``done``, as many at once as there are cores."""

    def do(files: dict[str, bytes], arguments: list[str], folder: Path) -> Done:
        (folder / "m").symlink_to(sources)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        before = listing(folder)
        return Done(run(*arguments, cwd=folder), before, listing(folder))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            item.nodeid: pool.submit(
                do, item.callspec.params["files"], item.callspec.params["arguments"], tmp_path_factory.mktemp("run")
            )
            for item in request.session.items
            if "done" in getattr(item, "fixturenames", ()) and item.path == request.path
        }
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def done(request: pytest.FixtureRequest, running: dict[str, Future[Done]]) -> Done:
    return running[request.node.nodeid].result()


def listing(place: Path) -> dict[str, bytes]:
    """Everything but the models, and the lock, which names the last process that held it."""
    return {
        str(p.relative_to(place)): p.read_bytes() if p.is_file() else b"/"
        for p in sorted(place.rglob("*"))
        if p.name not in ("m", "lock")
    }


def refused(ended: Ended, kind: str, *texts: str) -> str:
    """Assert one message of one error, and return it."""
    assert ended.code == CODES[kind], ended.text
    assert [line[:7] for line in ended.err.splitlines()].count("error: ") == 1, ended.err
    assert "Traceback" not in ended.text
    assert "\x1b" not in ended.text, "no colours where nobody looks"
    assert ended.out == ""
    message = ended.err[ended.err.index("error: ") :]
    for text in texts:
        assert text in message
    return message


REFUSED_BUILDS: list[tuple[list[str], str, list[str]]] = [
    (["m/nope.onnx"], "SourceMissingError", ["nope: describe: there is no m/nope.onnx"]),
    (["m/god.onnx"], "SourceMissingError", ["(did you mean 'good.onnx'?)"]),
    (["m"], "SourceMissingError", ["holds no config.json", "name the file: m/"]),
    (["m/empty.onnx"], "SourceCorruptError", ["m/empty.onnx is empty (0 bytes)", "export or copy it again"]),
    (["m/truncated.onnx"], "SourceCorruptError", ["m/truncated.onnx", "truncated or no ONNX file"]),
    (["m/page.onnx"], "SourceCorruptError", ["m/page.onnx is a web page (HTML), not a model"]),
    (["m/pointer.onnx"], "SourceCorruptError", ["is a git-lfs pointer", "git lfs pull"]),
    (["m/words.txt"], "SourceCorruptError", ["no format takes m/words.txt", "an ONNX file (.onnx)"]),
    (
        ["m/unknown_op.onnx"],
        "SourceCorruptError",
        ["does not load unknown_op.onnx", "No Op registered for NoSuchOp"],
    ),
    (["m/pickled.pt"], "UnsafeSourceError", ["m/pickled.pt is a pickled Python object"]),
    (["m/poisoned.pt2"], "UnsafeSourceError", ["is a pickle that would run posix.mkdir when loaded"]),
    (["m/outside/m.onnx"], "PathEscapeError", ["names the file '../secret.data', which lies outside m/outside"]),
    (["m/complex.onnx"], "UnsupportedDtypeError", ["tensor 'x' has dtype COMPLEX64, which Triton does not have"]),
    (["m/bf16.onnx"], "UnsupportedDtypeError", ["tensor 'x' has dtype BF16"]),
    (["m/no_inputs.onnx"], "SignatureError", ["m/no_inputs.onnx has no inputs"]),
    (
        ["m/good.onnx", "--task", "tensor"],
        "UnknownTaskError",
        ["there is no task 'tensor' (did you mean 'tensors'?)", "one of tensors, "],
    ),
    (
        ["m/good.onnx", "--task", "sentence-embedding"],
        "UnknownTaskError",
        ["the task sentence-embedding does not take a model of the format onnx"],
    ),
    (["m/good.onnx", "--engine", "caffe"], "UsageError", ["'caffe' is not one of", "repo-builder build --help"]),
    (
        ["m/good.onnx", "--exporter", "dynamo"],
        "SpecError",
        ["exporter has no effect here: the onnx file is served"],
    ),
    (["m/good.onnx", "--engine", "torchscript"], "ConversionError", ["nothing converts onnx to torchscript"]),
    (["m/good.onnx", "--target", "24.1"], "TargetError", ["release '24.1' is unknown", "24.01 or 24.10"]),
    (["m/good.onnx", "--target", "99.99"], "TargetError", ["a release from 24.01 to "]),
    (
        ["m/good.onnx", "--name", "a/b"],
        "SpecError",
        ["name 'a/b' has characters that a model's folder cannot have"],
    ),
    (["m/good.onnx", "--name", "a" * 300], "SpecError", ["has 300 characters (at most 128)"]),
    (["m/good.onnx", "--jobs", "0"], "UsageError", ["'--jobs' / '-j'", "1"]),
    (["m/good.onnx", "--jobs", "two"], "UsageError", ["'--jobs' / '-j'"]),
    (["m/good.onnx", "--nope"], "UsageError", ["No such option", "--nope"]),
    ([], "UsageError", ["Missing argument 'MODEL|SPEC.yaml'"]),
    (["nope.yaml"], "SourceMissingError", ["spec: there is no file nope.yaml"]),
    (["m/good.onnx", "--out", "m/good.onnx"], "RepositoryError", ["m/good.onnx is a file"]),
    (["m/good.onnx", "--out", "m/good.onnx/models"], "RepositoryError", ["good.onnx is a file"]),
    (["m/good.onnx", "--out", "/"], "RepositoryError", ["/ is the root of a file system"]),
]


@pytest.mark.parametrize(
    ("files", "arguments", "kind", "texts"),
    [({}, ["build", *arguments, "--no-verify"], kind, texts) for arguments, kind, texts in REFUSED_BUILDS],
    ids=[" ".join(arguments)[:40] or "no model" for arguments, _, _ in REFUSED_BUILDS],
)
def test_build_refuses(done: Done, files: object, arguments: object, kind: str, texts: list[str]) -> None:
    refused(done.ended, kind, *texts)
    assert done.after == {}


@pytest.mark.parametrize("server", ["127.0.0.1:1", "127.0.0.1:word"])
def test_a_server_that_cannot_prove_is_named_before_anything_is_built(place: Path, server: str) -> None:
    ended = run("build", "m/good.onnx", "--server", server, cwd=place)
    if server.endswith("1"):
        refused(ended, "ServerUnavailableError", "no inference server answers at 127.0.0.1:1")
    else:
        refused(ended, "UsageError", "'127.0.0.1:word' is not a gRPC address")
    assert listing(place) == {}


HEAD = "models:\n  - source: m/good.onnx\n"


REFUSED_SPECS: list[tuple[str | bytes, str, list[str]]] = [
    (
        f"{HEAD}    engin: onnx\n",
        "SpecError",
        ["spec: s.yaml:3: models.0.engin: unknown key (did you mean 'engine'?)"],
    ),
    (f"{HEAD}    source: x\n", "SpecError", ["s.yaml:3:5: the key 'source' stands here twice"]),
    (f"{HEAD}    batching: {{dynamic: on}}\n", "SpecError", ["must be true or false, found 'on'"]),
    (f"{HEAD}    batching: {{max_batch_size: '8'}}\n", "SpecError", ["must be a number, found the string '8'"]),
    ("a: &a [x]\nb: [*a, *a]\n", "SpecError", ["s.yaml:2:5: aliases (*name) are not taken here"]),
    ("a: !!python/object/apply:os.mkdir [poisoned]\n", "SpecError", ["s.yaml:1:4: tags ("]),
    (b"models: \xff\n", "SpecError", ["s.yaml is not UTF-8 text"]),
    ("", "SpecError", ["s.yaml is empty", "a spec with `models:`"]),
    ("- m/good.onnx\n", "SpecError", ["s.yaml:1: must be a mapping of keys to values"]),
    ("models: " + "[" * 5000, "SpecError", ["s.yaml is nested too deeply"]),
    (b"#" * (1 << 21), "SpecError", ["s.yaml has 2,097,152 bytes", "at most 1 MiB"]),
    (f"{HEAD}target: 24.1\n", "TargetError", ["release '24.1' is unknown", "did you mean 24.01 or 24.10?"]),
    (f"{HEAD}    config: {{max_batch_siz: 4}}\n", "SpecError", ["(did you mean 'max_batch_size'?)"]),
    (
        f"{HEAD}    config: {{backend: nope, platform: ''}}\n",
        "TargetError",
        ["backend 'nope', which no image of release"],
    ),
    (
        f"{HEAD}    config: {{model_metrics: {{}}}}\ntarget: 24.10\n",
        "TargetError",
        ["release 24.10 (server 2.51.0) does not know model_metrics", "target 24.11 or newer"],
    ),
    (f"{HEAD}    tolerances: {{z: {{cosine: 1}}}}\n", "SpecError", ["the model has no output 'z'", "one of y"]),
    (f"{HEAD}    shapes: {{bach: {{min: 1, opt: 1, max: 1}}}}\n", "SpecError", ["(did you mean 'batch'?)"]),
    (f"{HEAD}    outputs: [z]\n", "SpecError", ["outputs has no effect here: its file names the outputs"]),
    (f"{HEAD}    step_configs: {{a: {{}}}}\n", "SpecError", ["step_configs has no effect here: the task tensors"]),
    (f"{HEAD}    samples: {{texts: [a]}}\n", "SpecError", ["samples.texts has no effect here"]),
    (
        f"{HEAD}    samples: {{arrays: [nope.npz]}}\n",
        "SourceMissingError",
        ["the sample file nope.npz does not exist"],
    ),
    (f"{HEAD}    inputs: [{{name: x, dtype: FP16, shape: [b, 4]}}]\n", "SignatureError", ["`inputs:` says x FP16"]),
    (
        "models:\n  - source: m/static.onnx\n    batching: {max_batch_size: 4}\n",
        "SignatureError",
        ["max_batch_size 4 was asked for, but the model has no batch dimension: axis 0 of input 'x' is static (2)"],
    ),
    ("models: [{source: m/good.onnx}, {source: m/good.onnx}]\n", "SpecError", ["two models are named 'good'"]),
]


@pytest.mark.parametrize(
    ("files", "arguments", "kind", "texts"),
    [
        (
            {"s.yaml": text if isinstance(text, bytes) else text.encode()},
            ["build", "s.yaml", "--no-verify"],
            kind,
            texts,
        )
        for text, kind, texts in REFUSED_SPECS
    ],
    ids=range(len(REFUSED_SPECS)),
)
def test_build_refuses_the_spec(done: Done, files: object, arguments: object, kind: str, texts: list[str]) -> None:
    refused(done.ended, kind, *texts)
    assert done.after == done.before


def test_an_old_repository_stays_as_it_is(place: Path) -> None:
    assert run("build", "m/good.onnx", "-o", "r", "--no-verify", "-q", cwd=place).code == 0
    before = listing(place)
    for source in ("m/truncated.onnx", "m/bf16.onnx"):
        assert run("build", source, "-o", "r", "--no-verify", "--name", "good", cwd=place).code in (11, 14)
    assert listing(place) == before


def test_a_file_of_the_user_in_the_way(place: Path) -> None:
    (place / "r" / "good").mkdir(parents=True)
    (place / "r" / "good" / "config.pbtxt").write_text("mine", encoding="utf-8")
    before = listing(place)
    ended = run("build", "m/good.onnx", "-o", "r", "--no-verify", cwd=place)
    refused(ended, "RepositoryError", "r holds what no build wrote so: good/config.pbtxt (unknown)")
    assert listing(place) == before


def test_one_bad_model_of_two(place: Path) -> None:
    (place / "s.yaml").write_text("models: [{source: m/good.onnx}, {source: m/bf16.onnx}]\n", encoding="utf-8")
    ended = run("build", "s.yaml", "-o", "r", "--no-verify", cwd=place)
    assert ended.code == CODES["SomeModelsFailedError"]
    assert ended.err.count("error: ") == 1
    assert "bf16: reference: tensor 'x' has dtype BF16" in ended.err
    assert "all of 2 models; these are fine: good" in ended.err
    assert ended.out.startswith("good: not proven\n")
    assert [p.name for p in (place / "r").iterdir()] == ["good"]


def test_names_that_clash(place: Path) -> None:
    (place / "s.yaml").write_text(
        "models: [{source: m/good.onnx}, {source: m/static.onnx, name: Good}]\n", encoding="utf-8"
    )
    refused(run("build", "s.yaml", "--no-verify", cwd=place), "SpecError", "'good' and 'Good' differ only by case")


@pytest.mark.parametrize(
    ("factory", "texts"),
    [
        ("raises", ["f.py:raises fails: line 8", "ValueError: kaput"]),
        ("leaves", ["f.py:leaves fails: line 12", "SystemExit: 7"]),
        ("nothing", ["f.py:nothing returns (NoneType)", "(module, example_inputs)"]),
        ("nope", ["f.py has no function 'nope'"]),
    ],
)
@pytest.mark.torch
def test_factories_of_a_user(place: Path, factory: str, texts: list[str]) -> None:
    write_factories(place)
    ended = run("build", f"f.py:{factory}", "--no-verify", cwd=place)
    refused(ended, "SpecError", *texts)
    assert listing(place).keys() == {"f.py"}


def write_factories(place: Path) -> None:
    models.factory_module(
        place / "f.py",
        """\
import sys
import time

import torch


def raises():
    raise ValueError("kaput")


def leaves():
    sys.exit(7)


def nothing():
    return None


def sleeps():
    open("started", "w").close()
    time.sleep(100)


def chatty():
    print("so much to say " * 1000)
    return torch.nn.Tanh(), (torch.ones(2, 4),)
""",
    )


@pytest.mark.torch
def test_stdout_holds_the_result_alone_however_much_a_model_prints(place: Path) -> None:
    write_factories(place)
    ended = run("inspect", "f.py:chatty", "--json", cwd=place)
    assert ended.code == 0
    assert json.loads(ended.out)["format"] == "factory"
    assert "so much to say" in ended.err


@pytest.mark.torch
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_a_model_is_loaded(place: Path, sent: signal.Signals, code: int) -> None:
    write_factories(place)
    process = start("build", "f.py:sleeps", cwd=place)
    await_file(process, place / "started")
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    assert "Traceback" not in err
    assert "interrupted; what was there before is unchanged" in err
    assert listing(place).keys() == {"f.py", "started"}


def await_file(process: subprocess.Popen[str], path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.torch
def test_interrupted_while_processes_convert(place: Path) -> None:
    """Ctrl-C reaches every process of the terminal's group: those that convert leave it to the first to end them."""
    models.factory_module(
        place / "f.py",
        """\
import os
import time

import torch


class Slow(torch.nn.Module):
    def forward(self, x):
        if torch.compiler.is_compiling():
            open(f"converts-{os.getpid()}", "w").close()
            time.sleep(100)
        return x * 2


def a():
    return Slow(), (torch.ones(2, 4),), {"x": {0: torch.export.Dim("batch")}}


b = a
""",
    )
    (place / "s.yaml").write_text("models: [{source: 'f.py:a'}, {source: 'f.py:b'}]\n", encoding="utf-8")
    process = start("build", "s.yaml", "--jobs", "2", "--no-verify", cwd=place)
    end = time.monotonic() + 180
    while len(found := list(place.glob("converts-*"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    children = [int(path.name.partition("-")[2]) for path in found]
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not (place / "model_repository").exists()
    assert not (place / "model_repository.build").exists()


def mounted(folder: Path, options: str) -> bool:
    return (
        shutil.which("mount") is not None
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )


@pytest.fixture(params=["size=64k", "ro"])
def mount(request: pytest.FixtureRequest, place: Path) -> Iterator[tuple[Path, str]]:
    folder = place / "mounted"
    folder.mkdir()
    if not mounted(folder, request.param):
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder, request.param
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_and_a_read_only_one(place: Path, mount: tuple[Path, str]) -> None:
    folder, options = mount
    if options == "ro":
        ended = run("build", "m/good.onnx", "-o", "mounted/r", "--no-verify", cwd=place)
        refused(ended, "RepositoryError", "the file system is read-only", "build into a folder that can be written")
        assert listing(folder) == {}
        return
    assert run("build", "m/good.onnx", "-o", "mounted/r", "--no-verify", "-q", cwd=place).code == 0
    before = listing(folder)
    with open(folder / "filler", "wb") as filler:
        filler.write(b"x" * (shutil.disk_usage(folder).free))
    ended = run("build", "m/static.onnx", "-o", "mounted/r", "--no-verify", cwd=place)
    refused(ended, "DiskFullError", "the disk is full at ", "0 bytes free; the repository stays whole")
    (folder / "filler").unlink()
    assert listing(folder) == before


def test_quiet_prints_nothing_on_success_and_errors_on_failure(place: Path) -> None:
    ended = run("build", "m/good.onnx", "--no-verify", "--quiet", cwd=place)
    assert ended == Ended(0, "", "")
    refused(run("build", "m/empty.onnx", "--quiet", cwd=place), "SourceCorruptError", "is empty")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["build", "m/empty.onnx", "--json"], "SourceCorruptError"),
        (["build", "m/good.onnx", "--json", "--engine", "caffe"], "UsageError"),
        (["build", "--json"], "UsageError"),
        (["build", "nope.yaml", "--json"], "SourceMissingError"),
        (["inspect", "m/complex.onnx", "--json"], "UnsupportedDtypeError"),
        (["infer", "m", "x", "--text", "a", "--json"], "RepositoryError"),
        (["validate", "m", "--json"], "RepositoryError"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_json_errors_are_one_document(place: Path, arguments: list[str], kind: str) -> None:
    ended = run(*arguments, cwd=place)
    found = json.loads(ended.out)["error"]
    assert ended.code == found["exit_code"] == CODES[kind]
    assert found["type"] == kind
    assert found["found"]
    assert set(found) == {"type", "exit_code", "found", "expected", "mend", "stage", "model"}
    assert ended.err == ""


def test_json_of_a_build_that_is_not_proven(place: Path) -> None:
    found = json.loads(run("build", "m/good.onnx", "--no-verify", "--json", cwd=place).out)
    assert found["passed"] is None, "not proven is neither passed nor failed"
    assert found["failed"] == {}
    assert found["models"]["good"]["limits"] == ["not served: built with --no-verify"]


def poisoned_array() -> bytes:
    array = np.empty(1, dtype=object)
    array[0] = Poison()
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


OTHER_VERBS: list[tuple[list[str], str, list[str]]] = [
    (["nope"], "UsageError", ["No such command 'nope'", "see `repo-builder --help`"]),
    (["inspect", "nope.onnx"], "SourceMissingError", ["there is no nope.onnx"]),
    (["serve", "nope"], "SourceMissingError", ["serve: there is no folder nope"]),
    (["serve", "m", "--grpc-port", "99999"], "UsageError", ["'--grpc-port'", "65535"]),
    (["validate", "nope"], "SourceMissingError", ["validate: there is no folder nope"]),
    (["validate", "m"], "RepositoryError", [".build holds no proof", "copy ", ".build along with it"]),
    (["validate", "m", "--url", "127.0.0.1:1"], "RepositoryError", ["holds no proof"]),
    (["infer", "nope", "x", "--text", "a"], "SourceMissingError", ["there is no folder nope"]),
    (["infer", "m", "x", "--text", "a"], "RepositoryError", ["m has no model 'x'", "folders with a config.pbtxt"]),
    (["infer", "m", "x"], "UsageError", ["no input was given", "--text TEXT or --input NAME=VALUE"]),
    (["infer", "m", "x", "--input", "x"], "UsageError", ["--input 'x' is not NAME=VALUE"]),
    (["infer", "m", "x", "--input", "x=nope.npy"], "SourceMissingError", ["there is no file nope.npy"]),
    (["infer", "m", "x", "--input", "x=words.npy"], "UsageError", ["words.npy is no array without pickles"]),
    (["infer", "m", "x", "--input", "x=poison.npy"], "UsageError", ["poison.npy is no array without pickles"]),
    (["infer", "grpc://127.0.0.1:1", "x", "--text", "a"], "ServerUnavailableError", ["127.0.0.1:1"]),
    (["infer", "http://127.0.0.1:1", "x", "--text", "a"], "UsageError", ["is not a gRPC address"]),
]


@pytest.mark.parametrize(
    ("files", "arguments", "kind", "texts"),
    [({"poison.npy": poisoned_array(), "words.npy": b"hello"}, *case) for case in OTHER_VERBS],
    ids=[" ".join(arguments) for arguments, _, _ in OTHER_VERBS],
)
def test_other_verbs_refuse(done: Done, files: object, arguments: object, kind: str, texts: list[str]) -> None:
    refused(done.ended, kind, *texts)
    assert done.after == done.before


def test_a_port_in_use(place: Path) -> None:
    assert run("build", "m/good.onnx", "-o", "r", "--no-verify", "-q", cwd=place).code == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("serve", "r", "--grpc-port", str(port), "--http-port", "0", "--metrics-port", "0", cwd=place)
    refused(ended, "PortInUseError", f"port {port} for gRPC cannot be used", "or 0 for any free one")


def test_a_damaged_proof(place: Path) -> None:
    assert run("build", "m/good.onnx", "-o", "r", "--no-verify", "-q", cwd=place).code == 0
    (place / "r.build" / "proof" / "good.npz").write_bytes(b"<html>")
    refused(run("validate", "r", cwd=place), "RepositoryError", "good.npz is not the proof that the build wrote")


def test_a_report_that_cannot_be_written(place: Path) -> None:
    (place / "folder").mkdir()
    ended = run("build", "m/good.onnx", "--no-verify", "--report", "folder", cwd=place)
    assert ended.code == 1
    assert "error: folder: Is a directory" in ended.err
    assert "Traceback" not in ended.err


def test_a_reader_that_leaves_early(place: Path) -> None:
    process = start("build", "--schema", cwd=place)
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(60)


def test_without_arguments_comes_the_help(place: Path) -> None:
    ended = run(cwd=place)
    assert ended.code == 0
    assert ended.out.startswith("Usage: repo-builder")
    assert ended.err == ""
