"""Writes one small TensorFlow model: ``python tensorflow_models.py KIND PATH``, run with TensorFlow's own Python."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

os.environ.update({"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"})

import h5py
import keras
import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
RNG = np.random.default_rng(7)


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def saved_model(path: str) -> None:
    """A batch of rows: two outputs, one of them integers."""
    module = tf.Module()
    module.w = tf.Variable(weights(4, 3))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = tf.nn.softmax(x @ module.w)
        return {"scores": scores, "best": tf.argmax(scores, axis=1)}

    tf.saved_model.save(module, path, signatures={"serving_default": serve})


def control_flow(path: str) -> None:
    """A branch on a sum and a loop whose length an input gives; its inputs are sorted by name."""
    module = tf.Module()
    module.w = tf.Variable(0.3 * weights(4, 4))

    @tf.function(
        input_signature=[tf.TensorSpec([None, 4], tf.float32, name="b"), tf.TensorSpec([1], tf.int32, name="a")]
    )
    def serve(b: tf.Tensor, a: tf.Tensor) -> dict[str, tf.Tensor]:
        def step(i: tf.Tensor, h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return i + 1, tf.tanh(h @ module.w)

        h = tf.cond(tf.reduce_sum(b) > 0, lambda: b * 2.0, lambda: 1.0 - b)
        _, h = tf.while_loop(lambda i, _: i < a[0], step, [0, h])
        return {"y": h}

    tf.saved_model.save(module, path, signatures={"serving_default": serve})


def old_objects(path: str) -> None:
    """A SavedModel whose objects do not load any more, and whose graph is whole."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved_model(path)
    file = Path(path) / "saved_model.pb"
    made = SavedModel.FromString(file.read_bytes())
    made.meta_graphs[0].object_graph_def.nodes[0].children[0].node_id = 4000
    file.write_bytes(made.SerializeToString())


def saver_in_answer(path: str) -> None:
    """A signature that writes a file whenever it is asked: ``PWNED`` beside the model."""
    module = tf.Module()
    module.w = tf.Variable(weights(4, 3))
    target = str(Path(path).with_name("PWNED"))

    @tf.function
    def write(x: tf.Tensor) -> tf.Tensor:
        tf.raw_ops.SaveV2(prefix=target, tensor_names=["x"], shape_and_slices=[""], tensors=[x])
        return x

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": write(x) @ module.w}

    tf.saved_model.save(module, path, signatures={"serving_default": serve})


def _with_savers(path: str, extra: str) -> None:
    """A SavedModel of TensorFlow 1 with an operator of a saver of its own: see ``extra``."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    target = str(Path(path).with_name("PWNED"))
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        w = v1.get_variable("w", initializer=weights(2, 3))
        write = tf.raw_ops.SaveV2(prefix=target, tensor_names=["w"], shape_and_slices=[""], tensors=[tf.ones([2, 3])])
        read = tf.raw_ops.RestoreV2(prefix=target, tensor_names=["w"], shape_and_slices=[""], dtypes=[tf.float32])
        with tf.control_dependencies([write] if extra == "answer" else read if extra == "read" else []):
            y = tf.identity(x @ w, name="y")
        session.run(v1.global_variables_initializer())
        start = tf.group(write, name="start") if extra == "start" else None
        v1.saved_model.simple_save(session, path, {"x": x}, {"y": y}, legacy_init_op=start)
    file = Path(path) / "saved_model.pb"
    made = SavedModel.FromString(file.read_bytes())
    for node in made.meta_graphs[0].graph_def.node:
        if extra == "restore" and node.name == "save/restore_all":
            node.input.append(f"^{write.name}")
        if extra == "elsewhere" and node.name == "save/RestoreV2":
            node.input[0] = read[0].op.inputs[0].op.name
    file.write_bytes(made.SerializeToString())


def saver_v1_answer(path: str) -> None:
    _with_savers(path, "answer")


def saver_v1_read(path: str) -> None:
    _with_savers(path, "read")


def saver_v1_start(path: str) -> None:
    """Written while it is loaded, by its initialisation."""
    _with_savers(path, "start")


def saver_v1_restore(path: str) -> None:
    """Written while it is loaded, by what restores its variables."""
    _with_savers(path, "restore")


def saver_v1_elsewhere(path: str) -> None:
    """Its variables are read from a file that it names itself."""
    _with_savers(path, "elsewhere")


def saver_v1_unused(path: str) -> None:
    """Operators of a saver that nothing runs."""
    _with_savers(path, "unused")


def texts(path: str) -> None:
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"length": tf.strings.length(text)}

    tf.saved_model.save(module, path, signatures={"serving_default": serve})


def graph(training: bool) -> tf.Tensor:
    x = v1.placeholder(tf.float32, [None, 6, 6, 2], name="model/image")
    if training:
        is_training = v1.placeholder(tf.bool, [], name="is_training")
    k = v1.get_variable("k", initializer=weights(3, 3, 2, 4))
    h = tf.nn.relu(tf.nn.conv2d(x, k, 1, "SAME"))
    if training:
        h = tf.cond(is_training, lambda: tf.nn.dropout(h, 0.5), lambda: h)
    h = tf.reduce_mean(h, [1, 2])
    w = v1.get_variable("w", initializer=weights(4, 3))
    y = tf.nn.softmax(h @ w, name="model/probabilities")
    if training:
        loss = tf.reduce_mean(y)
        v1.train.AdamOptimizer().minimize(loss)
    return y


def frozen(path: str) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        graph(False)
        session.run(v1.global_variables_initializer())
        made = v1.graph_util.convert_variables_to_constants(
            session, session.graph.as_graph_def(), ["model/probabilities"]
        )
        Path(path).write_bytes(made.SerializeToString())


def switches(path: str) -> None:
    """Booleans that are switches, with a default of their own too, and one of unknown rank that is data."""
    v1.disable_control_flow_v2()
    with tf.Graph().as_default() as made:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        normalize = v1.placeholder_with_default(tf.constant(True), [], name="normalize")
        training = v1.placeholder(tf.bool, name="training")
        chosen = v1.placeholder(tf.bool, name="chosen")
        y = tf.where(normalize, x / 255.0, x)
        y = v1.cond(training, lambda: y * 0.0, lambda: y)
        tf.identity(tf.where(tf.ensure_shape(chosen, [None, 2]), y, -y), name="y")
        Path(path).write_bytes(made.as_graph_def().SerializeToString())


def checkpoint(path: str) -> None:
    """TF1, in the middle of its training: gradients, Adam's slots, a switch for dropout, control flow of version 1."""
    v1.disable_control_flow_v2()
    v1.disable_resource_variables()
    with tf.Graph().as_default(), v1.Session() as session:
        graph(True)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, path.removesuffix(".meta"))


