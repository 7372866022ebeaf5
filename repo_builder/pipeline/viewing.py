"""``view``: a model's graph in netron on this machine, or a repository's flow as a picture."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
from pathlib import Path

from repo_builder.errors import MissingDependencyError, SourceMissingError, UsageError
from repo_builder.pipeline import flow, flow_picture, serving

_HOST = "127.0.0.1"


def picture(
    repository: Path, *, svg: Path | None = None, html: Path | None = None, port: int = 0, browse: bool = False
) -> tuple[Path, ...]:
    """Write the flow of a repository; gives the files.

    Raises:
        UsageError: no repository, or ``port`` or ``browse``, which mean the view of a model's graph, are asked for.
    """
    if port or browse:
        raise UsageError(
            f"{'--port' if port else '--open'} goes with the view of a model's graph, and --svg and --html write files",
            expected="--svg and --html alone, or neither",
            mend="write the file, then open it in a browser",
        )
    configs = serving.configs(repository) if repository.is_dir() else {}
    if not configs:
        raise UsageError(
            f"{repository} is no model repository",
            expected="a folder of models with a config.pbtxt each, for --svg and --html",
            mend=f"repo-builder view {repository} shows the graph of a model",
        )
    flows = flow.flows(configs)
    made = ((svg, flow_picture.svg), (html, lambda found: flow_picture.html(repository.resolve().name, found)))
    written = []
    for file, draw in made:
        if file is not None:
            file.write_text(draw(flows), encoding="utf-8")
            written.append(file)
    return tuple(written)


def model(path: Path, *, port: int = 0, browse: bool = False) -> str:
    """Serve netron with a model's graph on 127.0.0.1, from a thread of this process; gives the address.

    netron gives out every file of the folder that its model lies in, so the file is linked into a folder of its own,
    which goes with this process; weights in files beside it are not shown.

    Args:
        port: 0 takes a free one.
        browse: open the browser.

    Raises:
        SourceMissingError: there is no such file.
        UsageError: a folder: a repository has no graph, of another one file is named.
        MissingDependencyError: netron is not installed.
    """
    if not path.exists():
        raise SourceMissingError(f"there is no file {path}", expected="a model file that netron reads")
    if path.is_dir() and serving.configs(path):
        raise UsageError(
            f"{path} is a model repository", expected="a model file", mend="add --svg FILE or --html FILE for its flow"
        )
    if path.is_dir():
        raise UsageError(f"{path} is a folder", expected="a model file that netron reads", mend="name the file in it")
    try:
        import netron
    except ImportError as error:
        raise MissingDependencyError(
            "the view of a graph needs the package netron, which is not installed",
            mend="pip install 'repo-builder[view]'",
        ) from error
    logging.getLogger("netron").setLevel(logging.WARNING)
    host, chosen = netron.serve(str(_alone(path)), None, address=(_HOST, port or _free()), browse=browse)
    return f"http://{host}:{chosen}"


def _alone(path: Path) -> Path:
    folder = tempfile.mkdtemp(prefix="repo_builder-view-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    alone = Path(folder) / path.name
    try:
        alone.hardlink_to(path.resolve())
    except OSError:
        shutil.copyfile(path, alone)
    return alone


def wait() -> None:
    """Until Ctrl-C."""
    import threading

    threading.Event().wait()


def _free() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        return int(listener.getsockname()[1])
