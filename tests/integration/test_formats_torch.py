"""The torch formats with real torch: signatures, outputs found by running, refusals that run nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from repo_builder.errors import (  # noqa: E402
    SignatureError,
    SourceCorruptError,
    SpecError,
    UnsafeSourceError,
    UnsupportedDtypeError,
)
from repo_builder.formats import exported_program, factory, torchscript  # noqa: E402
from repo_builder.formats.batch import prove_batch  # noqa: E402
from repo_builder.tensors import TensorSpec  # noqa: E402
from tests import models  # noqa: E402

pytestmark = pytest.mark.torch

X = np.arange(8, dtype=np.float32).reshape(2, 4) / 8
LINEAR = [TensorSpec("input", "FP32", ("batch", 4))]


def _expected() -> Any:
    with torch.no_grad():
        return models.torch_modules.linear()(torch.from_numpy(X)).numpy()


class Poison:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.marker,))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "ran"


class TestTorchScript:
    def test_a_file_with_inputs(self, tmp_path: Path) -> None:
        artifact = torchscript.describe(models.torchscript(tmp_path / "m.pt"), LINEAR)
        assert artifact.outputs == (TensorSpec("OUTPUT__0", "FP32", ("batch", 3)),)
        assert artifact.facts == {
            "arguments": ["input"],
            "takes": ["Tensor"],
            "returns": "Tensor",
            "sizes": {"batch": 2},
            "parameters": 15,
            "parameter_bytes": 60,
        }
        np.testing.assert_allclose(torchscript.run(artifact, {"input": X})["OUTPUT__0"], _expected(), atol=1e-6)
        assert prove_batch(artifact, torchscript.run).batch == "batch"
        program = torchscript.load(artifact)
        assert program.kind == "script"
        assert [tuple(e.shape) for e in program.examples] == [(2, 4)]

    def test_what_a_forward_takes_and_returns_is_told(self, tmp_path: Path) -> None:
        module = type("Pair", (torch.jit.ScriptModule,), {})()
        module.define(
            "def forward(self, input: Tensor, n: int = 2) -> Dict[str, Tensor]:\n    return {'a': input * n}\n"
        )
        module.save(str(tmp_path / "m.pt"))
        facts = torchscript.describe(tmp_path / "m.pt", LINEAR).facts
        assert (facts["takes"], facts["returns"]) == (["Tensor", "int"], "Dict[str, Tensor]")

    def test_without_inputs_the_arguments_are_listed(self, tmp_path: Path) -> None:
        path = models.torchscript(tmp_path / "m.pt", models.torch_modules.two_inputs())
        with pytest.raises(SignatureError) as caught:
            torchscript.describe(path)
        assert "TorchScript files carry no dtypes or shapes; add `inputs:` to the spec" in str(caught.value)
        assert "dtype and shape of x, y (m.pt)" in str(caught.value)

    def test_inputs_go_by_name_or_by_index(self, tmp_path: Path) -> None:
        path = models.torchscript(tmp_path / "m.pt", models.torch_modules.two_inputs())
        for names in (("y", "x"), ("INPUT__1", "INPUT__0")):
            artifact = torchscript.describe(path, [TensorSpec(name, "FP32", ("b", "w")) for name in names])
            assert [spec.name for spec in artifact.inputs] == list(reversed(names))
            assert [spec.shape for spec in artifact.outputs] == [("b", "w"), ("b",)]
        with pytest.raises(SignatureError, match=r"names 'yy', no argument of m.pt \(did you mean 'y'\?\)"):
            torchscript.describe(path, [TensorSpec("x", "FP32", ("b",)), TensorSpec("yy", "FP32", ("b",))])
        with pytest.raises(SignatureError, match="each of the arguments once, in order from the first: x, y"):
            torchscript.describe(path, [TensorSpec("y", "FP32", ("b", "w"))])

    def test_shapes_that_the_model_refuses(self, tmp_path: Path) -> None:
        path = models.torchscript(tmp_path / "m.pt")
        with pytest.raises(SignatureError, match=r"m.pt fails on inputs input float32\[2, 5\]"):
            torchscript.describe(path, [TensorSpec("input", "FP32", ("batch", 5))])

    def test_quantized_weights_are_taken(self, tmp_path: Path) -> None:
        quantized = torch.ao.quantization.quantize_dynamic(models.torch_modules.linear(), {torch.nn.Linear})
        artifact = torchscript.describe(models.torchscript(tmp_path / "m.pt", quantized), LINEAR)
        assert artifact.outputs[0].shape == ("batch", 3)

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickled_module_and_a_state_dict_are_told_apart(self, tmp_path: Path, zipped: bool) -> None:
        path = tmp_path / "m.pt"
        torch.save(models.torch_modules.linear(), path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            UnsafeSourceError, match=r"is a pickled Python object, no program: loading it would run torch"
        ):
            torchscript.describe(path, LINEAR)
        torch.save(models.torch_modules.linear().state_dict(), path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(SourceCorruptError, match=r"holds tensors alone \(a state_dict\)") as caught:
            torchscript.describe(path, LINEAR)
        assert "module.py:factory" in caught.value.mend

    def test_a_poisoned_pickle_does_not_run(self, tmp_path: Path, marker: Path) -> None:
        path = tmp_path / "m.pt"
        torch.save(Poison(marker), path)
        with pytest.raises(UnsafeSourceError, match=r"would run posix.mkdir"):
            torchscript.describe(path, LINEAR)
        path.write_bytes(pickle.dumps(Poison(marker)))
        with pytest.raises(UnsafeSourceError, match="would run"):
            torchscript.describe(path, LINEAR)
        assert not marker.exists()

    def test_programs_that_touch_files_are_refused(self, tmp_path: Path) -> None:
        class Saves(torch.nn.Module):
            def forward(self, x):
                torch.save(x, "somewhere")
                return x

        path = models.torchscript(tmp_path / "m.pt", Saves())
        with pytest.raises(UnsafeSourceError, match=r"uses '.save': TorchScript operators of that name"):
            torchscript.describe(path, LINEAR)

    def test_truncated_and_foreign_files(self, tmp_path: Path) -> None:
        path = models.torchscript(tmp_path / "m.pt")
        whole = path.read_bytes()
        for size in (1, 4, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(SourceCorruptError, match="is no whole zip archive"):
                torchscript.describe(path, LINEAR)
        path.write_bytes(b"junk" + whole)
        with pytest.raises((UnsafeSourceError, SourceCorruptError)):
            torchscript.describe(path, LINEAR)
        models.exported_program(tmp_path / "e.pt2").rename(path)
        with pytest.raises(SourceCorruptError, match=r"is a torch.export program.*\n.*\n.*rename it to .pt2"):
            torchscript.describe(path, LINEAR)

    def test_arguments_that_are_no_tensors(self, tmp_path: Path) -> None:
        class Lists(torch.nn.Module):
            def forward(self, xs: list[torch.Tensor]):
                return xs[0]

        with pytest.raises(SignatureError, match=r"argument 'xs' of m.pt is List\[Tensor\]"):
            torchscript.describe(models.torchscript(tmp_path / "m.pt", Lists()), LINEAR)


def rewrite(source: Path, target: Path, edit: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of an archive; ``edit`` gets each member's name without the root, and gives its new content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            content = edit(info.filename.split("/", 1)[1], old.read(info))
            if content is not None:
                new.writestr(info.filename, content)
    return target


def _poisoned_samples(marker: Path) -> Callable[[str, bytes], bytes]:
    buffer = io.BytesIO()
    torch.save(((torch.ones(2, 4), Poison(marker)), {}), buffer)
    return lambda name, content: buffer.getvalue() if name == "data/sample_inputs/model.pt" else content


def _bare_pickle(marker: Path) -> Callable[[str, bytes], bytes]:
    poison = pickle.dumps(Poison(marker), protocol=0)
    return lambda name, content: poison if name == "data/sample_inputs/model.pt" else content


def _pickled_weight(marker: Path) -> Callable[[str, bytes], bytes]:
    buffer = io.BytesIO()
    torch.save(Poison(marker), buffer)

    def edit(name: str, content: bytes) -> bytes:
        if name == "data/weights/weight_0":
            return buffer.getvalue()
        return (
            content.replace(b'"use_pickle": false', b'"use_pickle": true') if name.endswith("config.json") else content
        )

    return edit


def _graph(change: Callable[[dict[str, Any]], None]) -> Callable[[str, bytes], bytes]:
    def edit(name: str, content: bytes) -> bytes:
        if name != "models/model.json":
            return content
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return edit


def _expression(marker: Path) -> Callable[[str, bytes], bytes]:
    def change(program: dict[str, Any]) -> None:
        size = program["graph_module"]["graph"]["tensor_values"]["input"]["sizes"][0]
        size["as_expr"]["expr_str"] = f"__import__('os').mkdir({str(marker)!r})"

    return _graph(change)


def _guard(marker: Path) -> Callable[[str, bytes], bytes]:
    def change(program: dict[str, Any]) -> None:
        program["guards_code"] = [f"__import__('os').mkdir({str(marker)!r})"]

    return _graph(change)


class TestExportedProgram:
    def test_the_signature_is_told_by_the_file(self, tmp_path: Path) -> None:
        artifact = exported_program.describe(models.exported_program(tmp_path / "m.pt2"))
        (symbol,) = artifact.facts["sizes"]
        assert artifact.inputs == (TensorSpec("input", "FP32", (symbol, 4)),)
        assert artifact.outputs == (TensorSpec("output", "FP32", (symbol, 3)),)
        assert artifact.facts["parameters"] == 15
        assert artifact.facts["parameter_bytes"] == 60
        np.testing.assert_allclose(exported_program.run(artifact, {"input": X})["output"], _expected(), atol=1e-6)
        assert prove_batch(artifact, exported_program.run).batch == symbol
        json.dumps(dict(artifact.facts))

    def test_the_older_layout(self, tmp_path: Path, marker: Path) -> None:
        from torch._export.serde.serialize import serialize

        program = torch.export.export(models.torch_modules.linear(), (torch.ones(2, 4),))
        parts = serialize(program)
        poison = io.BytesIO()
        torch.save((Poison(marker), {}), poison)
        for name, samples in (("old", parts.example_inputs), ("bad", poison.getvalue())):
            with zipfile.ZipFile(tmp_path / f"{name}.pt2", "w") as archive:
                archive.writestr("serialized_exported_program.json", parts.exported_program)
                archive.writestr("serialized_state_dict.pt", parts.state_dict)
                archive.writestr("serialized_constants.pt", parts.constants)
                archive.writestr("serialized_example_inputs.pt", samples)
                archive.writestr("version", "8.20")
        artifact = exported_program.describe(tmp_path / "old.pt2")
        assert artifact.inputs == (TensorSpec("input", "FP32", (2, 4)),)
        with pytest.raises(
            UnsafeSourceError, match=r"serialized_example_inputs.pt:data.pkl is a pickle that would run"
        ):
            exported_program.describe(tmp_path / "bad.pt2")
        assert not marker.exists()

    def test_describing_does_not_import_torch(self, tmp_path: Path) -> None:
        path = models.exported_program(tmp_path / "m.pt2")
        code = (
            "import sys; from pathlib import Path; from repo_builder.formats import exported_program; "
            f"exported_program.describe(Path({str(path)!r})); print('torch' in sys.modules)"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.strip() == "False"

    def test_shared_dims_keep_one_name_and_the_spec_renames_them(self, tmp_path: Path) -> None:
        batch, width = torch.export.Dim("batch"), torch.export.Dim("width")
        shapes = ({0: batch, 1: width},) * 2
        path = models.exported_program(
            tmp_path / "m.pt2", models.torch_modules.two_inputs(), (torch.ones(2, 4),) * 2, shapes
        )
        artifact = exported_program.describe(path, [TensorSpec("x", "FP32", ("b", "w"))])
        assert [spec.shape for spec in artifact.inputs] == [("b", "w")] * 2
        assert [spec.shape for spec in artifact.outputs] == [("b", "w"), ("b",)]
        assert artifact.facts["sizes"] == {"b": 2, "w": 4}
        assert prove_batch(artifact, exported_program.run).batch == "b"

    def test_computed_dims_guards_and_dict_outputs(self, tmp_path: Path) -> None:
        class Halves(torch.nn.Module):
            def forward(self, x):
                half = x.reshape(x.shape[0], x.shape[1] // 2, 8) if x.shape[1] % 2 == 0 else x
                return {"half": half, "twice": torch.cat([x, x], 1)}

        dynamic = torch.export.Dim.DYNAMIC
        path = models.exported_program(
            tmp_path / "m.pt2", Halves(), (torch.ones(2, 6, 4),), ({0: dynamic, 1: dynamic},)
        )
        artifact = exported_program.describe(path)
        batch = artifact.inputs[0].shape[0]
        assert [(o.name, o.shape) for o in artifact.outputs] == [
            ("half", (batch, "half_dim1", "half_dim2")),
            ("twice", (batch, "twice_dim1", 4)),
        ]
        result = exported_program.run(artifact, {"x": np.ones((3, 8, 4), np.float32)})
        assert result["half"].shape == (3, 4, 8)
        with pytest.raises(SignatureError, match=r"m.pt2 fails on inputs x float32\[3, 7, 4\]"):
            exported_program.run(artifact, {"x": np.ones((3, 7, 4), np.float32)})

    def test_poison_runs_in_torch_and_not_here(self, tmp_path: Path) -> None:
        good = exported_program.describe(models.exported_program(tmp_path / "good.pt2"))
        poisons = (_poisoned_samples, _pickled_weight, _expression, _guard)
        paths = {tmp_path / f"{p.__name__}.pt2": tmp_path / f"ran{p.__name__}" for p in poisons}
        for poison, (path, marker) in zip(poisons, paths.items(), strict=True):
            rewrite(good.path, path, poison(marker))
        code = "import contextlib, sys, torch\nfor path in sys.argv[1:]:\n  with contextlib.suppress(Exception):\n"
        code += "    torch.export.load(path).module()(torch.ones(2, 4))"
        subprocess.run([sys.executable, "-W", "ignore", "-c", code, *map(str, paths)], capture_output=True, check=True)
        for path, marker in paths.items():
            assert marker.exists(), f"{path.name} runs where nobody looks"
            marker.rmdir()
            with pytest.raises(UnsafeSourceError):
                exported_program.describe(path)
            with pytest.raises(UnsafeSourceError):
                exported_program.load(dataclasses.replace(good, path=path, files=(path.name,)))
            assert not marker.exists()

    def test_a_bare_pickle_inside_is_refused(self, tmp_path: Path, marker: Path) -> None:
        path = rewrite(models.exported_program(tmp_path / "g.pt2"), tmp_path / "m.pt2", _bare_pickle(marker))
        with pytest.raises(UnsafeSourceError, match=r"m.pt2:data/sample_inputs/model.pt is a bare pickle"):
            exported_program.describe(path)
        assert not marker.exists()

    @pytest.mark.parametrize(
        ("member", "text"),
        [
            ("data/aotinductor/model/x.so", "is an AOTInductor package: it holds compiled machine code"),
            ("data/constants/custom_obj_0", "has the member data/constants/custom_obj_0"),
            ("models/other.json", "has the member models/other.json"),
            ("../outside", "is an unusual zip archive"),
        ],
    )
    def test_members_that_do_not_belong(self, tmp_path: Path, member: str, text: str) -> None:
        path = models.exported_program(tmp_path / "m.pt2")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"m/{member}", b"x")
        with pytest.raises(UnsafeSourceError) as caught:
            exported_program.describe(path)
        assert text in str(caught.value)

    def test_repeated_members_are_refused(self, tmp_path: Path) -> None:
        path = models.exported_program(tmp_path / "m.pt2")
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("m/models/model.json", b"{}")
        with pytest.raises(UnsafeSourceError, match="a name occurs twice"):
            exported_program.describe(path)

    def test_truncated_and_foreign_files(self, tmp_path: Path) -> None:
        path = models.exported_program(tmp_path / "m.pt2")
        whole = path.read_bytes()
        for size in (1, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(SourceCorruptError, match="is no whole zip archive"):
                exported_program.describe(path)
        models.torchscript(tmp_path / "t.pt").rename(path)
        with pytest.raises(SourceCorruptError, match=r"rename it to .pt"):
            exported_program.describe(path)

    @pytest.mark.parametrize("dtype", ["complex64", "float8_e4m3fn"])
    def test_dtypes_that_triton_lacks(self, tmp_path: Path, dtype: str) -> None:
        class Cast(torch.nn.Module):
            def forward(self, x):
                return x.to(getattr(torch, dtype))

        path = models.exported_program(tmp_path / "m.pt2", Cast(), (torch.ones(2),), None)
        with pytest.raises(UnsupportedDtypeError, match=f"tensor 'output' of m.pt2 has dtype {dtype}"):
            exported_program.describe(path)

    def test_keyword_inputs_are_refused(self, tmp_path: Path) -> None:
        program = torch.export.export(models.torch_modules.linear(), (), kwargs={"input": torch.ones(2, 4)})
        torch.export.save(program, tmp_path / "m.pt2")
        with pytest.raises(SignatureError, match=r"m.pt2 takes nested or keyword inputs"):
            exported_program.describe(tmp_path / "m.pt2")


def _factory(tmp_path: Path, body: str, before: str = "") -> Path:
    text = f"import torch\nfrom torch.export import Dim\n{before}\n\ndef factory():\n    {body}\n"
    return Path(f"{models.factory_module(tmp_path / 'm.py', text)}:factory")


NET = "net = torch.nn.Linear(4, 3)"


class TestFactory:
    def test_a_factory(self, tmp_path: Path) -> None:
        artifact = factory.describe(Path(f"{models.factory_module(tmp_path / 'm.py')}:factory"))
        assert artifact.path == tmp_path / "m.py"
        assert artifact.files == ("m.py",)
        assert artifact.inputs == (TensorSpec("x", "FP32", ("batch", 4)),)
        assert artifact.outputs == (TensorSpec("output", "FP32", ("batch", 3)),)
        assert prove_batch(artifact, factory.run).batch == "batch"

    @pytest.mark.parametrize(
        ("shapes", "expected"),
        [
            ("{'input': {0: Dim('n')}}", ("n", 4)),
            ("({0: Dim('n')},)", ("n", 4)),
            ("[{0: 'n'}]", ("n", 4)),
            ("((Dim('n'), None),)", ("n", 4)),
            ("{'input': [Dim.AUTO, Dim.STATIC]}", ("input_dim0", 4)),
            ("({0: Dim.DYNAMIC, 1: 4},)", ("input_dim0", 4)),
            ("{'input': None}", (2, 4)),
            ("None", (2, 4)),
            ("(None,)", (2, 4)),
        ],
    )
    def test_dynamic_shapes_in_every_form(self, tmp_path: Path, shapes: str, expected: tuple[Any, ...]) -> None:
        path = _factory(tmp_path, f"return torch.nn.Linear(4, 3), (torch.ones(2, 4),), {shapes}")
        artifact = factory.describe(path)
        assert artifact.inputs[0].shape == expected
        assert artifact.outputs[0].shape == (expected[0], 3)

    def test_a_shapes_collection(self, tmp_path: Path) -> None:
        body = "x = torch.ones(2, 4); s = torch.export.ShapesCollection(); s[x] = {0: Dim('n')}; "
        artifact = factory.describe(_factory(tmp_path, f"{body}return torch.nn.Linear(4, 3), (x,), s"))
        assert artifact.inputs[0].shape == ("n", 4)

    def test_examples_by_name_skip_what_has_a_default(self, tmp_path: Path) -> None:
        net = "class N(torch.nn.Module):\n    def forward(self, a, b=None, c=None):\n"
        net += "        return {'sum': a + c, 'none': b}"
        body = "return N(), {'c': torch.ones(2, 3), 'a': torch.ones(2, 3)}, {'a': {0: 'n'}, 'c': {0: 'n'}}"
        artifact = factory.describe(_factory(tmp_path, body, net))
        assert [spec.name for spec in artifact.inputs] == ["a", "c"]
        assert artifact.outputs == (TensorSpec("sum", "FP32", ("n", 3)),)
        result = factory.run(artifact, {"a": np.ones((1, 3), np.float32), "c": np.zeros((1, 3), np.float32)})
        np.testing.assert_array_equal(result["sum"], np.ones((1, 3), np.float32))

    def test_random_weights_are_made_once(self, tmp_path: Path) -> None:
        artifact = factory.describe(_factory(tmp_path, "return torch.nn.Linear(4, 3), torch.ones(2, 4)"))
        inputs = {"input": np.ones((2, 4), np.float32)}
        np.testing.assert_array_equal(factory.run(artifact, inputs)["output"], factory.run(artifact, inputs)["output"])

    def test_neighbours_can_be_imported(self, tmp_path: Path) -> None:
        (tmp_path / "my_net_of_test.py").write_text("import torch\n\ndef net():\n    return torch.nn.Linear(4, 3)\n")
        body = "from my_net_of_test import net; return net(), (torch.ones(2, 4),)"
        assert factory.describe(_factory(tmp_path, body)).facts["module"] == "Linear"
        assert str(tmp_path) not in sys.path

    @pytest.mark.parametrize(
        ("body", "error", "text"),
        [
            (
                "return 1 / 0",
                SpecError,
                "m.py:factory fails: line 6 (return 1 / 0): ZeroDivisionError: division by zero",
            ),
            ("import nowhere_at_all", SpecError, "ModuleNotFoundError: No module named 'nowhere_at_all'"),
            ("raise SystemExit(3)", SpecError, "SystemExit: 3"),
            ("return (", SpecError, "m.py does not import: line 6 of"),
            ("return 3", SpecError, "returns (int)"),
            ("return torch.nn.Linear(4, 3)", SpecError, "returns (Linear)"),
            (f"{NET}; return net, ()", SignatureError, "gives no example inputs"),
            (f"{NET}; return net, 3", SignatureError, "the example inputs of"),
            (f"{NET}; return net, (3,)", SignatureError, "the example of 'input' in"),
            (f"{NET}; return net, (torch.ones(2, 4),) * 2", SignatureError, "gives 2 example inputs, forward takes 1"),
            (f"{NET}; return net, {{'inptu': torch.ones(2, 4)}}", SignatureError, "(did you mean 'input'?)"),
            (f"{NET}; return net, (torch.ones(2, 5),)", SpecError, "the module on its examples: RuntimeError"),
            (f"{NET}; return net, torch.ones(2, 4), 3", SignatureError, "dynamic_shapes of"),
            (f"{NET}; return net, torch.ones(2, 4), {{'y': None}}", SignatureError, "names 'y', which is no input"),
            (f"{NET}; return net, torch.ones(2, 4), ({{5: 'n'}},)", SignatureError, "names axis 5 of 'input'"),
            (
                f"{NET}; return net, torch.ones(2, 4), ({{1: 'n'}},)",
                SignatureError,
                "fails on inputs input float32[2, 8]",
            ),
            (
                "return torch.nn.Identity(), torch.ones(2, dtype=torch.complex64)",
                UnsupportedDtypeError,
                "input 'input' of",
            ),
            (
                "return torch.nn.Identity(), torch.ones(2, dtype=torch.bfloat16)",
                UnsupportedDtypeError,
                "is BF16, which numpy cannot hold",
            ),
        ],
    )
    def test_what_is_wrong_is_said_in_one_message(self, tmp_path: Path, body: str, error: Any, text: str) -> None:
        with pytest.raises(error) as caught:
            factory.describe(_factory(tmp_path, body))
        assert text in str(caught.value)
        assert "Traceback" not in str(caught.value)

    def test_an_unknown_function_names_the_others(self, tmp_path: Path) -> None:
        models.factory_module(tmp_path / "m.py")
        with pytest.raises(SpecError, match=r"has no function 'factroy' \(did you mean 'factory'\?\)"):
            factory.describe(Path(f"{tmp_path / 'm.py'}:factroy"))
