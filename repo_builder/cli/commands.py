"""The verbs of ``repo-builder``."""

from __future__ import annotations

import contextlib
import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

import repo_builder
from repo_builder.cli import printing
from repo_builder.cli.chat_command import chat

app = typer.Typer(
    name="repo-builder",
    help="From a trained model to a Triton model repository that is proven against a real tritonserver.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


bench = typer.Typer(help="Time something on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")
app.command()(chat)
toolchain = typer.Typer(help="Environments of frameworks, kept in the cache.", no_args_is_help=True)
app.add_typer(toolchain, name="toolchain")
REFUSED = 24
"""Exit code where TensorRT's parser refuses a graph: that of ``TensorRTError``."""


class Engine(str, Enum):
    onnx = "onnx"
    torchscript = "torchscript"
    torch_aoti = "torch_aoti"
    tensorrt = "tensorrt"
    tensorrt_llm = "tensorrt-llm"
    llmapi = "llmapi"
    vllm = "vllm"


class Precision(str, Enum):
    fp32 = "fp32"
    tf32 = "tf32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"
    fp8 = "fp8"


class Exporter(str, Enum):
    dynamo = "dynamo"
    script = "script"
    trace = "trace"


def _version(value: bool) -> None:
    if value:
        print(f"repo-builder {repo_builder.__version__}")
        raise typer.Exit


def _schema(value: bool) -> None:
    if value:
        from repo_builder import model_config, spec

        print(json.dumps(spec.json_schema(model_config.json_schema()), indent=2))
        raise typer.Exit


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Target = Annotated[str | None, typer.Option(help="Triton release, e.g. 26.07; default: the newest known.")]
Server = Annotated[str, typer.Option(help="Where to prove: embedded, docker, or HOST:PORT (gRPC).")]
ReportFile = Annotated[Path | None, typer.Option("--report", help="Also write the report to this JSON file.")]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", metavar="FILE", help="A plugin library to load first; repeat.")
]
VersionCompatible = Annotated[
    bool, typer.Option("--version-compatible", help="Let a plan run the TensorRT that it carries: trust it.")
]
Repository = Annotated[Path, typer.Argument(help="A model repository.")]


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
def build(
    model: Annotated[str, typer.Argument(metavar="MODEL|SPEC.yaml", help="A model, or a spec of one or many.")],
    task: Annotated[str | None, typer.Option(help="What the model serves; default: guessed from its files.")] = None,
    engine: Annotated[Engine | None, typer.Option(help="What Triton runs.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Arithmetic of the engine (tensorrt).")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The repository.")] = Path("model_repository"),
    target: Target = None,
    name: Annotated[str | None, typer.Option(help="Name of the served model.")] = None,
    exporter: Annotated[Exporter | None, typer.Option(help="Only this exporter; default: a chain.")] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="CPU cores to serve with: one instance each; default: this machine's.")
    ] = None,
    max_batch_size: Annotated[int | None, typer.Option(min=0, help="Largest batch; of LLMs, sequences.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of LLMs: auto, float16, bfloat16, float32.")] = None,
    quantization: Annotated[str | None, typer.Option(help="Of LLMs: fp8, int8_sq, int4_awq, ...")] = None,
    tp: Annotated[int | None, typer.Option(min=1, help="Of LLMs: tensor parallelism, in GPUs.")] = None,
    pp: Annotated[int | None, typer.Option(min=1, help="Of LLMs: pipeline parallelism, in GPUs.")] = None,
    max_input_len: Annotated[int | None, typer.Option(min=1, help="Of LLMs: longest prompt, in tokens.")] = None,
    max_seq_len: Annotated[int | None, typer.Option(min=1, help="Of LLMs: prompt and answer, in tokens.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Of engine folders: the Hugging Face folder.")] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Open a pickle of scikit-learn, which runs the code in it.")
    ] = False,
    server: Server = "embedded",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not serve and compare.")] = False,
    new_version: Annotated[bool, typer.Option("--new-version", help="Append a version, keep the old ones.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Models built at once.")] = 1,
    report: ReportFile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    _schema_only: Annotated[
        bool, typer.Option("--schema", callback=_schema, is_eager=True, help="Print the spec's JSON Schema.")
    ] = False,
) -> None:
    """Convert a model, write its repository, and prove it through a real server."""
    from repo_builder import pipeline

    printing.mode(as_json=as_json, quiet=quiet)
    llm = {
        "dtype": dtype,
        "quantization": quantization,
        "tp": tp,
        "pp": pp,
        "max_input_len": max_input_len,
        "max_seq_len": max_seq_len,
        "tokenizer": tokenizer,
    }
    llm = {option: value for option, value in llm.items() if value is not None}
    with printing.results_apart(), printing.progress() as progress:
        result = pipeline.build(
            model,
            out,
            target=target,
            server=server,
            verify=not no_verify,
            new_version=new_version,
            jobs=jobs,
            dry_run=dry_run,
            progress=progress,
            task=task,
            engine=engine.value if engine else None,
            precision=precision.value if precision else None,
            name=name,
            exporter=exporter.value if exporter else None,
            cpus=cpus,
            batching=None if max_batch_size is None else {"max_batch_size": max_batch_size},
            llm=llm or None,
            trust_pickle=trust_pickle or None,
        )
    if report and not dry_run:
        printing.write_report(report, result)
    printing.built(result, dry_run=dry_run)
    result.raise_failed()


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A model, a TensorRT plan, a spec, or a repository.")],
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="Of an ONNX file: what TensorRT's parser refuses, and the mend; no GPU.")
    ] = False,
    plugin: Plugins = None,
    version_compatible: VersionCompatible = False,
    as_json: Json = False,
) -> None:
    """Show what a model is: format, inputs, outputs, opset, size; of a plan its profiles and precision."""
    from repo_builder import pipeline

    printing.mode(as_json=as_json)
    with printing.results_apart(), printing.progress() as progress:
        if tensorrt:
            found = pipeline.preflight(
                model,
                lambda said: progress(model, said),
                plugins=plugin or (),
                version_compatible=version_compatible,
            )
        else:
            found = pipeline.inspect(model, plugins=plugin or (), version_compatible=version_compatible)
    printing.inspected(found)
    if tensorrt and not found["supported"]:
        raise typer.Exit(REFUSED)


