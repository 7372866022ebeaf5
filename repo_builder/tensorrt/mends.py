"""What mends an ONNX graph that TensorRT's parser refuses: by operator, dtype and the parser's own words."""

from __future__ import annotations

import re
from collections.abc import Sequence

FOLD = (
    "fold constants and infer shapes first: onnxslim model.onnx out.onnx, or "
    "polygraphy surgeon sanitize model.onnx --fold-constants -o out.onnx"
)
_SEQUENCES = ("SequenceConstruct", "SequenceAt", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SplitToSequence",
              "ConcatFromSequence", "SequenceLength", "SequenceMap")  # fmt: skip
_STRINGS = ("StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch", "TfIdfVectorizer", "LabelEncoder")
_BY_OP = {
    **dict.fromkeys(
        _SEQUENCES,
        "replace the sequence by plain tensors (Split, Concat) in the model; onnxslim removes sequences of constants",
    ),
    **dict.fromkeys(_STRINGS, "TensorRT has no strings: keep this step in a model of its own before the plan"),
    "NonZero": "its output's size depends on data: a mask (Where, Mul) or TopK with a fixed k instead; TensorRT 10 has "
    "NonZero, TensorRT-RTX has not",
    "Unique": "its output's size depends on data: keep this step outside of the plan",
    "Compress": "its output's size depends on data: Gather with indices of a fixed size instead",
    "Det": "write the determinant out in elementwise operators, or compute it outside of the plan",
    "Loop": "unroll it: export with fixed trip counts, then " + FOLD,
    "Scan": "unroll it: export with fixed lengths, then " + FOLD,
    "RandomNormal": "make the noise an input of the model",
    "RandomUniform": "make the noise an input of the model",
    "Multinomial": "sample outside of the plan",
    "DynamicQuantizeLinear": "quantize statically (QuantizeLinear and DequantizeLinear with constant scales)",
    "ConvInteger": "quantize with QuantizeLinear and DequantizeLinear around Conv instead of integer operators",
    "MatMulInteger": "quantize with QuantizeLinear and DequantizeLinear around MatMul instead of integer operators",
    "QLinearConv": "quantize with QuantizeLinear and DequantizeLinear around Conv (QDQ format)",
    "QLinearMatMul": "quantize with QuantizeLinear and DequantizeLinear around MatMul (QDQ format)",
}
_BY_WORDS = (
    (("plugin",), "no operator or plugin of that name: name the library that has it under tensorrt.plugins, or export "
     "with standard operators"),
    (("string",), "TensorRT has no strings: keep this step in a model of its own before the plan"),
    (("uint8",), "cast it to INT32 or FP32 right after the input: TensorRT takes UINT8 at inputs and outputs alone"),
    (("bool", "kbool"), "cast the BOOL tensor to INT32 before this node and back after it"),
    (("double", "float64"), "cast it to FP32: TensorRT has no FP64"),
    (("int64",), "cast the INT64 tensor to INT32 before this node"),
    (("initializer", "constant", "must be known", "build-time"), FOLD),
    (("opset", "version"), "export with another opset (17 for TensorRT 8.6), or convert it: onnx.version_converter"),
    (("rank", "dimension", "dims", "shape"), FOLD),
)  # fmt: skip


def reason(description: str, op: str) -> str:
    """The parser's words, where they say something; some versions only say ``false``."""
    lines = [line for line in description.strip().splitlines() if "cudaError" not in line]  # what no driver adds
    bare = " ".join(lines).removeprefix("Assertion failed: ").strip()
    if bare.lower() in ("false", "", "0"):
        return f"the parser does not know the operator {op}" if op else "the parser refuses it without a reason"
    quoted = re.fullmatch(r'.*&& "(.+)"', bare)
    return quoted.group(1) if quoted else bare


def mend(op: str, description: str, dtypes: Sequence[str] = ()) -> str:
    """What mends a refused node; empty where nothing is known.

    Args:
        op: the ONNX operator.
        description: the parser's words.
        dtypes: Triton's names of the dtypes that the node reads and writes.
    """
    if op in _BY_OP:
        return _BY_OP[op]
    words = description.lower()
    for marks, text in _BY_WORDS:
        if any(mark in words for mark in marks):
            return text
    for name, word in (("BYTES", "string"), ("UINT8", "uint8"), ("FP64", "double"), ("BOOL", "bool")):
        if name in dtypes:
            return next(text for marks, text in _BY_WORDS if word in marks)
    return ""
