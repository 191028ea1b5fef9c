"""ONNX Runtime as a contender: convolutions that the parent sends, each timed here by the rules of child.rs.

Read from stdin: a line of JSON, then both operands as little-endian f32, planar. Written: a line of JSON, then the result.
"""

import json
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper


def session(case, weights):
    """The layer as a model of one node, its weights an initializer as in a network: what the library makes of them is not timed."""
    forward = case["direction"] == "forward"
    x, y = case["first"], case["result"]
    attributes = {
        "strides": case["stride"],
        "pads": case["pad"] + case["pad_r"],
        "dilations": case["dilation"],
        "group": case["groups"],
    }
    if not forward:
        reach = [d * (k - 1) + 1 for d, k in zip(case["dilation"], case["kernel"])]
        size = [
            s * (o - 1) + r - a - b
            for s, o, r, a, b in zip(case["stride"], x[2:], reach, case["pad"], case["pad_r"])
        ]
        attributes["output_padding"] = [want - got for want, got in zip(y[2:], size)]
    node = helper.make_node("Conv" if forward else "ConvTranspose", ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def timed(work, warm_up, sample):
    """Seconds a call takes."""
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < warm_up:
        work()
        calls += 1
    repeats = max(1, int(sample / ((time.perf_counter() - start) / calls)))
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def main():
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    for line in stdin:
        case = json.loads(line)
        x, w = (
            np.frombuffer(stdin.read(4 * int(np.prod(dims))), dtype="<f4").reshape(dims)
            for dims in (case["first"], case["weights"])
        )
        run = session(case, w)
        y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(case["result"], np.float32)
        binding = run.io_binding()
        binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x.copy()))
        binding.bind_ortvalue_output("y", y)
        seconds = timed(lambda: run.run_with_iobinding(binding), case["warm_up"], case["sample"])
        stdout.write(json.dumps({"seconds": seconds}).encode() + b"\n" + y.numpy().tobytes())
        stdout.flush()


main()
