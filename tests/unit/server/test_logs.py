"""What is shown of a server's log."""

from __future__ import annotations

from repo_builder.server import logs

LOG = """\
I1122 10:15:15.839631 17 model_lifecycle.cc:472] "loading: good:1"
I1122 10:15:15.839631 17 model_lifecycle.cc:839] "successfully loaded 'good'"
E1122 10:15:16.000000 17 model_lifecycle.cc:642] "failed to load 'bad' version 1: Internal: no such thing

At:
  /models/bad/1/model.py(3): initialize
"
I1122 10:15:16.000001 17 server.cc:674]
+-------+---------+---------------------------------+
| Model | Version | Status                          |
+-------+---------+---------------------------------+
| bad   | 1       | UNAVAILABLE: no such thing      |
| good  | 1       | READY                           |
+-------+---------+---------------------------------+

E1122 10:15:16.100000 17 main.cc:1] "failed to load 'bad' version 1: Internal: no such thing"
error: creating server: Internal - failed to load all models
"""


def test_errors_and_the_models_that_did_not_load() -> None:
    assert logs.errors(LOG).splitlines() == [
        "failed to load 'bad' version 1: Internal: no such thing",
        "At:",
        "  /models/bad/1/model.py(3): initialize",
        "| bad   | 1       | UNAVAILABLE: no such thing      |",
        "error: creating server: Internal - failed to load all models",
    ]


def test_a_python_error_is_shown_as_lines_without_the_import_machinery() -> None:
    log = (
        "E1122 10:15:16.0 17 model_lifecycle.cc:642] \"failed to load 'm' version 1: Internal: ModuleNotFoundError: "
        r"No module named 'x'\n\nAt:\n  m/1/model.py(1): <module>\n  <frozen importlib._bootstrap>(241): _call\n"
        '"\n'
    )
    assert logs.errors(log).splitlines() == [
        "failed to load 'm' version 1: Internal: ModuleNotFoundError: No module named 'x'",
        "At:",
        "  m/1/model.py(1): <module>",
    ]


def test_a_loader_that_fails_before_the_server_logs() -> None:
    line = "tritonserver: error while loading shared libraries: libx.so: cannot open shared object file"
    assert logs.errors(f"{line}\n") == line


def test_without_errors_the_last_lines() -> None:
    assert logs.errors("\n".join(f"line {n}" for n in range(9)), limit=2) == "line 7\nline 8"


def test_a_port_in_use() -> None:
    assert logs.port_in_use("failed to start HTTP service: Unavailable - Socket '127.0.0.1:1' already in use ")
    assert not logs.port_in_use(LOG)
