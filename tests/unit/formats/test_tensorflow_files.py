"""TensorFlow's files without TensorFlow: told apart, and refused before anything of them runs."""

from __future__ import annotations

import json
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest

from repo_builder import formats, spec
from repo_builder.errors import (
    ConversionError,
    PathEscapeError,
    RepoBuilderError,
    SignatureError,
    SourceCorruptError,
    SourceMissingError,
    SpecError,
    UnsafeSourceError,
)
from repo_builder.formats import frozen_graph, keras, savedmodel, tf_checkpoint, tflite
from repo_builder.pipeline import asked, unit

TABLE_END = bytes(40) + bytes.fromhex("57fb808b247547db")


def number(value: int) -> bytes:
    made = b""
    while value > 127:
        made, value = made + bytes([value & 127 | 128]), value >> 7
    return made + bytes([value])


def field(place: int, content: bytes) -> bytes:
    return number(place << 3 | 2) + number(len(content)) + content


def graph(*ops: str, inner: tuple[str, ...] = ()) -> bytes:
    nodes = b"".join(field(1, field(1, b"n") + field(2, op.encode()) + field(5, bytes(300))) for op in ops)
    function = b"".join(field(3, field(2, op.encode())) for op in inner)
    return nodes + field(2, field(1, function)) + field(4, number(8) + number(21))


def saved_model(folder: Path, *ops: str, inner: tuple[str, ...] = (), variables: bool = True) -> Path:
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\x08\x01" + field(2, field(2, graph(*ops, inner=inner))))
    if variables:
        (folder / "variables").mkdir()
        checkpoint(folder / "variables" / "variables")
    return folder


def checkpoint(prefix: Path, shards: int = 1) -> None:
    prefix.with_name(prefix.name + ".index").write_bytes(TABLE_END)
    for shard in range(shards):
        prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{shards:05}").write_bytes(bytes(64))


def refused(module: Any, path: Path, kind: type[RepoBuilderError], text: str) -> None:
    with pytest.raises(kind) as caught:
        module.describe(path)
    assert text in str(caught.value)
    assert caught.value.expected


class TestSavedModel:
    def test_the_folder_and_its_graph_file_are_the_same_model(self, tmp_path: Path) -> None:
        folder = saved_model(tmp_path / "net", "Placeholder", "VarHandleOp", "MatMul")
        for named in (folder, folder / "saved_model.pb"):
            name, path = formats.detect(str(named))
            found = formats.get(name).describe(path)
            assert (found.format, found.path) == ("savedmodel", folder)
            assert found.facts == {"kind": "savedmodel", "operators": 3}
        assert len(found.files) == 3
        before = found.digest()
        (folder / "variables" / "variables.data-00000-of-00001").write_bytes(bytes(63) + b"x")
        assert savedmodel.describe(folder).digest() != before

    def test_of_the_versions_of_a_served_folder_the_highest_is_taken(self, tmp_path: Path) -> None:
        for version in ("1", "9", "10", "tmp"):
            (tmp_path / "net").mkdir(exist_ok=True)
            saved_model(tmp_path / "net" / version, "MatMul", variables=False)
        name, path = formats.detect(str(tmp_path / "net"))
        assert (name, formats.get(name).describe(path).path) == ("savedmodel", tmp_path / "net" / "10")

    def test_parts_that_are_missing(self, tmp_path: Path) -> None:
        bare = saved_model(tmp_path / "a", "VarHandleOp", variables=False)
        refused(savedmodel, bare, SourceMissingError, "has no folder variables, and its graph has variables")
        assert savedmodel.describe(saved_model(tmp_path / "b", "MatMul", variables=False)).files == ("saved_model.pb",)
        folder = saved_model(tmp_path / "c", "VarHandleOp")
        (folder / "variables" / "variables.data-00000-of-00001").unlink()
        refused(savedmodel, folder, SourceMissingError, "has 0 of 1 files of values")
        (folder / "variables" / "variables.index").write_bytes(TABLE_END[:-1])
        refused(savedmodel, folder, SourceCorruptError, "does not end as a table of variables does")

    def test_values_in_another_folder_are_refused(self, tmp_path: Path) -> None:
        folder = saved_model(tmp_path / "net", "VarHandleOp")
        (folder / "variables").rename(tmp_path / "elsewhere")
        (folder / "variables").symlink_to(tmp_path / "elsewhere")
        refused(savedmodel, folder, PathEscapeError, "is a link to")

    def test_savers_belong_to_models_with_variables(self, tmp_path: Path) -> None:
        assert savedmodel.describe(saved_model(tmp_path / "net", "MatMul", inner=("SaveV2", "RestoreV2"))).files
        (tmp_path / "net.pb").write_bytes(graph("Placeholder", "MatMul", "SaveV2"))
        refused(frozen_graph, tmp_path / "net.pb", UnsafeSourceError, "has the operator SaveV2: it reaches for files")

    @pytest.mark.parametrize(
        "op",
        [
            *("PyFunc", "EagerPyFunc", "ReadFile", "WriteFile", "PrintV2", "WholeFileReaderV2", "TextLineDataset"),
            *("CreateSummaryFileWriter", "DebugIdentityV2", "InitializeTableFromTextFileV2", "LoadAndRemapMatrix"),
        ],
    )
    def test_graphs_that_reach_out_are_refused_inside_functions_too(self, tmp_path: Path, op: str) -> None:
        folder = saved_model(tmp_path / "net", "MatMul", inner=("Relu", op))
        refused(savedmodel, folder, UnsafeSourceError, f"has the operator {op}: it ")

    def test_a_graph_of_jax_is_told(self, tmp_path: Path) -> None:
        refused(savedmodel, saved_model(tmp_path / "net", "XlaCallModule"), ConversionError, "jax2onnx")

    def test_a_link_out_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("x")
        folder = saved_model(tmp_path / "net", "MatMul")
        (folder / "assets").symlink_to(tmp_path / "secret")
        refused(savedmodel, folder, PathEscapeError, "a link to")

    @pytest.mark.parametrize("size", [1, 7, 200, 400])
    def test_a_truncated_graph(self, tmp_path: Path, size: int) -> None:
        folder = saved_model(tmp_path / "net", "MatMul", "Relu")
        content = (folder / "saved_model.pb").read_bytes()
        (folder / "saved_model.pb").write_bytes(content[:size])
        refused(savedmodel, folder, SourceCorruptError, "saved_model.pb is truncated or no TensorFlow file")


