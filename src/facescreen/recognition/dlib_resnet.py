"""dlib's face recognition ResNet, run by onnxruntime.

The weights file is dlib's serialization of ``anet_type``, the 29-convolution residual network of
https://github.com/davisking/dlib/blob/master/examples/dnn_face_recognition_ex.cpp, whose training
https://blog.dlib.net/2017/02/high-quality-face-recognition-with-deep.html describes. It is parsed
without dlib and translated, in memory, to an ONNX graph that computes the descriptors of
``dlib.face_recognition_model_v1`` up to float32 rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

CHIP_SHAPE = (150, 150, 3)
DESCRIPTOR_SIZE = 128

# Whether each residual block, from the input upwards, halves the resolution (dlib's `ares_down`).
_DOWNSAMPLING = (*[False] * 3, True, *[False] * 3, True, *[False] * 2, True, *[False] * 2, True)

# dlib writes the format versions of all nested layers, outermost first, ahead of their contents:
# 2 for a layer that computes something (3 for the first), 1 for one that tags or recalls a value.
_BLOCK_VERSIONS = {
    False: (2, 2, 2, 2, 2, 2, 2, 1),
    True: (2, 2, 2, 1, 1, 2, 2, 2, 2, 2, 1),
}
_LAYER_VERSIONS = (
    *(2, 2),
    *(version for down in reversed(_DOWNSAMPLING) for version in _BLOCK_VERSIONS[down]),
    *(2, 2, 2, 3),
)

_PIXEL_SCALE = 256
_ONNX_OPSET = 17
_ONNX_IR_VERSION = 8


@dataclass(frozen=True)
class _Window:
    """Geometry of a convolution or pooling; every pair is (vertical, horizontal)."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        (rows, cols), (down, right), (top, left) = self.size, self.stride, self.padding
        return (height + 2 * top - rows) // down + 1, (width + 2 * left - cols) // right + 1


@dataclass(frozen=True)
class _Conv:
    """`weight` is (out, in, rows, cols) and `bias` (out,), both float32."""

    window: _Window
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class _Block:
    """Two convolutions whose result is added to the block's input, average-pooled by `skip`."""

    first: _Conv
    second: _Conv
    skip: _Window | None


@dataclass(frozen=True)
class _Network:
    """`mean` is the average RGB pixel, (3,); `projection` the last layer, (features, 128)."""

    mean: NDArray[np.float32]
    stem: _Conv
    stem_pool: _Window
    blocks: list[_Block]
    projection: NDArray[np.float32]


