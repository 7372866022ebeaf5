"""The configs of the engine path in front of the real server: it takes them as they are, and the ensemble streams.

The backend ``tensorrtllm`` and the Python models are stand-ins of this test with fixed answers; what is real is the
server, which checks configs, maps, ragged and reshaped tensors of both families of the contract.
"""

from __future__ import annotations

import json
import queue
import shutil
from typing import Any

import numpy as np
import pytest

from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import contract, engine_configs, parameters
from repo_builder.render import render_config
from repo_builder.server import embedded

pytestmark = pytest.mark.server

START = """
import json
import numpy as np
import triton_python_backend_utils as pb


def response(**named):
    return pb.InferenceResponse([pb.Tensor(name, array) for name, array in named.items()])


class TritonPythonModel:
"""
PREPROCESSING = """
    def execute(self, requests):
        return [self.answer(len(pb.get_input_tensor_by_name(one, "QUERY").as_numpy())) for one in requests]

    def answer(self, batch):
        one, words = np.ones((batch, 1), np.int32), np.zeros((batch, 2, 0), np.int32)
        return response(
            INPUT_ID=np.full((batch, 5), 7, np.int32), REQUEST_INPUT_LEN=5 * one, REQUEST_OUTPUT_LEN=4 * one,
            BAD_WORDS_IDS=words, STOP_WORDS_IDS=words, EMBEDDING_BIAS=np.zeros((batch, 0), np.float32),
            OUT_END_ID=2 * one, OUT_PAD_ID=2 * one, OUT_PROMPT_TABLE_EXTRA_IDS=np.zeros((batch, 0), np.uint64),
        )
"""
ENGINE = """
    def execute(self, requests):
        for one in requests:
            sender = one.get_response_sender()
            shapes = {tensor.name(): list(tensor.as_numpy().shape) for tensor in one.inputs()}
            for text in (json.dumps(shapes), "end"):
                ids = np.frombuffer(text.encode(), np.uint8).astype(np.int32)[None, None]
                sender.send(response(output_ids=ids, sequence_length=np.array([[ids.size]], np.int32)))
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
POSTPROCESSING = """
    def execute(self, requests):
        rows = [pb.get_input_tensor_by_name(one, "TOKENS_BATCH").as_numpy() for one in requests]
        return [response(OUTPUT=np.array([[bytes(ids[0].astype(np.uint8))] for ids in row], object)) for row in rows]
"""
BLS = """
    def execute(self, requests):
        for one in requests:
            one.get_response_sender().send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
MODELS = {"bls": BLS, "preprocessing": PREPROCESSING, "postprocessing": POSTPROCESSING, "ensemble": ""}
FAMILIES = {"old": ("0.19.0", "float16"), "new": ("1.2.1", "bfloat16")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, server_factory: Any) -> Any:
    folder = tmp_path_factory.mktemp("contract")
    for public, (version, dtype) in FAMILIES.items():
        settings = EngineSettings(version, "LlamaForCausalLM", 8, 64, 128, dtype=dtype)
        made = engine_configs.configs(
            public,
            settings,
            contract=contract.of(version),
            max_batch_size=8,
            decoupled=True,
            parameters=parameters.check({}, version, settings),
            preprocessing={},
            postprocessing={},
            bls={},
        )
        for role, config in made.items():
            files = folder / "models" / config.name / "1"
            files.mkdir(parents=True)
            (files.parent / "config.pbtxt").write_text(render_config(config), encoding="utf-8")
            if MODELS.get(role):
                (files / "model.py").write_text(START + MODELS[role], encoding="utf-8")
    backends = folder / "backends"
    shutil.copytree(embedded.prepare(frozenset({"python"})).backends, backends, symlinks=True)
    shutil.rmtree(backends / "tensorrtllm", ignore_errors=True)
    (backends / "tensorrtllm").mkdir()
    (backends / "tensorrtllm" / "model.py").write_text(START + ENGINE, encoding="utf-8")
    return server_factory(
        folder / "models", extra_args=[f"--backend-directory={backends}", "--disable-auto-complete-config"]
    )


def streamed(url: str, model: str, **given: np.ndarray) -> list[bytes]:
    from tritonclient import grpc
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, array in given.items():
        inputs.append(grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    answers: queue.Queue[Any] = queue.Queue()
    found: list[bytes] = []
    with grpc.InferenceServerClient(url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer(
            model, inputs, outputs=[grpc.InferRequestedOutput("text_output")], enable_empty_final_response=True
        )
        while True:
            result, error = answers.get(timeout=60)
            if error:
                raise error
            text = result.as_numpy("text_output")
            found += [] if text is None else [text[0, 0]]
            if result.get_response().parameters["triton_final_response"].bool_param:
                return found


@pytest.mark.parametrize("public", FAMILIES)
def test_the_ensemble_streams_and_hands_every_input_to_the_engine(server: Any, public: str) -> None:
    plain = {"text_input": np.array([[b"hi"]], object), "max_tokens": np.array([[4]], np.int32)}
    longest = {"old": "min_length", "new": "min_tokens"}[public]
    shapes, end = streamed(
        server.url.removeprefix("grpc://"),
        f"{public}_ensemble",
        **plain,
        temperature=np.array([[0.5]], np.float32),
        stream=np.array([[True]]),
        top_k=np.array([[1]], np.int32),
        **{longest: np.array([[2]], np.int32)},
    )
    assert end == b"end"
    assert json.loads(shapes) == {
        "input_ids": [1, 5],
        "input_lengths": [1],
        "request_output_len": [1],
        "bad_words_list": [1, 2, 0],
        "stop_words_list": [1, 2, 0],
        "embedding_bias": [1, 0],
        "end_id": [1],
        "pad_id": [1],
        "prompt_table_extra_ids": [1, 0],
        "temperature": [1],
        "streaming": [1],
        "runtime_top_k": [1],
        longest: [1],
    }


@pytest.mark.parametrize("public", FAMILIES)
def test_the_server_knows_the_config_as_it_was_written(server: Any, public: str) -> None:
    from tritonclient import grpc

    with grpc.InferenceServerClient(server.url.removeprefix("grpc://")) as client:
        config = client.get_model_config(f"{public}_tensorrt_llm").config
    assert config.backend == "tensorrtllm"
    assert config.model_transaction_policy.decoupled
    assert config.parameters["gpt_model_path"].string_value == f"/models/{public}_tensorrt_llm/1"
    assert "tokenizer_dir" in config.parameters
    names = [tensor.name for tensor in config.input]
    assert names == [t.name for t in contract.of(FAMILIES[public][0]).models["tensorrt_llm"].inputs]
