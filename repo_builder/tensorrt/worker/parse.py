"""Parses an ONNX file with TensorRT's parser and tells what it refuses: ``parse.py REQUEST ANSWER`` (JSON files).

Request: ``onnx`` (path), ``plugins`` (paths), ``module``.

Answer: ``module``, ``version``, ``supported``, ``errors`` (see network.errors), ``subgraphs`` (``[{"nodes": [indices],
"supported"}]``, the parser's own cut of the graph), ``network`` (see network.summary; null where the graph does not
parse), ``warnings``.
"""

from __future__ import annotations

import network as onnx_network
import runtime


def work(request):
    trt = runtime.load(request)
    log = runtime.logger(trt)
    runtime.load_plugins(trt, log, request.get("plugins") or [])
    builder = trt.Builder(log)
    network, _strongly = onnx_network.create(trt, builder)
    parser = trt.OnnxParser(network, log)
    parsed = parser.parse_from_file(str(request["onnx"]))
    found = onnx_network.errors(parser)
    supported = bool(parsed) and not found
    answer = {
        **runtime.describe(trt),
        "supported": supported,
        "errors": found or ([] if supported else [_untold(log)]),
        "network": onnx_network.summary(trt, network) if supported else None,
    }
    return {**answer, "subgraphs": _subgraphs(trt, builder, log, request["onnx"]), "warnings": log.warnings()[:20]}


def _subgraphs(trt, builder, log, path):
    """How the parser cuts the graph; 8.6 returns what later versions are asked for."""
    network, _strongly = onnx_network.create(trt, builder)
    parser = trt.OnnxParser(network, log)
    with open(path, "rb") as handle:
        model = handle.read()
    if hasattr(parser, "supports_model_v2"):
        parser.supports_model_v2(model, str(path))
        cuts = [(parser.get_subgraph_nodes(i), parser.is_subgraph_supported(i)) for i in range(parser.num_subgraphs)]
    else:
        _all, cuts = parser.supports_model(model, str(path))
    return [{"nodes": [int(node) for node in nodes], "supported": bool(good)} for nodes, good in cuts]


def _untold(log):
    text = "; ".join(log.errors()[:3]) or "the parser gave no reason"
    return {"code": "UNKNOWN", "description": text, "node": -1, "name": "", "op": "", "place": ""}


if __name__ == "__main__":
    runtime.main(work)