class TestGraphs:
    def test_a_frozen_graph_and_its_chosen_outputs(self, tmp_path: Path) -> None:
        (tmp_path / "net.pb").write_bytes(graph("Placeholder", "MatMul", "Const"))
        model = spec.from_flags(str(tmp_path / "net.pb"), outputs=["softmax"]).models[0]
        source = unit.describe(model)
        assert source.facts == {"kind": "frozen_graph", "operators": 3, "options": {"outputs": ["softmax"]}}
        asked.check(model, source, "tensors")

    def test_a_savedmodel_names_its_outputs_itself(self, tmp_path: Path) -> None:
        model = spec.from_flags(str(saved_model(tmp_path / "net", "MatMul")), outputs=["y"]).models[0]
        with pytest.raises(SpecError, match="outputs has no effect here: its file names the outputs"):
            asked.check(model, unit.describe(model), "tensors")
        model = spec.from_flags(str(tmp_path / "net"), exporter="trace").models[0]
        with pytest.raises(SpecError, match="exporter has no effect here: a savedmodel model has one converter"):
            asked.check(model, unit.describe(model), "tensors")

    def test_files_of_other_kinds_say_what_they_are(self, tmp_path: Path) -> None:
        onnx.save(
            onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => () {}'),
            tmp_path / "n.pb",
        )
        refused(frozen_graph, tmp_path / "n.pb", SourceCorruptError, "it begins as an ONNX model does")
        refused(frozen_graph, tmp_path / "n.pb", SourceCorruptError, "name it n.onnx")
        saved = saved_model(tmp_path / "net", "MatMul") / "saved_model.pb"
        saved.rename(tmp_path / "s.pb")
        refused(frozen_graph, tmp_path / "s.pb", SourceCorruptError, "name it saved_model.pb")

    def test_a_checkpoint_with_a_config_of_its_own_is_no_folder_of_hugging_face(self, tmp_path: Path) -> None:
        (tmp_path / ".meta").write_bytes(field(2, graph("Placeholder", "VariableV2")))
        checkpoint(tmp_path / "x")
        (tmp_path / "x.index").rename(tmp_path / ".index")
        (tmp_path / "config.json").write_text("{}")
        assert formats.detect(str(tmp_path))[0] == "tf_checkpoint"

    def test_a_folder_of_hugging_face_with_weights_of_tensorflow_alone(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        (tmp_path / "tf_model.h5").write_bytes(b"x")
        refused(
            formats.get("huggingface"), tmp_path, SourceMissingError, "holds weights of TensorFlow alone (tf_model.h5)"
        )
        refused(formats.get("huggingface"), tmp_path, SourceMissingError, "from_tf=True).save_pretrained(folder)")

    def test_variables_lie_elsewhere(self, tmp_path: Path) -> None:
        (tmp_path / "net.pb").write_bytes(graph("Placeholder", "VariableV2"))
        refused(frozen_graph, tmp_path / "net.pb", SignatureError, "is a graph with variables (VariableV2)")

    @pytest.mark.parametrize("content", [b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0a\x85", b"x", b"\xff" * 40])
    def test_giant_sizes_and_other_files(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "net.pb").write_bytes(content)
        refused(frozen_graph, tmp_path / "net.pb", SourceCorruptError, "is truncated or no TensorFlow file")

    def test_a_checkpoint_by_each_of_its_names(self, tmp_path: Path) -> None:
        (tmp_path / "net.meta").write_bytes(field(2, graph("Placeholder", "VariableV2")))
        checkpoint(tmp_path / "net", shards=2)
        names = ("net.meta", "net.index", "net.data-00001-of-00002", "")
        for path in (tmp_path / name for name in names):
            name, found = formats.detect(str(path))
            artifact = formats.get(name).describe(found)
            assert (artifact.format, artifact.path) == ("tf_checkpoint", tmp_path / "net.meta")
            assert len(artifact.files) == 4
        (tmp_path / "net.data-00000-of-00002").unlink()
        refused(tf_checkpoint, tmp_path / "net.meta", SourceMissingError, "has 1 of 2 files of values")
        (tmp_path / "net.meta").unlink()
        refused(tf_checkpoint, tmp_path / "net.index", SourceMissingError, "its weights are there, its graph is not")

    def test_a_checkpoint_without_a_name(self, tmp_path: Path) -> None:
        (tmp_path / ".meta").write_bytes(field(2, graph("Placeholder", "VariableV2")))
        (tmp_path / ".index").write_bytes(TABLE_END)
        (tmp_path / ".data-00000-of-00001").write_bytes(bytes(64))
        for path in (tmp_path, tmp_path / ".meta", tmp_path / ".index"):
            name, found = formats.detect(str(path))
            artifact = formats.get(name).describe(found)
            assert artifact.files == (".meta", ".index", ".data-00000-of-00001")

    def test_a_folder_of_several_checkpoints(self, tmp_path: Path) -> None:
        for step in (1, 2):
            (tmp_path / f"net-{step}.meta").write_bytes(field(2, graph("MatMul")))
            checkpoint(tmp_path / f"net-{step}")
        refused(tf_checkpoint, tmp_path, SourceMissingError, "holds 2 checkpoints")
        assert tf_checkpoint.describe(tmp_path / "net-2.meta").files[1] == "net-2.index"


def archive(path: Path, config: Any = None, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("config.json", json.dumps(config or {"class_name": "Sequential", "config": {"layers": []}}))
        made.writestr("model.weights.h5", b"x")
        for name, content in members.items():
            made.writestr(name, content)
    return path


def hdf5(path: Path, content: bytes, eof: int | None = None) -> Path:
    size = 48 + len(content)
    head = b"\x89HDF\r\n\x1a\n" + bytes([2, 8, 8, 0]) + struct.pack("<QQQ", 0, 0, eof or size)
    path.write_bytes(head.ljust(48, b"\0") + content)
    return path


LAMBDA = {"class_name": "Lambda", "config": {"name": "evil", "function": {"class_name": "__lambda__"}}}


class TestKeras:
    def test_both_containers(self, tmp_path: Path) -> None:
        assert keras.describe(archive(tmp_path / "a.keras")).facts == {"kind": "keras", "container": "zip"}
        found = keras.describe(hdf5(tmp_path / "a.h5", b'model_config {"class_name": "Dense"}'))
        assert found.facts["container"] == "hdf5"
        assert formats.detect(str(tmp_path / "a.h5"))[0] == formats.detect(str(tmp_path / "a.keras"))[0] == "keras"

    def test_lambda_layers_are_code_at_any_depth(self, tmp_path: Path) -> None:
        nested = {"class_name": "Functional", "config": {"layers": [{"config": {"layers": [LAMBDA]}}]}}
        refused(keras, archive(tmp_path / "a.keras", nested), UnsafeSourceError, "the layer 'evil' is a Lambda")
        file = hdf5(tmp_path / "a.h5", b"model_config " + json.dumps(nested).encode())
        refused(keras, file, UnsafeSourceError, "is a Lambda: it carries Python code")

    def test_the_suffix_decides_as_it_does_for_keras(self, tmp_path: Path) -> None:
        file = archive(tmp_path / "a.keras").rename(tmp_path / "a.h5")
        refused(keras, file, SourceCorruptError, "is no HDF5 file")
        hdf5(tmp_path / "b.h5", b'model_config {"class_name": "Dense"}').rename(tmp_path / "b.keras")
        refused(keras, tmp_path / "b.keras", SourceCorruptError, "is truncated or no Keras file")

    @pytest.mark.parametrize("name", ["../../x", "/etc/x", "assets/../../x", "C:\\x", "..\\x"])
    def test_members_outside(self, tmp_path: Path, name: str) -> None:
        refused(keras, archive(tmp_path / "a.keras", **{name: "x"}), PathEscapeError, "which would lie outside")

    def test_a_link_in_the_archive(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(archive(tmp_path / "a.keras"), "a") as made:
            link = zipfile.ZipInfo("assets/x")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            made.writestr(link, "/etc/passwd")
        refused(keras, tmp_path / "a.keras", PathEscapeError, "(a link)")

    def test_files_that_are_not_whole(self, tmp_path: Path) -> None:
        content = archive(tmp_path / "a.keras").read_bytes()
        (tmp_path / "a.keras").write_bytes(content[:-30])
        refused(keras, tmp_path / "a.keras", SourceCorruptError, "is truncated or no Keras file")
        refused(keras, hdf5(tmp_path / "a.h5", b"model_config", eof=999), SourceCorruptError, "60 of 999 bytes")
        refused(keras, hdf5(tmp_path / "w.h5", b"weights"), SourceCorruptError, "holds weights alone, or other data")
        with zipfile.ZipFile(tmp_path / "b.keras", "w") as made:
            made.writestr("config.json", "{}")
        refused(keras, tmp_path / "b.keras", SourceCorruptError, "has no model.weights.h5 in it")

    def test_an_archive_that_unpacks_to_far_more(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keras, "_BYTES", 1 << 16)
        with zipfile.ZipFile(archive(tmp_path / "a.keras"), "a", zipfile.ZIP_DEFLATED) as made:
            made.writestr("assets/zeros", bytes(1 << 20))
        refused(keras, tmp_path / "a.keras", SourceCorruptError, "unpacks to far more than a model of its size")


def lite(path: Path, said: int, there: int) -> Path:
    """Model.buffers with one Buffer whose data has ``said`` bytes, of which ``there`` are in the file."""
    root = 4 + 4 + 14  # after the root offset and the identifier its vtable: 5 fields
    table = struct.pack("<i", 14) + struct.pack("<I", 4)  # the root table: vtable behind it, buffers
    vector = struct.pack("<II", 1, 12)  # one Buffer: a table 12 bytes after its offset
    vtable = struct.pack("<HHH", 6, 8, 4) + bytes(2)
    buffer = struct.pack("<iI", 8, 4)
    head = struct.pack("<I", root) + b"TFL3" + struct.pack("<7H", 14, 8, 0, 0, 0, 0, 4)
    path.write_bytes(head + table + vector + vtable + buffer + struct.pack("<I", said) + bytes(there))
    return path


class TestLite:
    def test_whole_and_truncated(self, tmp_path: Path) -> None:
        assert tflite.describe(lite(tmp_path / "a.tflite", 16, 16)).format == "tflite"
        refused(tflite, lite(tmp_path / "a.tflite", 16, 15), SourceCorruptError, "names weights beyond its end")
        content = lite(tmp_path / "a.tflite", 16, 16).read_bytes()
        (tmp_path / "a.tflite").write_bytes(content[:30])
        refused(tflite, tmp_path / "a.tflite", SourceCorruptError, "is truncated")
        (tmp_path / "a.tflite").write_bytes(b"PK\x03\x04" * 4)
        refused(tflite, tmp_path / "a.tflite", SourceCorruptError, "it lacks the identifier TFL3")
