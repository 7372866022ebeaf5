"""Small ONNX graphs that a change of precision gets wrong: masks, subgraphs, shared weights, types that must stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, parser

from repo_builder.convert.cases import CheckedCase

FLOAT = TensorProto.FLOAT
_HEAD = '<ir_version: 8, opset_import: ["" : {opset}]>'


def _weights(**arrays: np.ndarray) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]


def _random(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def text(path: Path, source: str, *, opset: int = 17, **weights: np.ndarray) -> Path:
    """A graph in ONNX's own textual syntax, its nodes named n0, n1, ... where they have no name."""
    model = parser.parse_model(_HEAD.format(opset=opset) + source)
    model.graph.initializer.extend(_weights(**weights))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"n{number}_{node.op_type}"
    onnx.save(model, str(path))
    return path


def attention(path: Path, *, opset: int = 17) -> Path:
    """One head over ``hidden`` with the mask that transformers writes: the lowest float32 where a token is padding."""
    return text(
        path,
        """agraph (float[batch, length, 8] hidden, int64[batch, length] mask) => (float[batch, length, 8] out) {
            q = MatMul(hidden, wq)
            k = MatMul(hidden, wk)
            kt = Transpose <perm = [0, 2, 1]> (k)
            raw = MatMul(q, kt)
            axis = Constant <value_ints = [1]> ()
            wide = Unsqueeze(mask, axis)
            seen = Cast <to = 1> (wide)
            hidden_part = Sub(one, seen)
            bias = Mul(hidden_part, lowest)
            scores = Add(raw, bias)
            more = Add(scores, bias)
            p = Softmax <axis = -1> (more)
            mixed = MatMul(p, hidden)
            out = LayerNormalization <epsilon = 1e-12> (mixed, gamma, beta)
        }""",
        opset=opset,
        wq=_random(8, 8),
        wk=_random(8, 8, seed=1),
        one=np.float32(1),
        lowest=np.float32(np.finfo(np.float32).min),
        gamma=np.ones(8, np.float32),
        beta=np.zeros(8, np.float32),
    )


def branches(path: Path) -> Path:
    """Both branches of an If have a weight of the same name, read an outer weight and an outer value."""
    return text(
        path,
        """agraph (float[batch, 4] x) => (float[batch, 4] y) {
            h = MatMul(x, w)
            total = ReduceSum <keepdims = 0> (h)
            positive = Greater(total, zero)
            chosen = If (positive) <
                then_branch = yes () => (float[batch, 4] a) {
                    s = Constant <value_float = 2.0> ()
                    b = Mul(h, s)
                    a = MatMul(b, w)
                },
                else_branch = no () => (float[batch, 4] c) {
                    s = Constant <value_float = -1.0> ()
                    d = Mul(h, s)
                    c = Add(d, x)
                }
            >
            y = Relu(chosen)
        }""",
        w=_random(4, 4),
        zero=np.float32(0),
    )


