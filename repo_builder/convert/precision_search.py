"""Which nodes must stay in float32 so that the loss keeps a limit: found by measuring, within a budget of attempts.

1. Groups: all nodes of one operator; where there is one operator only, blocks of neighbours in the graph.
2. Each group is kept alone and measured; the groups are put in the order of what they bring.
3. The shortest beginning of that order that keeps the limit is found by halving.
4. What it holds is given back to the low precision half by half, down to single nodes, as long as the limit holds.

The result keeps the limit, and without any of its nodes (or, where the budget ended before, of its runs of
neighbours) the limit is missed. It need not be the smallest set there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from repo_builder.errors import ConversionError

Attempt = Callable[[frozenset[str]], float]
BLOCKS = 12
BUDGET = 32


class _Spent(Exception):
    """The budget is used up."""


def search(nodes: Mapping[str, str], attempt: Attempt, limit: float, *, budget: int = BUDGET) -> dict[str, float]:
    """Nodes to keep in float32, each with the error that the model has without it (and its neighbours in one run).

    Args:
        nodes: name -> operator, in the order of the graph.
        attempt: the error when these nodes are kept; infinity where an answer is not finite.
        limit: the error to stay under.
        budget: attempts at most.

    Raises:
        ConversionError: the limit is missed with all of them in float32.
    """
    known: dict[frozenset[str], float] = {}

    def error(kept: Sequence[str]) -> float:
        key = frozenset(kept)
        if key not in known:
            if len(known) >= budget:
                raise _Spent
            known[key] = attempt(key)
        return known[key]

    if not nodes or error(()) <= limit:
        return {}
    kept = list(nodes)
    if error(kept) > limit:
        raise ConversionError(
            f"with all of them in float32 the relative error is {known[frozenset(kept)]:.2g}, more than {limit:.2g}",
            expected="a limit that the rest of the graph keeps",
            mend="choose a precision with more digits",
        )
    without: dict[str, float] = dict.fromkeys(kept, known[frozenset()])
    try:
        groups = sorted(_groups(nodes), key=error)
        kept = _shortest(groups, error, limit)
        without = dict.fromkeys(kept, known[frozenset()])
        _give_back(kept, error, limit, without)
    except _Spent:
        pass
    return {name: without[name] for name in nodes if name in without}


def _groups(nodes: Mapping[str, str]) -> list[list[str]]:
    operators: dict[str, list[str]] = {}
    for name, operator in nodes.items():
        operators.setdefault(operator, []).append(name)
    if len(operators) > 1:
        return list(operators.values())
    names = list(nodes)
    size = -(-len(names) // BLOCKS)
    return [names[i : i + size] for i in range(0, len(names), size)]


def _shortest(groups: Sequence[Sequence[str]], error: Callable[[Sequence[str]], float], limit: float) -> list[str]:
    low, high = 1, len(groups)
    while low < high:
        middle = (low + high) // 2
        if error([name for group in groups[:middle] for name in group]) <= limit:
            high = middle
        else:
            low = middle + 1
    return [name for group in groups[:high] for name in group]


def _give_back(
    kept: list[str], error: Callable[[Sequence[str]], float], limit: float, without: dict[str, float]
) -> None:
    runs = [list(kept)]
    while runs:
        run = runs.pop()
        rest = [name for name in kept if name not in run]
        found = error(rest)
        if found <= limit:
            kept[:] = rest
            for name in run:
                del without[name]
            continue
        without.update(dict.fromkeys(run, found))
        if len(run) > 1:
            half = len(run) // 2
            runs += [run[half:], run[:half]]
