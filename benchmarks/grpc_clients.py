"""Clients of a server: ``python grpc_clients.py HOST:PORT MODEL SHAPE``, commands as in load.py.

They send requests that were serialized beforehand, over one channel, and do not decode the answers: on the cores that
the server needs, a load generator has to be cheap. The first answer is decoded, for the check that all sides agree.
"""

from __future__ import annotations

import json
import sys

import grpc
import load
import numpy as np
import workloads
from tritonclient.grpc import service_pb2 as pb

METHOD = "/inference.GRPCInferenceService/ModelInfer"


def request(model: str, text: str, shape: list[int]) -> bytes:
    data = text.encode()
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="TEXT", datatype="BYTES", shape=shape)
    message.raw_input_contents.append(len(data).to_bytes(4, "little") + data)
    return bytes(message.SerializeToString())


def main(url: str, model: str, shape: list[int]) -> None:
    with grpc.insecure_channel(url, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(METHOD)
        items = {name: [request(model, text, shape) for text in workloads.texts(name)] for name in ("fixed", "mixed")}
        answer = pb.ModelInferResponse.FromString(call(items["fixed"][0], wait_for_ready=True))
        load.obey(call, items, np.frombuffer(answer.raw_output_contents[0], np.float32).tolist())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
