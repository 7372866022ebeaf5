"""The folder of backends that the embedded server loads, made beside its environment."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

STAND_INS = Path(__file__).parent / "backends"
PACKAGES = Path(__file__).parent / "stand_ins"
"""Python packages that stand in for others: beside the Python backend's own, which its models find."""
_WORKER = Path(__file__).parent.parent / "tensorrt" / "worker"
_NAMES = ("allocator.py", "cuda.py", "profile_values.py")
SHARED = {f"tensorrt/tensorrt_stand_in/{name}": _WORKER / name for name in _NAMES}
"""Files of the stand-ins that lie elsewhere in this package, by their places in the backend directory."""


def make(environment: Path, python: str, libpython: Path) -> Path:
    """The backend directory of an environment: the wheel's Python backend with the right stub, and our stand-ins.

    It is named by the digest of the stand-ins, so an edited one is never served from an old copy. ``lib/`` inside
    holds a link to the one shared library of Python that the stub must find.

    Args:
        environment: folder of the virtual environment that holds nvidia-pytriton.
        python: ``3.11``.
        libpython: the shared library of that Python.
    """
    digest = hashlib.sha256(str(libpython).encode())
    own = {path.relative_to(STAND_INS).as_posix(): path for path in STAND_INS.rglob("*.py")}
    packages = {f"python/{path.relative_to(PACKAGES).as_posix()}": path for path in PACKAGES.rglob("*.py")}
    for place, path in sorted({**own, **packages, **SHARED}.items()):
        digest.update(f"\0{place}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    final = environment / f"backends-{digest.hexdigest()[:12]}"
    if final.is_dir():
        return final
    triton = wheel(environment)
    made = Path(tempfile.mkdtemp(prefix=".backends-", dir=environment))
    try:
        compiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(triton / "backends" / "python", made / "python", ignore=compiled)
        stub = triton / "python_backend_stubs" / python / "triton_python_backend_stub"
        (made / "python" / stub.name).write_bytes(stub.read_bytes())
        (made / "python" / stub.name).chmod(0o755)
        shutil.copytree(STAND_INS, made, ignore=compiled, dirs_exist_ok=True)
        shutil.copytree(PACKAGES, made / "python", ignore=compiled, dirs_exist_ok=True)
        for place, path in SHARED.items():
            shutil.copyfile(path, made / place)
        (made / "lib").mkdir()
        (made / "lib" / libpython.name).symlink_to(libpython)
        made.chmod(0o755)
        try:
            os.rename(made, final)  # noqa: PTH104 (Path.rename is the same call; a loser of the race must not nest)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return final


def wheel(environment: Path) -> Path:
    """``pytriton/tritonserver`` of an environment: the binary, its backends and its stubs."""
    return next((environment / "lib").glob("python3.*/site-packages/pytriton/tritonserver"))


def libraries(environment: Path) -> Path:
    """The folder of shared libraries that the wheel brings."""
    return next((environment / "lib").glob("python3.*/site-packages/nvidia_pytriton.libs"))


def installed(environment: Path, distribution: str) -> str | None:
    """The version of a distribution in an environment, without starting its Python."""
    found = (environment / "lib").glob(f"python3.*/site-packages/{distribution}-*.dist-info")
    return next((path.name.removesuffix(".dist-info").split("-")[1] for path in sorted(found)), None)
