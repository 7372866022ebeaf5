"""What a repository needs: backends, and options of the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from repo_builder.errors import RepositoryError
from repo_builder.server import needs

CONFIGS = {
    "by_backend": 'backend: "onnxruntime"',
    "by_platform": 'platform: "pytorch_libtorch"',
    "tokenizer": 'backend: "python"',
    "whole": 'platform: "ensemble" ensemble_scheduling { step { model_name: "tokenizer" } '
    'step { model_name: "by_backend" } }',
    "broken": "max_batch_size: $",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, config in CONFIGS.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(config, encoding="utf-8")
    (tmp_path / "by_file" / "3").mkdir(parents=True)
    (tmp_path / "by_file" / "3" / "model.pt").touch()
    (tmp_path / "README").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ((), {"onnxruntime", "pytorch", "python", "ensemble"}),
        (("whole",), {"onnxruntime", "python", "ensemble"}),
        (("by_platform",), {"pytorch"}),
        (("by_file",), {"pytorch"}),
        (("broken",), set()),
        (("absent",), set()),
    ],
)
def test_backends(repository: Path, models: tuple[str, ...], expected: set[str]) -> None:
    assert needs.backends(repository, models) == expected


def plan(repository: Path, name: str, *, compatible: bool = False, plugins: str = "", **libraries: bytes) -> Path:
    """A model of a plan; ``v1_mine=content`` is the library ``mine.so`` of version 1."""
    (repository / name / "1").mkdir(parents=True)
    config = 'platform: "tensorrt_plan"\n'
    for key, value in ((needs.VERSION_COMPATIBLE, "true" * compatible), (needs.PLUGINS, plugins)):
        if value:
            config += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    (repository / name / "config.pbtxt").write_text(config, encoding="utf-8")
    for place, content in libraries.items():
        version, _, library = place.partition("_")
        (repository / name / version[1:]).mkdir(exist_ok=True)
        (repository / name / version[1:] / f"{library}.so").write_bytes(content)
    return repository


def test_plans_without_needs_and_other_backends_ask_nothing_of_the_server(repository: Path) -> None:
    assert needs.backend_options(plan(repository, "p")) == ()
    assert needs.backend_options(repository / "absent") == ()
    config = f'backend: "python" parameters {{ key: "{needs.VERSION_COMPATIBLE}" value {{ string_value: "true" }} }}'
    (repository / "tokenizer" / "config.pbtxt").write_text(config, encoding="utf-8")
    assert needs.backend_options(repository) == ()
    assert needs.command_line(repository) == ["tritonserver", f"--model-repository={repository}"]


def test_options_of_all_plans_are_joined_each_once(tmp_path: Path) -> None:
    plan(tmp_path, "b", compatible=True, plugins="two.so;one.so", v1_one=b"1", v1_two=b"2")
    plan(tmp_path, "a", compatible=True, plugins="one.so", v1_one=b"1")
    assert needs.backend_options(tmp_path, mounted="/models/") == (
        "--backend-config=tensorrt,version-compatible=true",
        "--backend-config=tensorrt,plugins=/models/a/1/one.so;/models/b/1/two.so",
    )
    assert needs.backend_options(tmp_path, ["a"])[1] == f"--backend-config=tensorrt,plugins={tmp_path}/a/1/one.so"
    (tmp_path / "whole").mkdir()
    whole = 'platform: "ensemble" ensemble_scheduling { step { model_name: "a" } }'
    (tmp_path / "whole" / "config.pbtxt").write_text(whole, encoding="utf-8")
    assert needs.backend_options(tmp_path, ["whole"]) == needs.backend_options(tmp_path, ["a"])


def test_a_library_that_only_a_later_version_has_is_found_there(tmp_path: Path) -> None:
    plan(tmp_path, "m", plugins="mine.so", v10_mine=b"1", v2_mine=b"1")
    assert needs.backend_options(tmp_path, mounted="/r") == ("--backend-config=tensorrt,plugins=/r/m/2/mine.so",)


def test_libraries_that_no_server_can_load_together_or_at_all_are_refused(tmp_path: Path) -> None:
    plan(tmp_path, "a", plugins="one.so", v1_one=b"1")
    plan(tmp_path, "b", plugins="one.so", v1_one=b"2")
    with pytest.raises(RepositoryError, match=r"a/1/one.so and b/1/one.so are two libraries of one name"):
        needs.backend_options(tmp_path)
    plan(tmp_path, "gone", plugins="none.so")
    with pytest.raises(RepositoryError, match=r"no version folder of 'gone' holds the plugin library none.so"):
        needs.backend_options(tmp_path, ["gone"])
    plan(tmp_path, "away", plugins="../../evil.so")
    with pytest.raises(RepositoryError, match=r"names '../../evil.so'"):
        needs.backend_options(tmp_path, ["away"])
    with pytest.raises(RepositoryError, match="has a semicolon"):
        needs.backend_options(tmp_path, ["a"], mounted="/a;b")


def test_what_a_plan_needs_is_read_from_the_config_beside_it(tmp_path: Path) -> None:
    plan(tmp_path, "m", compatible=True, plugins="one.so", v1_one=b"1")
    folder = tmp_path / "m" / "1"
    assert needs.of_plan(folder / "model.plan") == ((folder / "one.so",), True)
    assert needs.of_plan(tmp_path / "model.plan") == ((), False)
    (folder / "one.so").unlink()
    with pytest.raises(RepositoryError, match=r"holds the plugin library one.so"):
        needs.of_plan(folder / "model.plan")
