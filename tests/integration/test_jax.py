"""JAX's models, made and answered by JAX in its own environment, served and proved by the real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from repo_builder import errors, formats, pipeline
from repo_builder.convert import framework_to_onnx
from repo_builder.formats import framework_process, jax
from repo_builder.tensors import TensorSpec

pytestmark = pytest.mark.slow

MODELS = Path(__file__).parents[1] / "jax_models.py"


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    yield
    framework_process.close_all()


def path(factory: str) -> Path:
    return Path(f"{MODELS}:{factory}")


@pytest.mark.parametrize(
    ("factory", "inputs", "outputs"),
    [
        ("function", ["x FP32[batch, 4]"], ["output FP32[batch, 3]"]),
        (
            "nnx_module",
            ["features FP32[batch, 8]"],
            ["hidden FP32[batch, 16]", "label INT32[batch]", "scores FP32[batch, 5]"],
        ),
        ("linen_module", ["image FP32[batch, 16, 16, 3]"], ["output FP32[batch, 3]"]),
        (
            "attention",
            ["mask INT32[batch, length]", "ids INT32[batch, length]"],
            ["output_0 FP32[batch, length, 4]", "output_1 FP32[batch, 16]"],
        ),
        ("control_flow", ["x FP32[batch, 6]"], ["output_0 FP32[batch]", "output_1 FP32[batch, 6]"]),
        ("numbers", ["x FP32[batch, 6]"], []),
        ("double", ["x FP64[batch, 4]", "n INT64[batch]"], ["output_0 FP64[batch, 4]", "output_1 INT64[batch]"]),
        ("single", ["x INT32[4]"], ["output INT32[4]"]),
        ("extra_package", ["x FP32[2, 4]"], ["output FP32[2, 4]"]),
    ],
)
def test_what_a_factory_gives_is_converted_and_equals_jax(
    factory: str, inputs: list[str], outputs: list[str], tmp_path: Path
) -> None:
    source = formats.opened(jax.describe(path(factory)))
    assert list(map(str, source.inputs)) == inputs
    assert not outputs or list(map(str, source.outputs)) == outputs
    made = framework_to_onnx.convert(source, tmp_path / "model.onnx", opset=20, ir_version=9)
    assert max(made.provenance["max_abs_error"].values()) < 1e-5
    assert made.provenance["jax"] == "0.10.2"
    assert made.provenance["cases"] >= 4


@pytest.mark.parametrize(
    ("factory", "error", "found", "mend"),
    [
        ("python_branch", errors.SignatureError, "TracerBoolConversionError", "jax.lax.cond"),
        ("unbound", errors.SpecError, "a linen module without its variables", "module.bind(variables)"),
        ("random_key", errors.UnsupportedDtypeError, "'key' of", "keep it inside the function"),
        ("two_sizes", errors.SignatureError, "give 'batch' both 2 and 3", ""),
        ("half", errors.UnsupportedDtypeError, "BF16", "cast"),
        ("crashes", errors.FrameworkError, "SIGSEGV", "read "),
        ("raises", errors.SpecError, "(return undefined_name  # noqa: F821): NameError", "run the file with Python"),
        ("lacks_a_package", errors.SpecError, "No module named 'einops_that_is_not_there'", "# /// script"),
        ("nowhere", errors.SpecError, "has no function 'nowhere'", ""),
    ],
)
def test_a_factory_that_cannot_be_served_is_told_in_one_message(
    factory: str, error: type[errors.RepoBuilderError], found: str, mend: str
) -> None:
    with pytest.raises(error) as caught:
        formats.opened(jax.describe(path(factory)))
    assert found in caught.value.found
    assert mend in caught.value.mend


def test_a_jax_factory_is_served_and_proved_and_built_anew_when_its_weights_change(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        '# /// script\n# dependencies = ["toolz==1.1.0"]\n# ///\n'  # the environment of the other tests
        "import pathlib\n"
        "import jax.numpy as jnp\n"
        "import numpy as np\n"
        "def net():\n"
        "    weights = np.load(pathlib.Path(__file__).parent / 'weights.npz')\n"
        "    return lambda x: jnp.tanh(x @ weights['kernel']), np.ones((2, 4), np.float32), {'x': {0: 'batch'}}\n"
    )
    np.savez(tmp_path / "weights.npz", kernel=np.eye(4, dtype=np.float32))
    source, out = f"{tmp_path / 'net.py'}:net", tmp_path / "repository"
    built = pipeline.build(source, out, cpus=1)
    assert not built.failed
    report = built.reports["net"]
    assert report["passed"]
    assert "JAX 0.10.2" in report["reference"]
    assert pipeline.build(source, out, cpus=1).steps[0].unchanged
    np.savez(tmp_path / "weights.npz", kernel=2 * np.eye(4, dtype=np.float32))
    again = pipeline.build(source, out, cpus=1)
    assert not again.steps[0].unchanged
    assert again.reports["net"]["passed"]
    shutil.rmtree(out)


def test_the_specs_inputs_give_a_free_axis_one_size() -> None:
    given = TensorSpec("x", "FP32", (7, 4))
    assert str(formats.opened(jax.describe(path("function"), [given])).inputs[0]) == "x FP32[7, 4]"