class _Reader:
    """Cursor over a dlib archive.

    Its formats are those of serialize.h, dnn/core.h and dnn/layers.h in
    https://github.com/davisking/dlib/tree/master/dlib.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def error(self, problem: str) -> ValueError:
        return ValueError(f"not dlib's face recognition network: {problem} before {self._position}")

    def take(self, size: int) -> bytes:
        chunk = self._data[self._position : self._position + size]
        if len(chunk) != size:
            raise self.error("truncated file")
        self._position += size
        return chunk

    def integer(self) -> int:
        """Read a control byte (sign bit, size) and a little-endian magnitude."""
        control = self.take(1)[0]
        size = control & 0x7F
        if not 1 <= size <= 8:
            raise self.error(f"integer of {size} bytes")
        magnitude = int.from_bytes(self.take(size), "little")
        return -magnitude if control & 0x80 else magnitude

    def integers(self, count: int) -> list[int]:
        return [self.integer() for _ in range(count)]

    def expect(self, *values: int) -> None:
        if (found := self.integers(len(values))) != list(values):
            raise self.error(f"{found} instead of {list(values)}")

    def name(self, expected: str) -> None:
        self.expect(len(expected))
        if (found := self.take(len(expected))) != expected.encode():
            raise self.error(f"{found!r} instead of {expected!r}")

    def reals(self, count: int) -> list[float]:
        """Read numbers that are stored as an integer mantissa and a binary exponent."""
        pairs = [(self.integer(), self.integer()) for _ in range(count)]
        if any(abs(exponent) > 100 for _, exponent in pairs):
            raise self.error("number out of range")
        return [math.ldexp(mantissa, exponent) for mantissa, exponent in pairs]

    def tensor(self) -> NDArray[np.float32]:
        """Read a tensor, flattened: version, four dimensions, little-endian float32 values."""
        self.expect(2)
        dims = self.integers(4)
        if min(dims) < 0:
            raise self.error(f"tensor of shape {dims}")
        values = np.frombuffer(self.take(4 * math.prod(dims)), "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise self.error("non-finite parameter")
        return values

    def split(self, values: NDArray[np.float32], *shapes: tuple[int, ...]) -> list[NDArray[np.float32]]:
        sizes = [math.prod(shape) for shape in shapes]
        if values.size != sum(sizes):
            raise self.error(f"{values.size} parameters for shapes {shapes}")
        parts = np.split(values, np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def window(self) -> _Window:
        values = self.integers(6)
        rows, cols, down, right, top, left = values
        if min(rows, cols, down, right) < 1 or not (0 <= top < rows and 0 <= left < cols):
            raise self.error(f"window {values}")
        return _Window((rows, cols), (down, right), (top, left))

    def end_layer(self) -> None:
        """Skip what follows a layer's own fields: three flags and three tensors, emptied."""
        if not set(self.take(3)) <= set(b"01"):
            raise self.error("bad flag")
        for _ in range(3):
            self.expect(2, 0, 0, 0, 0)

    def fieldless(self, name: str) -> None:
        self.name(name)
        self.end_layer()

    def pool(self, name: str) -> _Window:
        self.name(name)
        window = self.window()
        self.end_layer()
        return window

    def conv(self, channels: int) -> _Conv:
        self.name("con_4")
        parameters = self.tensor()
        filters = self.integer()
        window = self.window()
        shape = (filters, channels, *window.size)
        self.expect(1, *shape, 1, 1, filters, 1, 1)
        weight, bias = self.split(parameters, shape, (filters,))
        self.reals(4)
        self.end_layer()
        return _Conv(window, weight, bias)

    def affine(self, conv: _Conv) -> _Conv:
        """Read an affine layer and fold it into the convolution below it."""
        filters = len(conv.bias)
        self.name("affine_")
        gamma, beta = self.split(self.tensor(), (filters,), (filters,))
        self.expect(1, 1, filters, 1, 1, 1, 1, filters, 1, 1, 0)
        self.end_layer()
        weight = conv.weight * gamma[:, None, None, None]
        return _Conv(conv.window, weight, conv.bias * gamma + beta)

    def block(self, channels: int, *, downsampling: bool) -> _Block:
        first = self.affine(self.conv(channels))
        self.fieldless("relu_")
        second = self.affine(self.conv(len(first.bias)))
        skip = self.pool("avg_pool_2") if downsampling else None
        self.fieldless("add_prev_")
        self.fieldless("relu_")
        return _Block(first, second, skip)

    def global_average(self) -> None:
        self.name("avg_pool_2")
        self.expect(0, 0, 1, 1, 0, 0)
        self.end_layer()

    def projection(self, features: int) -> NDArray[np.float32]:
        """Read the fully connected layer, which has no bias."""
        self.name("fc_2")
        self.expect(DESCRIPTOR_SIZE, features)
        (weight,) = self.split(self.tensor(), (features, DESCRIPTOR_SIZE))
        self.expect(1, features, DESCRIPTOR_SIZE, 1, 1, 1, 0, 0, 0, 0, 1)
        self.reals(4)
        self.end_layer()
        return weight

    def network(self) -> _Network:
        self.expect(1)
        self.name("loss_metric_2")
        self.reals(2)
        self.expect(*_LAYER_VERSIONS)

        self.name("input_rgb_image_sized")
        mean = self.reals(3)
        if not all(0 <= level <= 255 for level in mean):
            raise self.error(f"average pixel {mean}")
        self.expect(*CHIP_SHAPE[:2])
        stem = self.conv(CHIP_SHAPE[2])
        self.expect(1)
        stem = self.affine(stem)
        self.fieldless("relu_")
        stem_pool = self.pool("max_pool_2")
        channels = len(stem.bias)
        blocks = []
        for downsampling in _DOWNSAMPLING:
            block = self.block(channels, downsampling=downsampling)
            blocks.append(block)
            channels = max(channels, len(block.second.bias))
        self.global_average()
        projection = self.projection(channels)
        if self._position != len(self._data):
            raise self.error("trailing data")
        return _Network(np.array(mean, np.float32), stem, stem_pool, blocks, projection)


@dataclass(frozen=True)
class _Map:
    """A named (n, channels, height, width) value of the graph."""

    name: str
    shape: tuple[int, int, int]


