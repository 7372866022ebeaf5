"""The contract tables by version: which hold, what changed from one to the next, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repo_builder import releases
from repo_builder.errors import TargetError
from repo_builder.llm import contract

TABLES = Path(contract.__file__).with_name("contracts")


def names(version: str, role: str, of: str = "inputs") -> set[str]:
    return {tensor.name for tensor in getattr(contract.of(version).models[role], of)}


@pytest.mark.parametrize(
    ("version", "family"),
    [
        *(("0.19.0", "0.19"), ("0.20.0", "0.20"), ("v0.21.0", "0.21"), ("1.0.3.2510", "1.0")),
        *(("1.1", "1.1"), ("1.2.0rc6", "1.2"), ("1.2.1", "1.2")),
    ],
)
def test_a_version_has_the_table_of_its_minor(version: str, family: str) -> None:
    assert contract.of(version).family == family
    assert contract.of(version).version == version


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("0.18.2", "the Triton models of TensorRT-LLM 0.18.2 differ"),
        ("0.7.1", "target release 25.05 or newer"),
        ("1.3.0rc21", "its TensorRT backend was removed"),
        ("1.10.0", "its TensorRT backend was removed"),
        ("", "'' is no version of TensorRT-LLM"),
        ("latest", "write it as 1.2.1"),
    ],
)
def test_a_version_without_a_table_is_refused(version: str, text: str) -> None:
    with pytest.raises(TargetError) as caught:
        contract.of(version)
    assert text in str(caught.value)
    assert "one of 0.19.x" in caught.value.expected


def test_every_release_from_25_05_on_has_a_table() -> None:
    for name in releases.names():
        image = releases.release(name).images.get("trtllm-python-py3")
        version = image.tensorrt_llm if image else None
        if version and name >= "25.05":
            assert contract.of(version).family in contract.VERSIONS
        elif version:
            with pytest.raises(TargetError, match="differ from those"):
                contract.of(version)


def test_what_changed_with_each_version() -> None:
    changed = {}
    for older, newer in zip(contract.VERSIONS, contract.VERSIONS[1:], strict=False):
        before, after = (contract.of(v).models["tensorrt_llm"] for v in (older, newer))
        tensors = [set(model.inputs) | set(model.outputs) for model in (before, after)]
        parameters = [{p.name for p in model.parameters} for model in (before, after)]
        gone, come = tensors[0] - tensors[1], tensors[1] - tensors[0]
        changed[newer] = ({t.name for t in gone}, {t.name for t in come}, parameters[1] - parameters[0])
    assert changed == {
        "0.20": ({"min_length", "random_seed"}, {"min_tokens", "seed"}, set()),
        "0.21": (set(), set(), set()),
        "1.0": (
            set(),
            {"return_num_input_tokens", "return_num_output_tokens", "num_input_tokens", "num_output_tokens"},
            set(),
        ),
        "1.1": ({"prompt_embedding_table"}, {"prompt_embedding_table"}, set()),
        "1.2": (set(), set(), {"enable_trt_overlap"}),
    }


def test_the_older_names_are_those_of_the_older_tables() -> None:
    for role in ("tensorrt_llm", "ensemble", "tensorrt_llm_bls", "llmapi"):
        old, new = names("0.19.0", role), names("0.20.0", role)
        assert {contract.RENAMED[name] for name in old - new} == new - old
        assert old - new


def test_a_text_model_has_neither_images_nor_a_decoder_of_its_own() -> None:
    terms = contract.of("1.2.1")
    assert {t.name for t in terms.models["preprocessing"].inputs} - {
        t.name for t in terms.text["preprocessing"].inputs
    } == {"DECODER_QUERY", "IMAGE_BYTES", "IMAGE_URL", "IMAGES", "VIDEO_BYTES"}
    assert [t.name for t in terms.text["preprocessing"].outputs] == [
        *("INPUT_ID", "REQUEST_INPUT_LEN", "BAD_WORDS_IDS", "STOP_WORDS_IDS", "EMBEDDING_BIAS", "REQUEST_OUTPUT_LEN"),
        *("OUT_END_ID", "OUT_PAD_ID", "OUT_PROMPT_TABLE_EXTRA_IDS"),
    ]
    assert {t.name for t in terms.models["tensorrt_llm_bls"].inputs} - {
        t.name for t in terms.text["tensorrt_llm_bls"].inputs
    } == {"decoder_text_input", "image_input", "image_bytes_input", "image_url_input", "video_bytes_input"}
    assert terms.text["tensorrt_llm"] == terms.models["tensorrt_llm"]
    for step in terms.text["ensemble"].steps:
        assert not {outer for outer in (*step.input_map.values(), *step.output_map.values()) if "DECODER" in outer}


def test_fields_of_a_tensor_and_the_types_that_fill_it() -> None:
    tensors = {t.name: t for t in contract.of("1.2.1").models["tensorrt_llm"].inputs}
    assert tensors["input_lengths"].fields({}) == {
        "name": "input_lengths",
        "data_type": "TYPE_INT32",
        "dims": [1],
        "reshape": {"shape": []},
    }
    assert tensors["draft_logits"].fields({"logits_datatype": "TYPE_BF16"}) == {
        "name": "draft_logits",
        "data_type": "TYPE_BF16",
        "dims": [-1, -1],
        "optional": True,
        "allow_ragged_batch": True,
    }
    required = {p.name for p in contract.of("1.2.1").models["tensorrt_llm"].parameters if p.required}
    assert required == {"gpt_model_type", "tokenizer_dir", "guided_decoding_backend", "xgrammar_tokenizer_info_path"}


@pytest.mark.parametrize("role", contract.ROLES)
def test_every_table_tells_its_source_and_no_name_twice(role: str) -> None:
    table = json.loads((TABLES / f"{role}.json").read_text(encoding="utf-8"))
    assert "triton-inference-server/tensorrtllm_backend v0.19.0" in table["source"]
    for version in contract.VERSIONS:
        model = contract.of(version).models[role]
        for entries in (model.inputs, model.outputs, model.parameters):
            listed = [entry.name for entry in entries]
            assert len(listed) == len(set(listed))
