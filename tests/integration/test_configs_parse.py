"""The real server reads what we print: its own C++ parser is the judge, not Python's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from random_configs import STRINGS, RandomConfigs, all_fields

from repo_builder import releases
from repo_builder.model_config import build
from repo_builder.model_config.fields import message_class
from repo_builder.render import render_config
from repo_builder.server import RunningServer, start

pytestmark = pytest.mark.server

UNKNOWN = frozenset({"model_metrics", "max_inflight_requests"})
"""Fields that the embedded server does not know."""

AGENT = "no_such_agent"
"""The server asks for a config's repository agents right after it has parsed the text and before it looks at any other
field (``InitializeModelInfo`` in core's model_repository_manager.cc). One that does not exist ends each model there,
with a message that comes only after a whole parse, and before random values are acted on."""
PARSED = f"unable to find 'libtritonrepoagent_{AGENT}.so'"
REFUSED = "failed to read text proto"

VALUES = "values"
MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


def random_config(configs: RandomConfigs, name: str) -> Any:
    message = configs.message()
    message.name = name
    agents = message.model_repository_agents.agents
    (agents[0] if agents else agents.add()).name = AGENT
    return message


def write(repository: Path, name: str, text: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def random_configs() -> dict[str, Any]:
    configs = RandomConfigs(seed=2, without=UNKNOWN)
    made = {name: random_config(configs, name) for name in (f"random_{i:03}" for i in range(200))}
    left_out = all_fields() - configs.exercised
    assert left_out == {
        f for f in all_fields() if f.split(".")[-1] in UNKNOWN or f.startswith("inference.ModelMetrics.")
    }
    return made


@pytest.fixture(scope="module")
def values() -> Any:
    """A config that the server loads, with every string that could break a parser."""
    fields = {
        "name": VALUES,
        "backend": "python",
        "parameters": {f"{number} {text}": text for number, text in enumerate(STRINGS)},
        "instance_group": [{"kind": "KIND_CPU"}],
    }
    return build(fields)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, random_configs: dict[str, Any], values: Any
) -> Iterator[RunningServer]:
    loadable, random = tmp_path_factory.mktemp("loadable"), tmp_path_factory.mktemp("random")
    write(loadable, VALUES, render_config(values))
    (loadable / VALUES / "1" / "model.py").write_text(MODEL)
    for name, config in random_configs.items():
        write(random, name, render_config(config))
    write(random, "broken", f"{render_config(random_configs['random_000'])}max_batch_size: ]\n")
    newer = random_config(RandomConfigs(seed=3, without=UNKNOWN), "newer")
    newer.model_metrics.SetInParent()
    write(random, "newer", render_config(newer))
    with start(loadable, strict=False, extra_args=[f"--model-repository={random}"]) as running:
        yield running


@pytest.fixture(scope="module")
def reasons(server: RunningServer) -> dict[str, str]:
    """Why the server did not take a model, as its log says it."""
    return dict(re.findall(r"Poll failed for model directory '(\w+)': ([^\n]+)", server.log()))


def test_the_server_parses_200_random_configs(random_configs: dict[str, Any], reasons: dict[str, str]):
    embedded = releases.embedded()
    assert not [name for name, config in random_configs.items() if releases.unknown_fields(embedded, config)]
    assert {name: reasons.get(name, "")[: len(PARSED)] for name in random_configs} == dict.fromkeys(
        random_configs, PARSED
    )


def test_a_broken_text_and_an_unknown_field_are_parse_failures(reasons: dict[str, str]):
    assert reasons["broken"].startswith(REFUSED)
    assert reasons["newer"].startswith(REFUSED)


def test_the_server_reads_the_same_values(server: RunningServer, values: Any):
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(server.url) as client:
        served = client.get_model_config(VALUES).config
    assert type(served) is message_class()
    assert dict(served.parameters.items()) == dict(values.parameters.items())
