"""The documentation tells the truth: every command, every Python block and every spec of it runs, every link resolves.

All pages share one folder with tiny models. They bear the names that the pages use; the one under the hub id
``sentence-transformers/all-MiniLM-L6-v2`` is a random BERT of two layers that stands in for it, so nothing is
downloaded. A block that cannot run here has a visible comment directly above it: ``<!-- not run in tests: why -->``.
"""

from __future__ import annotations

import doctest
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tiny_seq2seq

from repo_builder import spec
from tests import models, tiny_transformers, tiny_vision

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
RUN, SHOWN = {"bash", "console", "python"}, {"text", "json", "mermaid", "pbtxt", "yaml"}
NOT_RUN = re.compile(r"<!-- not run in tests: \S.*-->")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIGHT = re.compile(r"repo-builder (inspect|--|\w+ --help|build .*--(schema|dry-run))")
HUB = "sentence-transformers|google-t5|google-bert|deepset|distilbert|dslim|facebook|cross-encoder|naver|google"
TORCH = re.compile(rf"import torch|net\.(pt|py)|({HUB})/|examples/")
DEFAULT_PORTS = ("8000", "8001", "8002")
ELLIPSIS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: language, code, its first line's number, and whether a comment takes it out."""

    language: str
    code: str
    line: int
    marked: bool


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        above = text[: match.start()].rstrip("\n").splitlines()
        marked = bool(above and NOT_RUN.fullmatch(above[-1]))
        found.append(Block(match[1], match[2], text.count("\n", 0, match.start()) + 2, marked))
    return found


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in RUN and not block.marked]


def needs_torch(page: Path) -> bool:
    return any(TORCH.search(block.code) for block in runnable(page))


def needs_a_server(page: Path) -> bool:
    def serves(block: Block) -> bool:
        lines = [line for line in block.code.splitlines() if "repo-builder" in line]
        return block.language == "python" or any(not LIGHT.search(line) for line in lines)

    return any(serves(block) for block in runnable(page))


def page_parameters() -> Iterator[Any]:
    for name, page in zip(NAMES, PAGES, strict=True):
        if runnable(page):
            marks = [pytest.mark.torch] * needs_torch(page) + [pytest.mark.server] * needs_a_server(page)
            yield pytest.param(page, id=name, marks=marks)


