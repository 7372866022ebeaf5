"""Opens a plan and tells what it is: ``inspect_plan.py REQUEST ANSWER`` (JSON files).

Request: ``plan`` (path), ``plugins`` (paths), ``raw`` (where to write the inspector's own JSON, or null), ``module``,
``allow_host_code`` (default false: a version-compatible plan carries a runtime library that opening it would run).

Answer: ``module``, ``version``, ``plan_bytes`` and ``inspection`` (see inspection.inspect), ``text`` (see
plan_text.read).
"""

from __future__ import annotations

import inspection
import plan_text
import runtime


def work(request):
    trt = runtime.load(request)
    log = runtime.logger(trt)
    with open(request["plan"], "rb") as handle:
        plan = handle.read()
    runtime.load_plugins(trt, log, request.get("plugins") or [])
    _opener, engine = inspection.open_engine(trt, log, plan, bool(request.get("allow_host_code")))
    found, raw = inspection.with_context(trt, engine)
    if request.get("raw"):
        runtime.write(request["raw"], raw.encode("utf-8"))
    return {**runtime.describe(trt), "plan_bytes": len(plan), "inspection": found, "text": plan_text.read(plan)}


if __name__ == "__main__":
    runtime.main(work)
