"""TensorRT: building, opening, checking and timing plans, each in a process of its own (the scripts in ``worker/``)."""