class _GraphBuilder:
    """Accumulates ONNX nodes and constants."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def constant(self, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:  # noqa: ANN401  # whatever the operator takes
        output = output or f"value{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def windowed(self, kind: str, x: _Map, window: _Window, *weights: str, channels: int) -> _Map:
        height, width = window.output_size(*x.shape[1:])
        if min(height, width) < 1:
            raise ValueError(f"window {window} does not fit {x.shape}")
        name = self.node(
            kind,
            x.name,
            *weights,
            kernel_shape=window.size,
            strides=window.stride,
            pads=window.padding * 2,
        )
        return _Map(name, (channels, height, width))

    def conv(self, x: _Map, conv: _Conv) -> _Map:
        weight, bias = self.constant(conv.weight), self.constant(conv.bias)
        return self.windowed("Conv", x, conv.window, weight, bias, channels=len(conv.bias))

    def relu(self, x: _Map) -> _Map:
        return _Map(self.node("Relu", x.name), x.shape)

    def zero_pad(self, x: _Map, shape: tuple[int, int, int]) -> _Map:
        if x.shape == shape:
            return x
        after = [wanted - size for wanted, size in zip(shape, x.shape, strict=True)]
        pads = self.constant(np.array([0, 0, 0, 0, 0, *after], np.int64))
        return _Map(self.node("Pad", x.name, pads), shape)

    def add(self, a: _Map, b: _Map) -> _Map:
        """Sum maps whose shapes may differ, as `add_prev` does: missing elements are zero."""
        channels, height, width = (max(sizes) for sizes in zip(a.shape, b.shape, strict=True))
        shape = (channels, height, width)
        a, b = self.zero_pad(a, shape), self.zero_pad(b, shape)
        return _Map(self.node("Add", a.name, b.name), shape)

    def block(self, x: _Map, block: _Block) -> _Map:
        residual = self.conv(self.relu(self.conv(x, block.first)), block.second)
        if block.skip:
            x = self.windowed("AveragePool", x, block.skip, channels=x.shape[0])
        return self.relu(self.add(residual, x))

    def network(self, network: _Network) -> ModelProto:
        """Build the graph: `chips` (n, 150, 150, 3) uint8 to `descriptors` (n, 128) float32."""
        rows, cols, channels = CHIP_SHAPE
        pixels = self.node("Cast", "chips", to=TensorProto.FLOAT)
        pixels = self.node("Sub", pixels, self.constant(network.mean))
        pixels = self.node("Div", pixels, self.constant(np.array(_PIXEL_SCALE, np.float32)))
        pixels = self.node("Transpose", pixels, perm=[0, 3, 1, 2])
        x = self.conv(_Map(pixels, (channels, rows, cols)), network.stem)
        x = self.relu(x)
        x = self.windowed("MaxPool", x, network.stem_pool, channels=x.shape[0])
        for block in network.blocks:
            x = self.block(x, block)
        features = self.node("Flatten", self.node("GlobalAveragePool", x.name))
        self.node("MatMul", features, self.constant(network.projection), output="descriptors")
        graph = helper.make_graph(
            self._nodes,
            "dlib_resnet",
            [helper.make_tensor_value_info("chips", TensorProto.UINT8, ["n", *CHIP_SHAPE])],
            [helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, ["n", DESCRIPTOR_SIZE])],
            self._constants,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _ONNX_OPSET)],
            ir_version=_ONNX_IR_VERSION,
        )


class DlibResNet:
    """Computes face descriptors. Threads may share an instance and then run in parallel."""

    def __init__(self, weights: Path, *, threads: int | None = None) -> None:
        """Load dlib's ``dlib_face_recognition_resnet_model_v1.dat``.

        Each call of `embed` uses `threads` threads, by default one for every core. Raises
        ValueError if the file is anything but that network.
        """
        network = _Reader(weights.read_bytes()).network()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or 0
        self._session = ort.InferenceSession(
            _GraphBuilder().network(network).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )

    def embed(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map aligned RGB chips (n, 150, 150, 3) to descriptors (n, 128).

        Chips are evaluated one at a time: a descriptor then cannot depend on the chips it happens
        to be computed with, and memory stays bounded, at little cost over larger batches.
        """
        if chips.dtype != np.uint8 or chips.shape[1:] != CHIP_SHAPE:
            raise ValueError(f"expected uint8 (n, 150, 150, 3) chips, not {chips.dtype} {chips.shape}")
        descriptors = np.empty((len(chips), DESCRIPTOR_SIZE), np.float32)
        for i in range(len(chips)):
            (descriptors[i : i + 1],) = self._session.run(None, {"chips": chips[i : i + 1]})
        return descriptors
