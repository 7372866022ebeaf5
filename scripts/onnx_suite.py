"""ONNX's own backend test suite (the node cases of the package ``onnx``), each case built and served.

`python scripts/onnx_suite.py [--only PART,PART] [--page FILE]`

A case becomes a model of the task ``tensors``, with its own inputs as samples; one embedded server loads and unloads
the models of a batch, and the client's answers are compared with the case's outputs and with ONNX Runtime in process.
The counts by reason go into the page. It ends with 1 where a case is right in process and lost for no known reason.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from scripts import onnx_cases  # noqa: E402

PAGE = ROOT / "docs" / "onnx-suite.md"
BEGIN, END = "<!-- written by `make onnx-suite`: begin -->", "<!-- written: end -->"
AT_ONCE = 100
"""Cases of one repository and one server."""
LOADED = 2
"""Models that the server loads at once: each is a process of its own."""
RIGHT = "right"

LACKING = {
    "a sequence or optional type": r"is (a sequence|an optional|a map)",
    "no inputs": r"has no inputs",
    "an output that is always empty": r"of the output '\S+' in \S+ has size 0",
    "BF16, which numpy lacks": r"is BF16|dtype BF16",
    "a dtype that Triton lacks": r"which Triton does not have",
    "an operator set newer than the target's": r"has opset \d+ and IR version \d+, and cannot be lowered",
    "an operator or dtype newer than the target's ONNX Runtime": r"load failed .* Could not find an implementation for",
}
"""What cannot be served, by what the build says of it, or the target's older ONNX Runtime when it loads the model."""
RUNTIME = {
    "an operator set newer than ONNX Runtime": r"Opset \d+ is under development|Unsupported model IR version",
    "ONNX Runtime lacks the operator or the dtype": r"ONNX Runtime (\S+ does not load|failed on)",
}
"""What cannot be served since ONNX Runtime does not run it, so never a case that is right in process."""


@dataclass(frozen=True)
class Verdict:
    """What became of a case.

    Attributes:
        process: ``right``, or what ONNX Runtime in process does instead.
        served: ``right``, or what became of it on the way.
        why: the error's first line.
    """

    name: str
    process: str
    served: str
    why: str = ""

    @property
    def lost(self) -> bool:
        """Right in process, and not right when served, though Triton lacks nothing for it."""
        return self.process == RIGHT and self.served != RIGHT and self.served not in LACKING


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", default="", help="parts of names, by commas")
    parser.add_argument("--page", type=Path, help=f"default: {PAGE.relative_to(ROOT)}, where all cases are run")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parts = asked.only.split(",")
    chosen = [case for case in onnx_cases.cases() if any(part in case.name for part in parts)]
    verdicts: list[Verdict] = []
    versions: dict[str, str] = {}
    for start in range(0, len(chosen), AT_ONCE):
        verdicts += run(chosen[start : start + AT_ONCE], versions)
        right = sum(v.served == RIGHT for v in verdicts)
        print(f"{len(verdicts)} of {len(chosen)}: {right} right, {sum(v.lost for v in verdicts)} lost", flush=True)
    for verdict in verdicts:
        if verdict.served != RIGHT or verdict.process != RIGHT:
            print(f"{verdict.name}: in process {verdict.process}; served {verdict.served} {verdict.why}".rstrip())
    table = render(verdicts, versions)
    print(table)
    page = asked.page or (None if asked.only else PAGE)
    if page:
        page.write_text(replaced(page.read_text(encoding="utf-8"), table), encoding="utf-8")
    sys.exit(any(v.lost for v in verdicts))


def run(chosen: Sequence[Any], versions: dict[str, str]) -> list[Verdict]:
    """Build these cases into one temporary repository, serve it, and compare; ``versions`` gets those that served."""
    processed = {case.name: in_process(case) for case in chosen}
    with tempfile.TemporaryDirectory() as folder:
        result = build(chosen, Path(folder))
        built = [case for case in chosen if case.name not in result.failed]
        served = dict(zip([c.name for c in built], serve(built, result, versions), strict=True)) if built else {}
    verdicts = []
    for case in chosen:
        own, answers = processed[case.name]
        if case.name in result.failed:
            found = result.failed[case.name].found
            verdicts.append(Verdict(case.name, own, reason(found), found.splitlines()[0]))
            continue
        given = served[case.name]
        if isinstance(given, str):
            verdicts.append(Verdict(case.name, own, reason(given), given))
        elif not (why := onnx_cases.difference(case, case.data_sets[0][1], given)):
            verdicts.append(Verdict(case.name, own, RIGHT))
        elif answers is not None and not onnx_cases.difference(case, answers, given):
            verdicts.append(Verdict(case.name, own, "as in process", why))
        else:
            verdicts.append(Verdict(case.name, own, "wrong", why))
    return verdicts


