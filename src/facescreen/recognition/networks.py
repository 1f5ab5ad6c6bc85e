"""ONNX files to sessions of onnxruntime, repaired where the file keeps the runtime from being quick.

All repairs keep the answers, up to the rounding of float32.
"""

import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

THREADS: Final = min(2, os.cpu_count() or 1)
"""Processors for one run: with two it takes little more than half the time, with more hardly less."""

_PROVIDERS: Final = ["CPUExecutionProvider"]

_CHANNELS: Final = 1
"""The axis of images (n, channels, rows, columns) whose length a network cannot choose."""

_Constants = dict[str, NDArray[Any]]


def load_network(path: Path, *, threads: int) -> ort.InferenceSession:
    """A session that runs :func:`repaired_network`. Safe for concurrent use.

    Args:
        threads: processors that one run may use.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads that spin would take the processors that other requests compute on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A pattern of memory is kept for each size of image that ever came.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return ort.InferenceSession(repaired_network(path), options, providers=_PROVIDERS)


def repaired_network(path: Path) -> bytes:
    """An ONNX file that computes what this one says, for any number of images of any size that its layers take.

    - Files that list their weights as inputs keep the runtime from folding anything: only the images are an input.
    - Quantized weights are made float once, instead of at every run.
    - ``PRelu``, which the runtime is slow at, becomes ``Relu(x) * (1 - slope) + x * slope``. Where slopes are below 1
      that is ``Relu(y) + y * slope / (1 - slope)`` for ``y = x * (1 - slope)``: one factor less, for the runtime folds
      the last one into the layer before.
    """
    model = onnx.load(path)
    graph = model.graph
    constants: _Constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = _without_constant_nodes(model, constants)
    nodes = [part for node in nodes for part in _without_prelu(node, constants)]
    used = {name for node in nodes for name in node.input}
    inputs = [value for value in graph.input if value.name in used and value.name not in constants]
    repaired = helper.make_graph(
        nodes,
        graph.name,
        inputs,
        graph.output,
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    _free_sizes(repaired)
    return _serialized(repaired, model)


def _without_constant_nodes(model: ModelProto, constants: _Constants) -> list[NodeProto]:
    """The nodes that depend on the input; what the others compute is added to the constants."""
    constant_nodes, others = [], []
    known = set(constants)
    for node in model.graph.node:
        if node.input and known.issuperset(node.input):
            constant_nodes.append(node)
            known.update(node.output)
        else:
            others.append(node)
    names = [name for node in constant_nodes for name in node.output]
    if names:
        read = {name for node in constant_nodes for name in node.input}
        graph = helper.make_graph(
            constant_nodes,
            "constants",
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
            [tensor for tensor in model.graph.initializer if tensor.name in read],
        )
        session = ort.InferenceSession(_serialized(graph, model), providers=_PROVIDERS)
        constants.update(zip(names, session.run(names, {}), strict=True))
    return others


def _without_prelu(node: NodeProto, constants: _Constants) -> list[NodeProto]:
    """The node itself, or what does the same as a ``PRelu`` with a constant slope."""
    if node.op_type != "PRelu" or node.input[1] not in constants:
        return [node]
    (image, name), (result,) = node.input, node.output
    slope = constants[name]
    remainder = np.asarray(1 - slope, slope.dtype)
    scaled, kept, positive, rest = (f"{result}.{part}" for part in ("scaled", "kept", "positive", "rest"))
    if np.all(slope < 1):
        constants |= {f"{result}.remainder": remainder, f"{result}.slope": np.asarray(slope / remainder, slope.dtype)}
        return [
            helper.make_node("Mul", [image, f"{result}.remainder"], [scaled]),
            helper.make_node("Relu", [scaled], [kept]),
            helper.make_node("Mul", [scaled, f"{result}.slope"], [rest]),
            helper.make_node("Add", [kept, rest], [result]),
        ]
    constants[f"{result}.remainder"] = remainder
    return [
        helper.make_node("Relu", [image], [kept]),
        helper.make_node("Mul", [kept, f"{result}.remainder"], [positive]),
        helper.make_node("Mul", [image, name], [rest]),
        helper.make_node("Add", [positive, rest], [result]),
    ]


def _free_sizes(graph: GraphProto) -> None:
    """Let images be of any number and size, whatever the example was that the file was exported with."""
    for value in graph.input:
        for axis, length in enumerate(value.type.tensor_type.shape.dim):
            if axis != _CHANNELS:
                length.Clear()
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


def _serialized(graph: GraphProto, model: ModelProto) -> bytes:
    made: bytes = helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    ).SerializeToString()
    return made
