"""Checks an ONNX file and runs it: run.py FOLDER RUNS optimized|unoptimized [TENSOR ..]

The folder holds model.onnx and input_RUN_NUMBER.npy; output_RUN_NUMBER.npy, outputs.txt with the number
of outputs and operators.txt with the operators of the graph as it is run are written beside them.
"""

import collections
import os
import sys

import numpy
import onnx
import onnxruntime

folder, runs, level, *observed = sys.argv[1:]
path = os.path.join(folder, "model.onnx")
onnx.checker.check_model(path, full_check=True)

if observed:
    model = onnx.load(path)
    for name in observed:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    onnx.save(model, path)

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
options.log_severity_level = 3
levels = onnxruntime.GraphOptimizationLevel
options.graph_optimization_level = (
    levels.ORT_DISABLE_ALL if level == "unoptimized" else levels.ORT_ENABLE_ALL
)
run_as = os.path.join(folder, "run.onnx")
options.optimized_model_filepath = run_as
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
names = [value.name for value in session.get_inputs()]
count = 0
for run in range(int(runs)):
    inputs = {}
    for at, name in enumerate(names):
        inputs[name] = numpy.load(os.path.join(folder, f"input_{run}_{at}.npy"))
    outputs = session.run(None, inputs)
    count = len(outputs)
    for at, output in enumerate(outputs):
        numpy.save(os.path.join(folder, f"output_{run}_{at}.npy"), output)

with open(os.path.join(folder, "outputs.txt"), "w") as file:
    file.write(str(count))
operators = collections.Counter(node.op_type for node in onnx.load(run_as).graph.node)
with open(os.path.join(folder, "operators.txt"), "w") as file:
    for name, number in sorted(operators.items()):
        file.write(f"{name} {number}\n")