@dataclass
class Desk:
    """The folder in which the pages are worked through, and the ports that stand for Triton's default ones."""

    folder: Path
    ports: dict[str, str]
    ran: list[Block] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.folder.parent / "bin"), os.environ["PATH"], "/usr/bin", "/bin"])
        return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}

    def text(self, code: str) -> str:
        """The code with free ports; ``repo-builder serve`` without ports is given them as options."""
        for default, port in self.ports.items():
            code = re.sub(rf"\b{default}\b", port, code)
        grpc, http, metrics = (self.ports[p] for p in ("8001", "8000", "8002"))
        options = f"--grpc-port {grpc} --http-port {http} --metrics-port {metrics}"
        return re.sub(r"^repo-builder serve (\S+)", rf"exec repo-builder serve \1 {options}", code, flags=re.MULTILINE)

    def shell(self, code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", self.text(code)],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    @contextmanager
    def served(self, code: str) -> Iterator[None]:
        """``repo-builder serve`` in the background, ready when its HTTP port says so."""
        process = subprocess.Popen(
            ["/bin/bash", "-c", self.text(code)],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        try:
            while not answers(f"http://127.0.0.1:{self.ports['8000']}/v2/health/ready"):
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.1)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                said = process.communicate(timeout=60)[0]
            finally:
                process.kill()
        assert process.returncode == 0, said


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def free_port() -> str:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    home = tmp_path_factory.mktemp("docs")
    folder, shim = home / "desk", home / "bin" / "repo-builder"
    for path in (folder, shim.parent):
        path.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from repo_builder.cli import main; main()" "$@"\n')
    shim.chmod(0o755)
    (shim.parent / "python").symlink_to(sys.executable)
    models.linear_onnx(folder / "linear.onnx")
    models.factory_module(folder / "net.py")
    shutil.copytree(ROOT / "examples", folder / "examples")
    return Desk(folder, {port: free_port() for port in DEFAULT_PORTS})


@pytest.fixture(scope="module")
def torch_models(desk: Desk) -> None:
    models.torchscript(desk.folder / "net.pt")
    models.exported_program(desk.folder / "net.pt2")
    models.bert_folder(desk.folder / "sentence-transformers" / "all-MiniLM-L6-v2")
    reranker = desk.folder / "cross-encoder" / "ms-marco-MiniLM-L6-v2"
    tiny_transformers.save("minilm", "sequence-classification", reranker, num_labels=1)
    splade(desk.folder / "naver" / "splade-v3-distilbert")
    tiny_vision.save("vit", desk.folder / "google" / "vit-base-patch16-224")
    tiny_seq2seq.save("t5", desk.folder / "google-t5" / "t5-small")
    tiny_transformers.save("roberta", "question-answering", desk.folder / "deepset" / "roberta-base-squad2")
    tiny_transformers.save("bart", "nli", desk.folder / "facebook" / "bart-large-mnli")
    sst2 = desk.folder / "distilbert" / "distilbert-base-uncased-finetuned-sst-2-english"
    tiny_transformers.save("distilbert", "sequence-classification", sst2, id2label={0: "NEGATIVE", 1: "POSITIVE"})
    tiny_transformers.save("bert", "token-classification", desk.folder / "dslim" / "bert-base-NER")
    tiny_transformers.save("bert", "masked-lm", desk.folder / "google-bert" / "bert-base-uncased")


def splade(folder: Path) -> None:
    """A masked language model with the files that sentence-transformers writes beside it for SPLADE."""
    tiny_transformers.save("distilbert", "masked-lm", folder)
    pooling = {"pooling_strategy": "max", "activation_function": "relu"}
    kinds = {"": "base.modules.Transformer", "1_SpladePooling": "sparse_encoder.modules.SpladePooling"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "1_SpladePooling").mkdir()
    for name, content in (
        ("modules.json", modules),
        ("1_SpladePooling/config.json", pooling),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("page", page_parameters())
def test_every_block_of_a_page_runs(
    page: Path, desk: Desk, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if needs_torch(page):
        request.getfixturevalue("torch_models")
    monkeypatch.chdir(desk.folder)
    monkeypatch.syspath_prepend(str(desk.folder))
    ran, names = [], dict[str, Any]()
    with ExitStack() as servers:
        for block in runnable(page):
            where = f"{page.relative_to(ROOT)}:{block.line}"
            if block.language == "python":
                exec(compile("\n" * (block.line - 1) + desk.text(block.code), str(page), "exec"), names)
            elif block.language == "console":
                check_session(desk, block, where)
            elif block.code.startswith("repo-builder serve"):
                servers.enter_context(desk.served(block.code))
            else:
                done = desk.shell(block.code)
                assert done.returncode == 0, f"{where} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            ran.append(block)
    assert ran == [b for b in blocks(page) if b.language in RUN and not b.marked]


def check_session(desk: Desk, block: Block, where: str) -> None:
    """Commands after ``$``, each with the output that the page shows; ``...`` stands for anything."""
    for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.code, re.MULTILINE):
        done = desk.shell(command)
        said = done.stdout + done.stderr
        assert doctest.OutputChecker().check_output(shown, said, ELLIPSIS), f"{where}: {command}\n{said}"


def test_the_pages_have_blocks_of_known_languages_only() -> None:
    for name, page in zip(NAMES, PAGES, strict=True):
        for block in blocks(page):
            assert block.language in RUN | SHOWN, f"{name}:{block.line} is a block of {block.language!r}"
            if block.language in SHOWN:
                assert not re.search(r"^(\$ |repo-builder )", block.code, re.MULTILINE), (
                    f"{name}:{block.line} hides one"
                )


def test_every_comment_that_takes_a_block_out_stands_directly_above_one() -> None:
    for name, page in zip(NAMES, PAGES, strict=True):
        comments = page.read_text(encoding="utf-8").count("<!-- not run in tests")
        assert comments == sum(block.marked for block in blocks(page)), name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_spec_of_a_page_is_valid(page: Path, tmp_path: Path) -> None:
    for block in (b for b in blocks(page) if b.language == "yaml"):
        path = tmp_path / "spec.yaml"
        path.write_text(block.code, encoding="utf-8")
        assert spec.load(path).models, f"{page}:{block.line}"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_every_example_is_valid_and_a_page_uses_it(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    import yaml

    assert spec.load(path).models
    schema = json.loads((ROOT / "docs" / "spec.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema)
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=../docs/spec.schema.json\n")
    assert any(f"examples/{path.name}" in page.read_text(encoding="utf-8") for page in PAGES)


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Relative links of a page: as written, the file, the anchor."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    found = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'(?:src|srcset|href)="([^"]+)"', prose)
    for link in found:
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = link.partition("#")
            yield link, (page.parent / path).resolve() if path else page, anchor


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_relative_link_resolves(page: Path) -> None:
    for link, path, anchor in links(page):
        assert path.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(path), f"{page.name}: {link} has no such heading"


def test_every_page_is_linked_from_the_index() -> None:
    indexes = (ROOT / "docs" / "README.md", ROOT / "docs" / "tasks" / "README.md")
    linked = {path for index in indexes for _, path, _ in links(index)}
    assert [n for n, p in zip(NAMES, PAGES, strict=True) if p not in linked and n != "docs/README.md"] == []


def test_the_pages_name_no_machine_and_no_other_registry() -> None:
    for name, page in zip(NAMES, PAGES, strict=True):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(tmp|work|root|home)/", text), name
        hosts = set(re.findall(r"https?://([\w.-]+)", text))
        known = {"download.pytorch.org", "github.com", "pypi.org", "huggingface.co", "keepachangelog.com", "127.0.0.1"}
        assert hosts <= known | {"docs.nvidia.com", "semver.org", "www.apache.org"}, name


def test_the_generated_parts_are_what_the_generator_writes() -> None:
    location = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert location is not None
    assert location.loader is not None
    generator = importlib.util.module_from_spec(location)
    location.loader.exec_module(generator)
    for page, text in generator.pages():
        assert page.read_text(encoding="utf-8") == text, f"{page.relative_to(ROOT)} is old: run `make docs`"
