"""What matters in a server's log: its error lines and the table of models that did not load."""

from __future__ import annotations

import re

_ENTRY = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d")
_ERROR = re.compile(r"^[EF]\d{4} \d\d:\d\d:\d\d\S* \S+ (\S+?):\d+\] (.*)")
_WORDS = re.compile(
    r"^(error|fatal|failed|terminate|Segmentation|ImportError|OSError)|error while loading", re.IGNORECASE
)
_NO_GPU = re.compile(r"CudaDriverHelper has not been initialized|Failed to initialize NVML")
"""What every start on a machine without a GPU says."""
_UNLOADED = re.compile(r"\|.*\b(UNAVAILABLE|UNLOADED)\b")


def errors(log: str, limit: int = 40) -> str:
    """The error entries of a log with the lines that belong to them, each once; its last lines where there are none."""
    kept: list[str] = []
    inside = False
    for line in log.splitlines():
        if _NO_GPU.search(line):
            continue
        if match := _ERROR.match(line):
            inside = True
            kept.extend(_lines(match.group(2).strip('"')))
        elif _ENTRY.match(line):
            inside = False
        elif (inside and line.strip()) or _UNLOADED.search(line) or _WORDS.search(line):
            kept.append(line.rstrip().strip('"'))
            inside = inside and not line.startswith(("+", "|"))
    unique = list(dict.fromkeys(line for line in kept if line))
    return "\n".join((unique or log.splitlines())[-limit:])


def _lines(entry: str) -> list[str]:
    """The lines of an entry; the server writes their ends as a backslash and an n."""
    return [line for line in entry.split(r"\n") if line.strip() and "<frozen importlib" not in line]


def port_in_use(text: str) -> bool:
    """Whether the errors say that a port was taken."""
    return bool(re.search(r"address already in use|Socket '.*' already in use", text, re.IGNORECASE))


def indent(text: str) -> str:
    """The text as it stands under a message."""
    return "\n".join(f"    {line}" for line in text.splitlines())
