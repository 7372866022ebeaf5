"""The commands that build an engine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from repo_builder import releases
from repo_builder.errors import SpecError, UnknownTaskError
from repo_builder.llm import architectures, build_commands, build_flags, settings, source
from repo_builder.llm.build_commands import CHECKPOINT, ENGINE, EXAMPLES, MODEL, Recipe
from repo_builder.spec import ModelSpec
from tests.unit.llm.llm_folders import CHATGLM2, LLAMA, folder

SIZES = "--max_batch_size 2048 --max_input_len 4095 --max_seq_len 4096 --max_beam_width 1 --max_num_tokens 8192"
PLACES = {MODEL: "M", CHECKPOINT: "C", ENGINE: "E", EXAMPLES: "X"}


def recipe(path: Path, target: str = "26.07", **llm: Any) -> Recipe:
    model = ModelSpec.model_validate({"source": str(path), "engine": "tensorrt-llm", "llm": llm})
    language = source.read(path)
    return build_commands.recipe(model, language, settings.planned(model, language, releases.release(target)))


def lines(found: Recipe) -> list[str]:
    return [shlex.join(step.filled(PLACES)) for step in found.steps]


def test_a_llama_is_converted_and_built(tmp_path: Path) -> None:
    assert lines(recipe(folder(tmp_path, LLAMA))) == [
        "python3 X/models/core/llama/convert_checkpoint.py --model_dir M --output_dir C --dtype bfloat16",
        f"trtllm-build --checkpoint_dir C --output_dir E {SIZES}",
    ]


def test_parallelism_lies_in_the_checkpoint(tmp_path: Path) -> None:
    convert, build = lines(recipe(folder(tmp_path, LLAMA), tp=4, pp=2, gpus_per_node=4))
    assert convert.endswith("--dtype bfloat16 --tp_size 4 --pp_size 2")
    assert build == f"trtllm-build --checkpoint_dir C --output_dir E {SIZES} --workers 4"
    assert "--tp_size" not in build


@pytest.mark.parametrize(
    ("llm", "expected"),
    [
        (
            {"quantization": "int8_wo"},
            "X/models/core/llama/convert_checkpoint.py --model_dir M --output_dir C --dtype bfloat16 "
            "--use_weight_only --weight_only_precision int8",
        ),
        (
            {"quantization": "int4_wo", "dtype": "float16"},
            "X/models/core/llama/convert_checkpoint.py --model_dir M --output_dir C --dtype float16 "
            "--use_weight_only --weight_only_precision int4",
        ),
        *(
            (
                {"quantization": name, "tp": 2},
                "X/quantization/quantize.py --model_dir M --output_dir C --dtype bfloat16 "
                f"--qformat {name} --tp_size 2",
            )
            for name in ("fp8", "fp8_pc_pt", "nvfp4", "int8_sq", "int4_awq", "w4a8_awq")
        ),
        (
            {"quantization": "fp8", "kv_cache_dtype": "fp8"},
            "X/quantization/quantize.py --model_dir M --output_dir C --dtype bfloat16 --qformat fp8 "
            "--kv_cache_dtype fp8",
        ),
        (
            {"kv_cache_dtype": "int8", "pp": 2},
            "X/quantization/quantize.py --model_dir M --output_dir C --dtype bfloat16 --qformat full_prec "
            "--kv_cache_dtype int8 --pp_size 2",
        ),
    ],
)
def test_quantization_takes_the_right_tool(tmp_path: Path, llm: dict[str, Any], expected: str) -> None:
    assert lines(recipe(folder(tmp_path, LLAMA), **llm))[0] == f"python3 {expected}"


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("Qwen2ForCausalLM", "core/qwen/convert_checkpoint.py --model_dir M"),
        ("MixtralForCausalLM", "core/llama/convert_checkpoint.py --model_dir M"),
        ("GPT2LMHeadModel", "core/gpt/convert_checkpoint.py --gpt_variant gpt2 --model_dir M"),
        ("PhiForCausalLM", "core/phi/convert_checkpoint.py --model_dir M"),
        ("FalconForCausalLM", "contrib/falcon/convert_checkpoint.py --model_dir M"),
        ("BaichuanForCausalLM", "contrib/baichuan/convert_checkpoint.py --model_version v1_7b --model_dir M"),
    ],
)
def test_every_architecture_has_its_script(tmp_path: Path, architecture: str, expected: str) -> None:
    found = lines(recipe(folder(tmp_path, {**LLAMA, "architectures": [architecture], "hidden_size": 4096})))[0]
    assert found.startswith(f"python3 X/models/{expected}")


def test_int8_is_not_for_blackwell(tmp_path: Path) -> None:
    path = folder(tmp_path, LLAMA)
    assert "Blackwell" in recipe(path, quantization="int8_wo").notes[-1]
    assert "Blackwell" not in "".join(recipe(path, quantization="fp8").notes)


def test_gemma_names_its_options_otherwise(tmp_path: Path) -> None:
    gemma = folder(tmp_path, {**LLAMA, "architectures": ["Gemma2ForCausalLM"]})
    assert lines(recipe(gemma, tp=2))[0] == (
        "python3 X/models/core/gemma/convert_checkpoint.py --ckpt-type hf --model_dir M --output_dir C "
        "--dtype bfloat16 --world-size 2"
    )
    with pytest.raises(SpecError, match="splits Gemma2ForCausalLM into no pipeline stages"):
        recipe(gemma, pp=2)


@pytest.mark.parametrize(
    ("config", "name", "version", "note"),
    [
        (CHATGLM2, "model", "chatglm2", "the name in config.json or of the folder"),
        ({**CHATGLM2, "_name_or_path": ""}, "chatglm3-6b", "chatglm3", "the name in config.json or of the folder"),
        ({**CHATGLM2, "_name_or_path": ""}, "model", "chatglm2", "no rope_ratio in config.json"),
        ({**CHATGLM2, "padded_vocab_size": 151552, "rope_ratio": 500}, "model", "glm4", "its vocabulary of 151552"),
        ({**CHATGLM2, "inner_hidden_size": 16384}, "model", "chatglm", "the layout of config.json"),
        ({**CHATGLM2, "model_type": "glm", "architectures": ["GLMModel"]}, "model", "glm", "model_type"),
    ],
)
def test_the_version_of_a_chatglm_is_told(
    tmp_path: Path, config: dict[str, Any], name: str, version: str, note: str
) -> None:
    found = recipe(folder(tmp_path, config, name))
    assert f"core/glm-4-9b/convert_checkpoint.py --chatglm_version {version} --model_dir M" in lines(found)[0]
    assert found.notes[0].startswith(f"ChatGLM version {version}: {note}")


def test_a_chatglm_that_nothing_tells_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"whether it is ChatGLM2 or ChatGLM3, which take rope_ratio \(50\)"):
        recipe(folder(tmp_path, {**CHATGLM2, "_name_or_path": "", "rope_ratio": 50}))


def test_the_recipe_of_2024_becomes_the_commands_of_today(tmp_path: Path) -> None:
    old = "--parallel_build --use_inflight_batching --enable_context_fmha --use_gemm_plugin float16 "
    found = recipe(
        folder(tmp_path, CHATGLM2, "chatglm2-6b"),
        dtype="float16",
        tp=2,
        max_seq_len=2048,
        build_flags=(old + "--use_gpt_attention_plugin float16",),
    )
    convert, build = lines(found)
    assert convert == (
        "python3 X/models/core/glm-4-9b/convert_checkpoint.py --chatglm_version chatglm2 --model_dir M "
        "--output_dir C --dtype float16 --tp_size 2"
    )
    assert build == (
        "trtllm-build --checkpoint_dir C --output_dir E --max_batch_size 2048 --max_input_len 2047 --max_seq_len 2048 "
        "--max_beam_width 1 --max_num_tokens 8192 --workers 2 --kv_cache_type paged --remove_input_padding enable "
        "--context_fmha enable --gemm_plugin float16 --gpt_attention_plugin float16"
    )
    assert len(found.notes) == 6


def test_only_known_flags_are_passed_on(tmp_path: Path) -> None:
    path = folder(tmp_path, LLAMA)
    build = lines(recipe(path, build_flags=("--gemm_plugin=fp8", "--lora_dir a b --reduce_fusion enable")))[1]
    assert build.endswith("--max_num_tokens 8192 --gemm_plugin fp8 --lora_dir a b --reduce_fusion enable")
    with pytest.raises(SpecError, match=r"of TensorRT-LLM 1\.2\.1 has no --auto_parallel"):
        recipe(path, build_flags=("--auto_parallel 2",))
    assert "--auto_parallel 2" in lines(recipe(path, "25.05", build_flags=("--auto_parallel 2",)))[1]


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("--gem_plugin float16", r"has no --gem_plugin \(did you mean 'gemm_plugin'\?\)"),
        ("--gemm_plugin int9", "--gemm_plugin has int9"),
        ("--gemm_plugin", "--gemm_plugin has nothing"),
        ("--strip_plan yes", "--strip_plan has yes"),
        ("--max_lora_rank -1", "--max_lora_rank has -1"),
        ("--max_lora_rank x", "--max_lora_rank has x"),
        ("--output_dir /x", "--output_dir is not for build_flags"),
        ("--workers 1 --workers 2", "--workers is given twice"),
        ("float16", "build_flags begins with 'float16'"),
        ("--log_level 'a", "is no words"),
    ],
)
def test_a_wrong_flag_is_told(flags: str, found: str) -> None:
    with pytest.raises(SpecError, match=found):
        build_flags.parsed([flags], "1.2.1")


def test_quantize_does_not_know_every_architecture(tmp_path: Path) -> None:
    path = folder(tmp_path, {**LLAMA, "architectures": ["OPTForCausalLM"]})
    with pytest.raises(SpecError, match=r"quantize\.py does not know OPTForCausalLM, and fp8 was asked for"):
        recipe(path, quantization="fp8")
    assert "--weight_only_precision int4" in lines(recipe(path, quantization="int4_wo"))[0]


def test_an_unknown_architecture_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownTaskError) as error:
        architectures.script(source.read(folder(tmp_path, {"architectures": []})))
    assert "none in config.json" in error.value.found
    assert "MixtralForCausalLM" in error.value.expected
