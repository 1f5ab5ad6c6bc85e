from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from facescreen.recognition.catalog import DETECTORS, MODELS
from facescreen.recognition.networks import load_network
from facescreen.recognition.weights import WeightStore


def _quantized_prelu(largest_slope: float) -> ModelProto:
    """A network as exporters write them: weights among the inputs, in bytes, for one image of one size."""
    quantized = numpy_helper.from_array(np.arange(-6, 6, dtype=np.int8).reshape(12), "bytes")
    constants = [
        quantized,
        numpy_helper.from_array(np.array(0.25, np.float32), "scale"),
        numpy_helper.from_array(np.array(1, np.int8), "zero"),
        numpy_helper.from_array(np.array([4, 3, 1, 1], np.int64), "shape"),
        numpy_helper.from_array(np.array([0.1, -0.2, 0.0, largest_slope], np.float32).reshape(4, 1, 1), "slope"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["floats"]),
        helper.make_node("Reshape", ["floats", "shape"], ["kernel"]),
        helper.make_node("Conv", ["image", "kernel"], ["mixed"]),
        helper.make_node("PRelu", ["mixed", "slope"], ["result"]),
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 4, 5]),
        helper.make_tensor_value_info("bytes", TensorProto.INT8, [12]),
        helper.make_tensor_value_info("slope", TensorProto.FLOAT, [4, 1, 1]),
    ]
    outputs = [helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, 4, 4, 5])]
    graph = helper.make_graph(nodes, "example", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _as_published(path: Path, inputs: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """What the runtime makes of the file without any repair."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # What the file lists as inputs beside the image, and reads nowhere, wants a value all the same.
    listed = {value.name: value.shape for value in session.get_inputs()}
    others = {name: np.zeros(shape, np.float32) for name, shape in listed.items() if name not in inputs}
    return list(session.run(None, {**inputs, **others}))


@pytest.mark.parametrize("largest_slope", [0.9, 1.0, 1.5])
def test_repairs_keep_the_answer_and_free_number_and_size(largest_slope: float, tmp_path: Path) -> None:
    onnx.save(_quantized_prelu(largest_slope), tmp_path / "example.onnx")
    network = load_network(tmp_path / "example.onnx", threads=1)
    assert [value.name for value in network.get_inputs()] == ["image"]
    image = np.random.default_rng(1).normal(size=(1, 3, 4, 5)).astype(np.float32)
    (expected,) = _as_published(tmp_path / "example.onnx", {"image": image})
    (found,) = network.run(None, {"image": image})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    larger = np.concatenate([np.tile(image, (1, 1, 2, 3))] * 2)
    (found,) = network.run(None, {"image": larger})
    np.testing.assert_allclose(found, np.concatenate([np.tile(expected, (1, 1, 2, 3))] * 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "name", "shape"),
    [(DETECTORS["centerface"], "input.1", (10, 3, 32, 32)), (MODELS["SFace"], "data", (1, 3, 112, 112))],
    ids=["CenterFace", "SFace"],
)
def test_the_published_networks_answer_as_published(
    spec: object, name: str, shape: tuple[int, ...], store: WeightStore
) -> None:
    path = store.require(spec)[0]  # type: ignore[arg-type]
    image = np.random.default_rng(2).integers(0, 256, shape).astype(np.float32)
    expected = _as_published(path, {name: image})
    found = load_network(path, threads=1).run(None, {name: image})
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
