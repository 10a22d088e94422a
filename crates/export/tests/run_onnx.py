"""Checks an ONNX file and runs it with onnxruntime on one thread.

    run_onnx.py FILE [--optimize]

Standard input is JSON, {name: {"dims": [..], "values": [..]}} for the inputs; so is standard output,
{"outputs": {name: values}, "nodes": {operator: count}} with the operators that the session executes.
"""

import collections
import json
import pathlib
import sys
import tempfile

import numpy
import onnx
import onnxruntime


def main():
    path = sys.argv[1]
    onnx.checker.check_model(path, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if "--optimize" not in sys.argv:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        executed = pathlib.Path(folder) / "executed.onnx"
        options.optimized_model_filepath = str(executed)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        nodes = collections.Counter(node.op_type for node in onnx.load(executed).graph.node)
    types = {"tensor(float)": numpy.float32, "tensor(int64)": numpy.int64, "tensor(bool)": numpy.bool_}
    given = json.load(sys.stdin)
    feed = {
        value.name: numpy.array(given[value.name]["values"], types[value.type]).reshape(given[value.name]["dims"])
        for value in session.get_inputs()
    }
    names = [value.name for value in session.get_outputs()]
    made = session.run(names, feed)
    outputs = {name: values.astype(numpy.float64).ravel().tolist() for name, values in zip(names, made)}
    json.dump({"outputs": outputs, "nodes": dict(nodes)}, sys.stdout)


main()