@app.command()
def view(
    model: Annotated[Path, typer.Argument(metavar="MODEL|REPOSITORY", help="A model file, or a repository.")],
    svg: Annotated[Path | None, typer.Option("--svg", help="Of a repository: write its flow to this SVG file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Of a repository: write its flow to this page.")] = None,
    port: Annotated[int, typer.Option(help="0 chooses a free one.", min=0, max=65535)] = 0,
    browse: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
) -> None:
    """Show a model's graph with netron on 127.0.0.1 until Ctrl-C, or draw a repository's flow into a file.

    netron's page may ask services of its own on the internet; the model stays here.
    """
    from repo_builder.pipeline import viewing

    if svg or html:
        for file in viewing.picture(model, svg=svg, html=html, port=port, browse=browse):
            printing.note(f"wrote {file}")
        return
    print(viewing.model(model, port=port, browse=browse), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        viewing.wait()


@app.command()
def serve(
    repository: Repository,
    grpc_port: Annotated[int, typer.Option(help="0 chooses a free one.", min=0, max=65535)] = 8001,
    http_port: Annotated[int, typer.Option(help="0 chooses a free one.", min=0, max=65535)] = 8000,
    metrics_port: Annotated[int, typer.Option(help="0 chooses a free one.", min=0, max=65535)] = 8002,
    target: Target = None,
) -> None:
    """Run the embedded server on 127.0.0.1 until Ctrl-C."""
    from repo_builder import pipeline

    with printing.results_apart(), printing.progress() as progress:
        running = pipeline.serve(
            repository,
            target=target,
            ports=(grpc_port, http_port, metrics_port),
            progress=lambda said: progress(repository.name, said),
        )
    with running, contextlib.suppress(KeyboardInterrupt):
        printing.serving(running, repository)
        running.wait()
    printing.note("stopped")


@app.command()
def infer(
    where: Annotated[str, typer.Argument(metavar="TARGET", help="A repository, or grpc://HOST:PORT.")],
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    text: Annotated[list[str] | None, typer.Option(help="A text; repeat for a batch.")] = None,
    tensors: Annotated[list[str] | None, typer.Option("--input", help="NAME=FILE.npy, or NAME=VALUE; repeat.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for outputs as NAME.npy.")] = None,
    as_json: Json = False,
) -> None:
    """Send one request and print the answer."""
    from repo_builder import pipeline

    printing.mode(as_json=as_json)
    with printing.results_apart(), printing.progress() as progress:
        answer = pipeline.infer(
            where, model, texts=text or [], tensors=tensors or [], progress=lambda said: progress(model, said)
        )
    printing.answered(answer, out)


@app.command()
def validate(
    repository: Repository,
    url: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A running server (gRPC).")] = None,
    server: Server = "embedded",
    source: Annotated[
        str | None, typer.Option(metavar="MODEL|SPEC.yaml", help="Compute the reference again from the source.")
    ] = None,
    target: Target = None,
    report: ReportFile = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Replay the stored proof against a server; needs no framework."""
    from repo_builder import pipeline

    printing.mode(as_json=as_json, quiet=quiet)
    with printing.results_apart(), printing.progress() as progress:
        result = pipeline.validate(repository, server=url or server, source=source, target=target, progress=progress)
    if report:
        printing.write_report(report, result)
    printing.built(result)
    result.raise_failed()


@app.command()
def merge(
    a: Annotated[Path, typer.Argument(help="A repository built on one GPU (or a merged one).")],
    b: Annotated[Path, typer.Argument(help="The same, built on a GPU of another kind.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The merged repository.")] = Path("model_repository"),
    config_name: Annotated[
        list[str] | None,
        typer.Option(metavar="CC=NAME", help="Name of a GPU's configs where they differ: 9.0=h100; repeat."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make one repository of two that were built on GPUs of different kinds."""
    from repo_builder.pipeline import merging

    printing.mode(as_json=as_json)
    names = dict(given.partition("=")[::2] for given in config_name or [])
    with printing.results_apart():
        result = merging.merge(a, b, out, names=names)
    printing.inspected(merging.summary(result))


@bench.command("engine")
def bench_engine(
    plan: Annotated[str, typer.Argument(help="A TensorRT plan.")],
    batch: Annotated[list[int] | None, typer.Option(help="Batch size; repeat; default: the optimum.")] = None,
    cuda_graph: Annotated[bool, typer.Option("--cuda-graph", help="Launch the computation as one CUDA graph.")] = False,
    plugin: Plugins = None,
    version_compatible: VersionCompatible = False,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each run.")] = 3,
    as_json: Json = False,
) -> None:
    """Time a plan on the GPU as trtexec does: throughput, latency, copies, for each profile and batch size."""
    from repo_builder import pipeline
    from repo_builder.tensorrt import performance

    printing.mode(as_json=as_json)
    with printing.results_apart(), printing.progress() as progress:
        measured = pipeline.bench(
            plan,
            batches=batch or (),
            cuda_graph=cuda_graph,
            plugins=plugin or (),
            version_compatible=version_compatible,
            duration_s=seconds,
            progress=lambda said: progress(plan, said),
        )
    if as_json:
        printing.inspected(measured.as_json())
    else:
        print(performance.table(measured))


@toolchain.command("list")
def toolchain_list(as_json: Json = False) -> None:
    """Show which environments there are, and which frameworks would make one on first use."""
    from repo_builder.pipeline import toolchains

    printing.mode(as_json=as_json)
    printing.inspected(toolchains.listed())


@toolchain.command("install")
def toolchain_install(
    name: Annotated[
        str, typer.Argument(help="A framework, as `toolchain list` names it; its version may be left out.")
    ],
) -> None:
    """Make the environment of a framework now, where a network is: builds make it on first use."""
    from repo_builder.pipeline import toolchains

    with printing.results_apart(), printing.progress() as progress:
        python = toolchains.install(name, lambda said: progress(name, said))
    print(python)


@toolchain.command("remove")
def toolchain_remove(
    name: Annotated[str, typer.Argument(help="An environment, as `toolchain list` names it.")],
) -> None:
    """Delete an environment; the next build that needs it makes it again."""
    from repo_builder.pipeline import toolchains

    for home in toolchains.remove(name):
        printing.note(f"removed {home}")


@toolchain.command("path")
def toolchain_path(
    name: Annotated[str, typer.Argument(help="An environment, as `toolchain list` names it.")],
) -> None:
    """Print the path of an environment's Python."""
    from repo_builder.pipeline import toolchains

    print(toolchains.path(name))
