"""Boxes and their logits in, objects out: a Triton Python-backend model behind a detector.

Every setting is a string in the config's ``parameters``:

- ``labels``: JSON list of the detector's labels, in the order of the last axis of ``logits``.
- ``scoring``: how logits become scores, as transformers' image processors do it in ``post_process_object_detection``:
  ``softmax``: each box has its best label; the last of the logits, which stands for no object, takes part and is left
  out;
  ``sigmoid``: the ``top_k`` best pairs of box and label of an image (absent: as many as there are boxes).
- ``threshold``: objects with a higher score are given (``0.5``).

Inputs: ``logits`` FP32 [batch, boxes, labels], ``pred_boxes`` FP32 [batch, boxes, 4]: centre, width and height as parts
of the image's width and height; ``image_sizes`` INT32 [batch, 2]: height and width of the image.

Outputs, best first, padded with empty strings and 0 to the longest row of the request, at least 1: ``LABELS`` BYTES and
``SCORES`` FP32 [batch, objects], ``BOXES`` FP32 [batch, objects, 4]: left, top, right and bottom in pixels.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

SCORINGS = ("softmax", "sigmoid")


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        self.labels = np.array([label.encode("utf-8") for label in json.loads(parameters["labels"])], dtype=object)
        self.scoring = parameters.get("scoring", SCORINGS[0])
        if self.scoring not in SCORINGS:
            raise ValueError(f"parameter 'scoring' is '{self.scoring}', expected one of: {', '.join(SCORINGS)}")
        self.threshold = _number({"threshold": "0.5", **parameters}, "threshold", float)
        self.top_k = _number(parameters, "top_k", int)

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        names = ("logits", "pred_boxes", "image_sizes")
        arrays = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names)
        return _response([self._objects(*row) for row in zip(*arrays, strict=True)])

    def _objects(self, logits, boxes, size):
        """Labels, scores and corners of the objects of one image."""
        scores, labels, places = _softmax(logits) if self.scoring == "softmax" else _sigmoid(logits)
        order = np.argsort(-scores, kind="stable")
        if self.scoring == "sigmoid":
            order = order[: self.top_k or len(boxes)]
        order = order[scores[order] > self.threshold]
        centre, half = boxes[places[order], :2], boxes[places[order], 2:] / 2
        height, width = size
        corners = np.concatenate((centre - half, centre + half), axis=-1)
        return self.labels[labels[order]], scores[order], corners * np.array([width, height] * 2, np.float32)


def _softmax(logits):
    """Score, label and place of each box."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores = (powers / powers.sum(axis=-1, keepdims=True))[:, :-1]
    return scores.max(axis=-1), scores.argmax(axis=-1), np.arange(len(logits))


def _sigmoid(logits):
    """Score, label and place of each pair of box and label."""
    flat = logits.reshape(-1)
    with np.errstate(over="ignore"):
        scores = 1 / (1 + np.exp(-flat))
    every = np.arange(len(flat))
    return scores, every % logits.shape[1], every // logits.shape[1]


def _response(rows):
    shape = (len(rows), max(1, *(len(scores) for _, scores, _ in rows)))
    arrays = {
        "LABELS": np.full(shape, b"", dtype=object),
        "SCORES": np.zeros(shape, np.float32),
        "BOXES": np.zeros((*shape, 4), np.float32),
    }
    for number, row in enumerate(rows):
        for array, values in zip(arrays.values(), row, strict=True):
            array[number, : len(values)] = values
    tensors = [pb_utils.Tensor(name, array) for name, array in arrays.items()]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _number(parameters, key, kind):
    """The parameter's value; None where it is absent."""
    try:
        return kind(parameters[key]) if key in parameters else None
    except ValueError:
        raise ValueError(f"parameter '{key}' is '{parameters[key]}', expected a number") from None
