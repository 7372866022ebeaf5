"""The windows and the answers' model.py against the question-answering pipeline of transformers 5.2, logit by logit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import backend_utils_stand_in as stand_in
import numpy as np
import pytest

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError, ToolchainError
from repo_builder.formats import huggingface
from repo_builder.spec import ModelSpec
from repo_builder.tasks import older_transformers, question_answering
from repo_builder.tensors import TensorSpec
from tests import tiny_tokenizers, tiny_transformers

pytestmark = pytest.mark.torch
FAMILIES = ("bert", "roberta", "xlm-roberta", "xlnet")
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"align_to_words": False},
    {"max_answer_len": 3},
    {"handle_impossible_answer": True},
)
TEXTS = [text for text in tiny_tokenizers.TEXTS if text]
LONG = " ".join(TEXTS[10:30])
ROWS = [
    *((TEXTS[(7 * n + 3) % 63][:12].strip() or "?", " ".join((TEXTS * 2)[n : n + 1 + n % 6])) for n in range(0, 63, 2)),
    ("who?", "the cat The CAT the Cat " * 12),
    ("who?", " \n "),
    ("who [CLS] <s>?", "a [SEP] b [CLS] c <s> d </s> e <cls> f"),
    (TEXTS[8], LONG),
]  # fmt: skip
QUESTION_TOO_LONG = len(ROWS) - 1


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("readers")
    return {name: tiny_transformers.save(name, "question-answering", home / name) for name in FAMILIES}


@pytest.fixture(scope="module")
def oracle(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("oracle")
    request = {
        "site_packages": [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))],
        "folders": [str(folder) for folder in folders.values()],
        "rows": ROWS,
        "options": OPTIONS,
    }
    (home / "request.json").write_text(json.dumps(request), encoding="utf-8")
    script = Path(__file__).parents[2] / "answers_oracle.py"
    files = (home / "request.json", home / "answers.json")
    done = subprocess.run(
        [older_transformers.python(), "-I", script, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(files[1].read_text(encoding="utf-8")))


def models(folder: Path, repository: Path, **parameters: str) -> tuple[Any, Any]:
    """The tokenizer's and the answers' model, initialized."""
    inputs = tuple(TensorSpec(t, "INT64", question_answering.AXES) for t in ("input_ids", "attention_mask"))
    outputs = tuple(TensorSpec(t, "FP32", question_answering.AXES) for t in ("start_logits", "end_logits"))
    logits = TensorSpec("logits", "FP32", (*question_answering.AXES, 2))
    (repository / "model.onnx").write_bytes(b"")
    engine = Artifact(repository / "model.onnx", "onnx", inputs, (*outputs, logits), "batch", ("model.onnx",))
    spec = ModelSpec(source=str(folder), name="reader", step_configs={"postprocess": {"parameters": parameters}})
    planned = {one.name: one for one in question_answering.models(spec, huggingface.describe(folder), engine)}
    path = list(sys.path)
    loaded = [
        stand_in.load(*stand_in.write(planned[f"reader_{step}"], repository / step))
        for step in ("tokenizer", "postprocess")
    ]
    sys.path[:] = path
    return loaded[0], loaded[1]


def request(*rows: tuple[Any, Any]) -> dict[str, Any]:
    sides = [[text.encode() if isinstance(text, str) else text for text in side] for side in zip(*rows, strict=True)]
    return {
        name: np.array(side, dtype=object).reshape(-1, 1)
        for name, side in zip(("QUESTION", "CONTEXT"), sides, strict=True)
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_and_answers_are_those_of_the_pipeline(
    family: str, folders: dict[str, Path], oracle: dict[str, Any], tmp_path: Path
) -> None:
    expected = oracle[str(folders[family])]
    served = [row for row, one in zip(ROWS, expected, strict=True) if "refused" not in one]
    kept = [one for one in expected if "refused" not in one]
    assert len(kept) >= 30
    assert sum(len(one["ids"]) > 1 for one in kept) > 10
    for number, options in enumerate(OPTIONS):
        folder = tmp_path / str(number)
        folder.mkdir()
        tokenize, read = models(folders[family], folder, **{k: str(v).lower() for k, v in options.items()})
        for start in range(0, len(kept), 8):
            part, asked = kept[start : start + 8], request(*served[start : start + 8])
            tokens = tokenize.execute([asked])[0].arrays
            mask = tokens["attention_mask"].astype(bool)
            logits = np.full((*mask.shape, 2), 50.0, dtype=np.float32)
            for row, one in enumerate(part):
                windows = [ids[real].tolist() for ids, real in zip(tokens["input_ids"][row], mask[row], strict=True)]
                assert [ids for ids in windows if ids] == one["ids"]
                for window, values in enumerate(one["logits"]):
                    logits[row, window, mask[row, window]] = values
            answers = read.execute([{**asked, **tokens, "logits": logits}])[0].arrays
            for row, one in enumerate(part):
                found = one["answers"][number] or {"answer": "", "score": 0.0, "start": 0, "end": 0}
                mine = {name: answers[name][row, 0] for name in ("ANSWER", "SCORE", "START", "END")}
                place = (served[start + row], options)
                assert mine["ANSWER"].decode() == found["answer"], place
                assert (mine["START"], mine["END"]) == (found["start"], found["end"]), place
                assert mine["SCORE"] == pytest.approx(found["score"], abs=1e-6), place


@pytest.mark.parametrize("family", FAMILIES)
def test_what_cannot_be_answered_is_refused_alone(
    family: str, folders: dict[str, Path], oracle: dict[str, Any], tmp_path: Path
) -> None:
    tokenize, _ = models(folders[family], tmp_path)
    good = ("who?", LONG)
    assert "refused" in oracle[str(folders[family])][QUESTION_TOO_LONG]
    answers = tokenize.execute(
        [
            request(good), request(ROWS[QUESTION_TOO_LONG]), request(good, ("", "a")), request(("a", "")),
            request(good), request((b"\xff", "a")),
        ]
    )  # fmt: skip
    errors = [str(one.error) if one.error else "" for one in answers]
    assert errors[0] == errors[4] == ""
    assert "'QUESTION' is too long: beside it no window of 48 tokens holds more of 'CONTEXT' than the 24" in errors[1]
    assert errors[2] == "input 'QUESTION': text 1 is empty, expected a question and a context"
    assert errors[3] == "input 'CONTEXT': text 0 is empty, expected a question and a context"
    assert errors[5] == "input 'QUESTION': text 0 is not UTF-8: invalid start byte at byte 0 (0xff)"
    assert all(one.error.code == stand_in.TritonError.INVALID_ARG for one in answers if one.error)
    np.testing.assert_array_equal(answers[0].arrays["input_ids"], answers[4].arrays["input_ids"])


def test_the_answers_step_too_refuses_a_context_that_is_not_utf_8_alone(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    tokenize, read = models(folders["bert"], tmp_path)
    good = request(("who?", "a kettle sings"))
    tokens = tokenize.execute([good])[0].arrays
    rest = {**tokens, "logits": np.zeros((*tokens["input_ids"].shape, 2), dtype=np.float32)}
    refused, answered = read.execute([{**rest, **request(("who?", b"\xff"))}, {**rest, **good}])
    assert str(refused.error).startswith("input 'CONTEXT' is not UTF-8: 'utf-8' codec can't decode byte 0xff")
    assert refused.error.code == stand_in.TritonError.INVALID_ARG
    assert answered.arrays["ANSWER"][0, 0].decode() in "a kettle sings"
    assert answered.arrays["END"][0, 0] > 0


@pytest.mark.parametrize(
    ("step", "parameters", "message"),
    [
        ("tokenizer", {"stride": "45"}, "windows of 48 tokens that share 45"),
        ("tokenizer", {"stride": "many"}, "parameters.stride is 'many'"),
        ("postprocess", {"max_answer_len": "0"}, "parameters.max_answer_len is '0'"),
        ("postprocess", {"align_to_words": "yes"}, "parameters.align_to_words is 'yes'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_the_model_is_loaded(
    step: str, parameters: dict[str, str], message: str, folders: dict[str, Path]
) -> None:
    spec = ModelSpec(source="bert", step_configs={step: {"parameters": parameters}})
    with pytest.raises(SpecError, match=message):
        question_answering.head(huggingface.describe(folders["bert"]), spec)


def test_all_models_of_a_reader_take_as_many_rows_as_its_config_says(folders: dict[str, Path], tmp_path: Path) -> None:
    inputs = tuple(TensorSpec(t, "INT64", question_answering.AXES) for t in ("input_ids", "attention_mask"))
    outputs = tuple(TensorSpec(t, "FP32", question_answering.AXES) for t in ("start_logits", "end_logits"))
    logits = TensorSpec("logits", "FP32", (*question_answering.AXES, 2))
    engine = Artifact(tmp_path / "model.onnx", "onnx", inputs, (*outputs, logits), "batch")
    for config, rows in (({}, 8), ({"max_batch_size": 16}, 16)):
        planned = question_answering.models(
            ModelSpec(source="bert", config=config), huggingface.describe(folders["bert"]), engine
        )
        assert {one.name: one.config.max_batch_size for one in planned} == dict.fromkeys(
            ("bert", "bert_tokenizer", "bert_encoder", "bert_postprocess"), rows
        )


def test_windows_have_384_tokens_and_share_128_where_the_model_takes_as_many(tmp_path: Path) -> None:
    folder = tiny_transformers.save(
        "bert", "question-answering", tmp_path, tokenizer={"model_max_length": 512}, max_position_embeddings=512
    )
    source = huggingface.describe(folder)
    settings, layout = question_answering.windows(ModelSpec(source="bert"), source)
    assert (settings.max_length, layout.stride, layout.truncation) == (384, 128, "only_second")
    asked = ModelSpec(source="bert", shapes={"sequence": {"min": 1, "opt": 64, "max": 512}})
    settings, layout = question_answering.windows(asked, source)
    assert (settings.max_length, layout.stride) == (512, 128)


def test_a_failing_reference_run_shows_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(older_transformers, "_SCRIPTS", tmp_path)
    monkeypatch.setattr(older_transformers, "python", lambda *_: Path(sys.executable))
    (tmp_path / "loud.py").write_text("print('x' * 500000)\nprint('last words')\nraise SystemExit(3)\n")
    (tmp_path / "killed.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    (tmp_path / "silent.py").write_text("")
    with pytest.raises(
        ToolchainError, match=r"(?s)loud.py.*ended with exit code 3.*last words.*to mend it: read .*loud-.*log"
    ) as found:
        older_transformers.run("loud.py", {})
    assert len(str(found.value)) < 1500
    with pytest.raises(ToolchainError, match="was killed by SIGKILL, as a lack of memory does"):
        older_transformers.run("killed.py", {})
    with pytest.raises(ToolchainError, match=r"\(silent.py\) ended without an answer"):
        older_transformers.run("silent.py", {})


def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Path:
        raise ToolchainError("pip could not install it", expected="an index", mend="set PIP_INDEX_URL")

    monkeypatch.setattr(older_transformers.metadata, "version", lambda *_: "5.23.0")
    monkeypatch.setattr(older_transformers.toolchain, "ensure", refuse)
    with pytest.raises(ToolchainError) as found:
        older_transformers.python()
    said = str(found.value)
    assert "needs transformers 5.2.0, the last with its pipeline: pip could not install it" in said
    assert "set PIP_INDEX_URL; or, without a network, install repo-builder beside transformers 5.2.0, or copy" in said


@pytest.mark.parametrize("version", ["4.57.1", "5.2.0", "5.0.0rc1"])
def test_a_transformers_below_5_3_is_used_as_it_is(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(older_transformers.metadata, "version", lambda *_: version)
    assert older_transformers.python() == Path(sys.executable)
