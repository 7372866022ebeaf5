"""Causal language models with their cache as tensors: stateless behind a real server, they say what transformers says.

The client of these tests is a loop that sends every answer's cache back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ServerFactory

from repo_builder import client, pipeline, proof, spec
from repo_builder.cli import printing
from repo_builder.convert import onnx_to_onnx
from repo_builder.formats import onnx as onnx_format
from tests import tiny_transformers

pytestmark = [pytest.mark.server, pytest.mark.torch]

ONE_LAYER = {"gpt2": {"n_layer": 1, "tie_word_embeddings": False}}
TWO_LAYERS: dict[str, dict[str, Any]] = {"gpt2": {"tie_word_embeddings": False}, "llama": {}, "qwen2": {}}
STEPS = 8
PROMPTS = [[3, 7, 11, 19], [5], [8, 8, 40, 41, 42, 43, 44], [100, 90, 80], [17, 23], [61, 62, 63, 64, 65], [9], [2, 4]]
_QUEUE_US = 10_000


def _build(folder: Path, architectures: dict[str, dict[str, Any]]) -> pipeline.Result:
    """PyTorch with one thread, as tiny matrices gain nothing from two."""
    import torch

    models = []
    for name, config in architectures.items():
        tiny_transformers.save(name, tiny_transformers.CAUSAL_LM, folder / name, **config)
        models.append({"source": str(folder / name), "name": name, "task": "text-generation", "cpus": 1})
        models[-1]["batching"] = {"max_queue_delay_microseconds": _QUEUE_US}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pipeline.build(spec.Spec.model_validate({"models": models}), folder / "repository")
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("causal")


@pytest.fixture(scope="module")
def built(folder: Path) -> pipeline.Result:
    return _build(folder, ONE_LAYER)


@pytest.fixture(scope="module")
def triton(server_factory: ServerFactory, built: pipeline.Result) -> Iterator[client.Client]:
    with client.connect(f"127.0.0.1:{server_factory(built.repository).ports.grpc}") as connected:
        yield connected


class Decoder:
    """Greedy generation by calls that know nothing of each other."""

    def __init__(self, triton: client.Client, model: str) -> None:
        self.triton, self.model = triton, model
        self.caches = [i for i in triton.metadata(model).inputs if i.name.startswith("past_key_values.")]
        self.positions = any(i.name == "position_ids" for i in triton.metadata(model).inputs)

    def first(self, prompts: Sequence[Sequence[int]]) -> dict[str, np.ndarray[Any, Any]]:
        """The first call's inputs: prompts padded on the left, no past."""
        longest = max(map(len, prompts))
        ids = np.array([[0] * (longest - len(p)) + list(p) for p in prompts], dtype=np.int64)
        mask = np.array([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], dtype=np.int64)
        empty = {i.name: np.zeros((len(prompts), i.shape[1], 0, i.shape[3]), np.float32) for i in self.caches}
        return {**self._tokens(ids, mask), **empty}

    def next(self, inputs: dict[str, Any], answer: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        ids = answer["logits"][:, -1:].argmax(-1)
        mask = np.concatenate([inputs["attention_mask"], np.ones_like(ids)], 1)
        past = {n.replace("present", "past_key_values"): a for n, a in answer.items() if n != "logits"}
        return {**self._tokens(ids, mask), **past}

    def call(self, inputs: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        return dict(self.triton.infer(self.model, inputs))

    def generate(self, prompts: Sequence[Sequence[int]], steps: int = STEPS) -> list[list[int]]:
        inputs, said = self.first(prompts), []
        for _ in range(steps):
            inputs = self.next(inputs, self.call(inputs))
            said.append(inputs["input_ids"][:, 0])
        return [list(map(int, row)) for row in np.stack(said, 1)]

    def _tokens(self, ids: Any, mask: Any) -> dict[str, Any]:
        where = np.maximum(mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
        return {"input_ids": ids, "attention_mask": mask, **({"position_ids": where} if self.positions else {})}


def _generated(folder: Path, prompts: Sequence[Sequence[int]], steps: int = STEPS) -> list[list[int]]:
    """By transformers, each prompt alone."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config = transformers.GenerationConfig()
    said = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        with torch.no_grad():
            found = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=steps,
                pad_token_id=0,
            )
        said.append(found[0, len(prompt) :].tolist())
    return said


def _assert_proven(result: pipeline.Result, name: str) -> None:
    assert not result.failed, {n: str(e) for n, e in result.failed.items()}
    report = result.reports[name]
    assert report["passed"]
    assert "greedy tokens equal to generate()" in report["reference"]
    assert report["engine"]["exporter"] == "dynamo"
    assert all(o["limits"] == {"max_rel_error": 1e-4} for o in report["outputs"].values())
    stored = proof.load(result.repository.with_name("repository.build") / "proof" / f"{name}.npz")
    shapes = {
        (
            c.inputs["past_key_values.0.key"].shape[2],
            c.inputs["input_ids"].shape[1],
            c.inputs["attention_mask"].shape[1],
        )
        for c in stored.cases
    }
    assert all(past + new == total for past, new, total in shapes)
    assert any(past == 0 and new > 1 for past, new, _ in shapes), "no prompt in one call"
    assert any(past > 0 and new == 1 for past, new, _ in shapes), "no further token"
    assert any(past > 0 and new > 1 for past, new, _ in shapes), "no prompt in two calls"


def _assert_greedy(triton: client.Client, name: str, folder: Path) -> None:
    wanted = _generated(folder, PROMPTS)
    assert len({tuple(row) for row in wanted}) > len(PROMPTS) // 2, "the model says the same to everything"
    assert len({token for row in wanted for token in row}) > STEPS
    decoder = Decoder(triton, name)
    assert [decoder.generate([prompt])[0] for prompt in PROMPTS[:3]] == wanted[:3]
    for size in (2, 5, 8):
        assert decoder.generate(PROMPTS[:size]) == wanted[:size]


def test_it_is_proven_against_transformers(built: pipeline.Result) -> None:
    _assert_proven(built, "gpt2")
    config = (built.repository / "gpt2" / "config.pbtxt").read_text(encoding="utf-8")
    assert "max_batch_size: 32" in config
    assert "state" not in config


def test_batches_fed_back_say_what_generate_says(triton: client.Client, folder: Path) -> None:
    _assert_greedy(triton, "gpt2", folder / "gpt2")


def test_a_prompt_in_pieces_is_the_prompt(triton: client.Client) -> None:
    decoder = Decoder(triton, "gpt2")
    whole = decoder.call(decoder.first([PROMPTS[2]]))
    first = decoder.first([PROMPTS[2][:3]])
    rest = decoder.next(first, decoder.call(first))
    ids = np.array([PROMPTS[2][3:]], dtype=np.int64)
    mask = np.ones((1, len(PROMPTS[2])), dtype=np.int64)
    pieces = decoder.call({**rest, **decoder._tokens(ids, mask)})
    np.testing.assert_allclose(pieces["logits"], whole["logits"][:, 3:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(pieces["present.0.key"], whole["present.0.key"], rtol=1e-4, atol=1e-4)


def test_a_masked_position_stands_for_an_empty_past(triton: client.Client) -> None:
    decoder = Decoder(triton, "gpt2")
    empty = decoder.first([PROMPTS[2]])
    mask = np.concatenate([np.zeros((1, 1), np.int64), empty["attention_mask"]], 1)
    dummy = {i.name: np.zeros((1, i.shape[1], 1, i.shape[3]), np.float32) for i in decoder.caches}
    answer = decoder.call({**empty, "attention_mask": mask, **dummy})
    np.testing.assert_allclose(answer["logits"], decoder.call(empty)["logits"], rtol=1e-4, atol=1e-5)


def test_the_loop_of_the_docs_generates(
    triton: client.Client, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import transformers

    page = Path(__file__).parents[2] / "docs" / "tasks" / "text-generation-onnx.md"
    code = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[1]  # type: ignore[index]
    own = {"127.0.0.1:8001": triton.target, "openai-community/gpt2": str(folder / "gpt2")}
    for written, there in own.items():
        assert written in code
        code = code.replace(written, there)
    exec(compile(code, str(page), "exec"), {})
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "gpt2")
    (wanted,) = _generated(folder / "gpt2", [tokenizer("The quick brown fox")["input_ids"]], 20)
    assert capsys.readouterr().out == tokenizer.decode(wanted) + "\n"


def test_requests_of_other_pasts_never_share_a_batch(triton: client.Client) -> None:
    """Equal shapes do, where they follow each other in the queue, which waits for them."""
    decoder = Decoder(triton, "gpt2")
    inputs, wanted = [], []
    for prompt in PROMPTS:
        one = decoder.first([prompt])
        for _ in range(2):
            one = decoder.next(one, decoder.call(one))
        inputs.append(one)
        wanted.append(decoder.call(one))
    lengths = [one["past_key_values.0.key"].shape[2] for one in inputs]
    assert len(set(lengths)) == 6
    order = sorted((place for place in range(len(inputs)) for _ in range(4)), key=lambda place: lengths[place])
    before = _counts(triton, "gpt2")
    with ThreadPoolExecutor(len(order)) as pool:
        answers = list(pool.map(decoder.call, [inputs[place] for place in order]))
    after = _counts(triton, "gpt2")
    for place, answer in zip(order, answers, strict=True):
        for name, array in wanted[place].items():
            assert answer[name].shape == array.shape
            np.testing.assert_allclose(answer[name], array, rtol=1e-4, atol=1e-5)
    assert after[0] - before[0] == len(order)
    assert len(set(lengths)) <= after[1] - before[1] < len(order)


def _counts(triton: client.Client, model: str) -> tuple[int, int]:
    """Requests that were answered, and how often the model ran for them."""
    from tritonclient import grpc

    with grpc.InferenceServerClient(triton.target) as plain:
        found = plain.get_inference_statistics(model).model_stats[0]
    return int(found.inference_count), int(found.execution_count)


def test_generations_at_once_do_not_disturb_each_other(triton: client.Client, folder: Path) -> None:
    decoder = Decoder(triton, "gpt2")
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        said = list(pool.map(lambda prompt: decoder.generate([prompt], 4)[0], PROMPTS))
    assert said == _generated(folder / "gpt2", PROMPTS, 4)


@pytest.fixture(scope="module")
def exported(built: pipeline.Result, folder: Path) -> Path:
    """Somebody's file: each weight in a file of its own, the cache's axes without names."""
    import onnx

    model = onnx.load(str(built.repository / "gpt2" / "1" / "model.onnx"))
    home = folder / "exported"
    home.mkdir()
    onnx.save_model(
        model, str(home / "decoder.onnx"), save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=512
    )
    return home / "decoder.onnx"


def test_a_file_with_several_files_of_weights_is_served_as_it_is(
    exported: Path, folder: Path, server_factory: ServerFactory
) -> None:
    onnx_format.check(exported)
    weights = sorted(path.name for path in exported.parent.iterdir() if path != exported)
    assert len(weights) > 4
    whole = spec.Spec.model_validate({"models": [{"source": str(exported), "name": "theirs", "cpus": 1}]})
    result = pipeline.build(whole, folder / "theirs")
    assert not result.failed, {n: str(e) for n, e in result.failed.items()}
    assert result.reports["theirs"]["passed"]
    version = folder / "theirs" / "theirs" / "1"
    assert sorted(path.name for path in version.iterdir()) == sorted(["model.onnx", *weights])
    assert all((version / name).read_bytes() == (exported.parent / name).read_bytes() for name in weights)
    onnx_format.check(version / "model.onnx")
    stored = proof.load(folder / "theirs.build" / "proof" / "theirs.npz")
    assert {case.inputs["past_key_values.0.key"].shape[2] for case in stored.cases} == {0, 1, 5, 8}
    with client.connect(f"127.0.0.1:{server_factory(folder / 'theirs').ports.grpc}") as triton:
        assert Decoder(triton, "theirs").generate(PROMPTS[:3], 4) == _generated(folder / "gpt2", PROMPTS[:3], 4)


def _sparse(path: Path) -> Path:
    """Two tables of 1.2 GB, each a file of zeros that takes no room on the disk; what they give is added to the ids."""
    from onnx import TensorProto, helper

    rows, width = 1 << 20, 288
    tables = []
    for part in range(2):
        file = path.parent / "weights" / f"part-{part}.bin"
        file.parent.mkdir(exist_ok=True)
        with file.open("wb") as opened:
            opened.truncate(rows * width * 4)
        table = TensorProto(name=f"table_{part}", data_type=TensorProto.FLOAT, dims=[rows, width])
        table.data_location = TensorProto.EXTERNAL
        table.external_data.add(key="location", value=f"weights/{file.name}")
        tables.append(table)
    nodes = [helper.make_node("Gather", [table.name, "input_ids"], [f"row_{table.name}"]) for table in tables]
    nodes += [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ids", "last"], ["column"]),
        helper.make_node("Sum", ["column", *(f"row_{table.name}" for table in tables)], ["hidden"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sparse",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", "sequence", width])],
        [*tables, helper.make_tensor("last", TensorProto.INT64, [1], [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.slow
def test_weights_beyond_two_gigabytes(tmp_path: Path) -> None:
    source = _sparse(tmp_path / "large.onnx")
    whole = spec.Spec.model_validate({"models": [{"source": str(source), "name": "large", "cpus": 1}]})
    result = pipeline.build(whole, tmp_path / "repository")
    assert not result.failed, {n: str(e) for n, e in result.failed.items()}
    assert result.reports["large"]["passed"]
    version = tmp_path / "repository" / "large" / "1"
    files = sorted(path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file())
    assert files == ["model.onnx", "weights/part-0.bin", "weights/part-1.bin"]
    assert sum((version / name).stat().st_size for name in files) > 1 << 31
    onnx_format.check(version / "model.onnx")
    lowered = onnx_to_onnx.convert(
        onnx_format.describe(source), tmp_path / "lowered.onnx", opset=15, ir_version=8, progress=None
    )
    assert lowered.files == ("lowered.onnx", "lowered.onnx.data")
    assert (lowered.facts["opset"], lowered.provenance["max_abs_error"]) == (15, {"hidden": 0.0})


@pytest.mark.slow
def test_two_layers_of_each_architecture(
    tmp_path: Path, server_factory: ServerFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    result = _build(tmp_path, TWO_LAYERS)
    with client.connect(f"127.0.0.1:{server_factory(result.repository).ports.grpc}") as triton:
        for name in TWO_LAYERS:
            _assert_proven(result, name)
            _assert_greedy(triton, name, tmp_path / name)
    printing.inspected(pipeline.inspect(str(result.repository / "llama" / "1" / "model.onnx")))
    said = capsys.readouterr().out
    assert "past_key_values.0..1.key/value" in said
    assert "present.0..1.key/value" in said