def keras_sequential(path: str) -> None:
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(3)]
    keras.Sequential([keras.Input((8, 8, 2), name="image"), *layers]).save(path)


def keras_functional(path: str) -> None:
    """Two inputs of one free length, two outputs, a recurrent layer."""
    keras.utils.set_random_seed(4)
    ids, mask = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), name="mask")
    h = keras.layers.Multiply()([keras.layers.Embedding(10, 5)(ids), keras.layers.Reshape((-1, 1))(mask)])
    states = keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True))(h)
    states = keras.layers.Dense(2, name="states")(states)
    last = keras.layers.Dense(4, name="last", activation="softmax")(keras.layers.LSTM(3)(h))
    keras.Model([ids, mask], [states, last]).save(path)


def keras_lambda(path: str) -> None:
    layer = keras.layers.Lambda(lambda x: __import__("os").system("touch PWNED") or x, output_shape=(3,), name="evil")
    keras.Sequential([keras.Input((3,)), layer]).save(path)


def _changed(path: str, config: dict | None = None, **layer: object) -> None:
    """An archive whose configuration says something else of its second layer."""
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")]).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    told = json.loads(members["config.json"])
    told["config"]["layers"][1].update(registered_name=None, **layer)
    told["config"]["layers"][1]["config"].update(config or {})
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "config.json": json.dumps(told).encode()}.items():
            archive.writestr(name, content)


def keras_foreign(path: str) -> None:
    """Its layer is a function of another package."""
    _changed(path, module="subprocess", class_name="Popen")


def keras_tensorflow(path: str) -> None:
    """Its layer opens files: of TensorFlow, but not of Keras."""
    _changed(path, module="tensorflow.io.gfile", class_name="GFile")


def keras_settings(path: str) -> None:
    """Its layer is a function of Keras that allows what is refused by default."""
    _changed(path, module="keras.config", class_name="enable_unsafe_deserialization")


def keras_saved_model(path: str) -> None:
    """Its layer is a SavedModel that lies elsewhere."""
    _changed(path, {"filepath": "elsewhere"}, module="keras.layers", class_name="TFSMLayer")


def keras_vocabulary(path: str) -> None:
    """Its layer reads its words from a file that lies elsewhere."""
    _changed(path, {"vocabulary": "/etc/hostname"}, module="keras.layers", class_name="StringLookup")


def keras_hidden_lambda(path: str) -> None:
    """An HDF5 file that writes the word Lambda with an escape of JSON."""
    keras_lambda(path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = (
            file.attrs["model_config"].replace("Lambda", "\\u004cambda").replace("__lamb", "\\u005f_lamb")
        )
    data = Path(path).read_bytes()
    Path(path).write_bytes(
        data.replace(b'"Lambda"', b'"Dense "').replace(b'"__lambda__"', b'"__dense___"')
    )  # what the old attribute left behind


def keras_weights(path: str) -> None:
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)


def tflite(path: str) -> None:
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    made = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    Path(path).write_bytes(made)


def tflite_quantised(path: str) -> None:
    """Every tensor is quantised, its input and output too."""
    keras.utils.set_random_seed(6)
    layers = [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Sequential([keras.Input((8, 8, 2)), *layers]))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([weights(1, 8, 8, 2)] for _ in range(16))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    Path(path).write_bytes(converter.convert())


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