def in_process(case: Any) -> tuple[str, list[Any] | None]:
    """What ONNX Runtime makes of the case by itself: its verdict, and its answers where it has any."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    inputs, expected = case.data_sets[0]
    try:
        session = onnxruntime.InferenceSession(case.model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - ONNX Runtime's exceptions have no base of their own
        return "refused", None
    try:
        answers = session.run(None, dict(zip([i.name for i in session.get_inputs()], inputs, strict=True)))
    except Exception:  # noqa: BLE001
        return "fails", None
    return "wrong" if onnx_cases.difference(case, expected, answers) else RIGHT, answers


def build(chosen: Sequence[Any], folder: Path) -> Any:
    """The repository of these cases, built as any ONNX file is, with the cases' inputs as samples; not yet served."""
    from repo_builder import pipeline
    from repo_builder.spec import Spec

    models = []
    for case in chosen:
        source, samples = folder / f"{case.name}.onnx", folder / f"{case.name}.npz"
        source.write_bytes(case.model.SerializeToString())
        arrays = zip([i.name for i in case.model.graph.input], case.data_sets[0][0], strict=False)
        np.savez(samples, **{name: onnx_cases.sample(array) for name, array in arrays})
        one = {"name": case.name, "source": str(source), "task": "tensors", "cpus": 1}
        models.append({**one, "samples": {"arrays": [str(samples)]}})
    return pipeline.build(Spec.model_validate({"models": models}), folder / "repository", verify=False)


def serve(built: Sequence[Any], result: Any, versions: dict[str, str]) -> list[list[Any] | str]:
    """The server's answers to each case, in the order of the case's outputs, or what it said instead."""
    from repo_builder import client, releases, server
    from repo_builder.pipeline import serving

    options = ["--model-control-mode=explicit", "--disable-auto-complete-config"]
    release = releases.release(result.target)
    proofs = {name: stored for name, (stored, _) in serving.stored_proofs(result.repository).items()}
    with (
        server.start(result.repository, onnxruntime=serving.runtime(release), extra_args=options) as running,
        client.connect(running.url) as triton,
        ThreadPoolExecutor(LOADED) as pool,
    ):

        def ask(case: Any) -> list[Any] | str:
            try:
                triton.load([case.name])
                answers = triton.infer(case.name, proofs[case.name].cases[0].inputs)
                triton.unload([case.name])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this case's
                return str(error).splitlines()[0]
            return [onnx_cases.shaped(answers[output.name], output) for output in case.model.graph.output]

        versions |= {"target": result.target, **running.versions}
        return list(pool.map(ask, built))


def reason(found: str) -> str:
    """The known reason of an error, else its words without names and numbers."""
    for known, pattern in (LACKING | RUNTIME).items():
        if re.search(pattern, found):
            return known
    return re.sub(r"\S*test_\S+|'[^']*'|\d+", "_", found.splitlines()[0])[:160]


def render(verdicts: Sequence[Verdict], versions: Mapping[str, str]) -> str:
    """What became of the cases that are right in process, and of the others."""
    import onnx
    import onnxruntime

    counts = Counter((v.process == RIGHT, v.served) for v in verdicts)
    right = [v for v in verdicts if v.process == RIGHT]
    served = sum(v.served == RIGHT for v in right)
    lost = sum(v.lost for v in verdicts)
    lines = [
        f"onnx {onnx.__version__} has {len(verdicts)} node cases. ONNX Runtime {onnxruntime.__version__} in process "
        f"answers {len(right)} of them as they tell.",
        f"Of these {served} are right when served (tritonserver {versions['tritonserver']}, ONNX Runtime "
        f"{versions['onnxruntime']}, target {versions['target']}), {lost} are lost, and {len(right) - served - lost} "
        "are refused for what Triton or the target lacks.",
        "",
    ]
    for among, title in ((True, "right in process"), (False, "not right in process: wrong, refused or failing")):
        lines += [f"| {title} | cases |", "| --- | --- |"]
        lines += [f"| {what} | {count} |" for (own, what), count in counts.most_common() if own == among]
        lines.append("")
    return "\n".join(lines).rstrip()


def replaced(page: str, table: str) -> str:
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    main()