def loop(path: Path) -> Path:
    """Three rounds of ``h = tanh(h @ w)``, each collected: carried and scanned outputs of a Loop."""
    body = parser.parse_graph(
        """body (int64 i, bool going, float[batch, 4] h) => (bool still, float[batch, 4] after, float[batch, 4] kept) {
            still = Identity(going)
            m = MatMul(h, w)
            after = Tanh(m)
            kept = Identity(after)
        }"""
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["rounds", "yes", "x"], ["last", "all"], name="loop", body=body)],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 4])],
        [
            helper.make_tensor_value_info("last", FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("all", FLOAT, [3, "batch", 4]),
        ],
        _weights(rounds=np.int64(3), yes=np.bool_(True), w=_random(4, 4)),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def types_that_stay(path: Path) -> Path:
    """Resize (scales), Range over floats, ConstantOfShape without a value, a double, TopK, Clip, a shared constant."""
    return text(
        path,
        """agraph (float[batch, 1, 4, 4] x) => (float[batch, 1, 8, 8] y, int64[batch, 1, 8, 2] places) {
            large = Resize <mode = "linear"> (x, , scales)
            steps = Range(zero, eight, unit)
            wide = Cast <to = 11> (steps)
            halves = Mul(wide, half)
            ramp = Cast <to = 1> (halves)
            moved = Add(large, ramp)
            shape = Shape(moved)
            zeros = ConstantOfShape(shape)
            low = Constant <value_float = -3.0e38> ()
            limited = Clip(moved, low)
            sum = Add(limited, zeros)
            y = Mul(sum, unit)
            best, places = TopK(y, two)
        }""",
        scales=np.array([1, 1, 2, 2], np.float32),
        zero=np.float32(0),
        eight=np.float32(8),
        unit=np.float32(1),
        half=np.float64(0.5),
        two=np.array([2], np.int64),
    )


def overflowing(path: Path) -> Path:
    """``y = sqrt(sum((x * 100)^2))``: the sum of squares is past half precision's range, the answer is not."""
    return text(
        path,
        """agraph (float[batch, 64] x) => (float[batch, 1] y, float[batch, 8] z) {
            big = Mul(x, hundred)
            squares = Mul(big, big)
            total = ReduceSum(squares, axis)
            y = Sqrt(total)
            z = MatMul(x, w)
        }""",
        hundred=np.float32(100),
        axis=np.array([1], np.int64),
        w=_random(64, 8, scale=0.1),
    )


def dense(path: Path, *, opset: int = 17, width: int = 64) -> Path:
    """``softmax(relu(x @ w1 + b1) @ w2 + b2)``."""
    return text(
        path,
        f"""agraph (float[batch, {width}] x) => (float[batch, 8] logits, float[batch, 8] scores) {{
            h1 = MatMul(x, w1)
            h2 = Add(h1, b1)
            h3 = Relu(h2)
            h4 = MatMul(h3, w2)
            logits = Add(h4, b2)
            scores = Softmax <axis = -1> (logits)
        }}""",
        opset=opset,
        w1=_random(width, width, scale=0.2),
        b1=_random(width, seed=1),
        w2=_random(width, 8, seed=2, scale=0.2),
        b2=_random(8, seed=3),
    )


def convolutions(path: Path, *, opset: int = 17) -> Path:
    """A residual block, global pooling, Gemm."""
    return text(
        path,
        """agraph (float[batch, 3, 16, 16] image) => (float[batch, 5] logits) {
            a = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
            b = Relu(a)
            c = Conv <pads = [1, 1, 1, 1]> (b, w2, b2)
            d = Add(c, b)
            e = Relu(d)
            f = GlobalAveragePool(e)
            g = Flatten(f)
            logits = Gemm <transB = 1> (g, w3, b3)
        }""",
        opset=opset,
        w1=_random(8, 3, 3, 3, scale=0.3),
        b1=_random(8, seed=1, scale=0.1),
        w2=_random(8, 8, 3, 3, seed=2, scale=0.2),
        b2=_random(8, seed=3, scale=0.1),
        w3=_random(5, 8, seed=4),
        b3=_random(5, seed=5),
    )


def cases(path: Path, inputs: dict[str, np.ndarray] | None = None, count: int = 3) -> list[CheckedCase]:
    """Inputs of a file, given or random (integers 0 and 1, the first of each row 1), and what it answers."""
    session = onnxruntime.InferenceSession(str(path))
    made = []
    for number in range(1 if inputs else count):
        rng, sizes = np.random.default_rng(number), {}
        arrays = dict(inputs or {})
        for spec in [] if inputs else session.get_inputs():
            shape = [sizes.setdefault(d, 2 + number + len(sizes)) if isinstance(d, str) else d for d in spec.shape]
            if "int" in spec.type:
                arrays[spec.name] = rng.integers(0, 2, shape)
                arrays[spec.name][..., 0] = 1
            else:
                arrays[spec.name] = rng.standard_normal(shape).astype(np.float32)
        made.append(CheckedCase(sizes, arrays, tuple(session.run(None, arrays))))
    return made
