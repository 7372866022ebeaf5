"""The Python that serves plans: the server's environment is made with the one that has TensorRT, and finds it there."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from repo_builder.errors import TensorRTMissingError
from repo_builder.tensorrt import installation
from repo_builder.toolchain import Interpreter

_ASK = """
import dataclasses, json, os, sys
import tensorrt  # before our packages are on the path: its own
sys.path.insert(0, sys.argv[1])
from repo_builder import toolchain
facts = dataclasses.asdict(toolchain.this_interpreter())
site = os.path.dirname(os.path.dirname(os.path.abspath(tensorrt.__file__)))
told = {"interpreter": facts, "site": site, "libraries": os.environ.get("LD_LIBRARY_PATH", "")}
print(json.dumps(told, default=str))
"""
_PATH_FILE = "repo_builder_tensorrt.pth"


@dataclass(frozen=True)
class TensorRTPython:
    """A Python that has TensorRT.

    Attributes:
        interpreter: its base installation.
        site: the folder that holds the package ``tensorrt``.
        libraries: its ``LD_LIBRARY_PATH``, where a wrapper sets one.
        version: of TensorRT.
    """

    interpreter: Interpreter
    site: str
    libraries: str
    version: str

    @property
    def environment(self) -> str:
        """The name of the server's environment that imports this TensorRT, and no other of the same base Python."""
        return f"server-tensorrt-{hashlib.sha256(self.site.encode()).hexdigest()[:8]}"

    def show_to(self, environment: Path) -> None:
        """Let a virtual environment import what lies in ``site``, after its own packages."""
        folder = next((environment / "lib").glob("python3.*/site-packages"))
        path = folder / _PATH_FILE
        if path.is_file() and path.read_text(encoding="utf-8").strip() == self.site:
            return
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, suffix=".partial", delete=False) as partial:
            partial.write(self.site + "\n")
        Path(partial.name).chmod(0o644)
        Path(partial.name).replace(path)


def find() -> TensorRTPython:
    """The Python with the TensorRT that builds plans here.

    Raises:
        TensorRTMissingError: there is none, or it sees no GPU.
    """
    found = installation.builder()
    root = Path(__file__).parent.parent.parent
    ran = subprocess.run(
        [found.python, "-B", "-c", _ASK, root], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise TensorRTMissingError(
            f"{found.python} cannot serve plans: {(ran.stderr.strip() or 'it failed').splitlines()[-1]}",
            expected="Python 3.10 to 3.12 with TensorRT",
            mend="install TensorRT in such a Python, or serve the repository with the target's own image",
        )
    told = json.loads(ran.stdout.splitlines()[-1])
    facts = told["interpreter"]
    interpreter = Interpreter(
        executable=Path(facts["executable"]),
        version=tuple(facts["version"]),
        prefix=Path(facts["prefix"]),
        libraries=tuple(map(Path, facts["libraries"])),
        missing=tuple(facts["missing"]),
        glibc=tuple(facts["glibc"]),
    )
    return TensorRTPython(interpreter, told["site"], told["libraries"], found.version)
