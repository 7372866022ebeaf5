"""Stand-in for the onnxruntime backend, a first thin one."""

import json, os
import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config

    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        name = self.config.get("default_model_filename") or "model.onnx"
        path = os.path.join(args["model_repository"], args["model_version"], name)
        o = onnxruntime.SessionOptions()
        o.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, o)

    def execute(self, requests):
        out = []
        names = [o["name"] for o in self.config["output"]]
        for r in requests:
            feeds = {t.name(): t.as_numpy() for t in r.inputs()}
            res = self.session.run(names, feeds)
            out.append(
                pb_utils.InferenceResponse([pb_utils.Tensor(n, np.ascontiguousarray(a)) for n, a in zip(names, res)])
            )
        return out
