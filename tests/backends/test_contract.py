"""What every backend promises, on its own kind of photos."""

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facescreen.backends.base import EmbeddingBackend, IndexUpdate
from facescreen.backends.local import LocalBackend
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Face, Pixels, Vectors
from facescreen.errors import NotReadyError
from facescreen.pool import WorkPool
from facescreen.recognition.weights import WeightStore
from tests.backends.promises import check_detection
from tests.painted import BLUE, RED, PaintedBackend, photo

SAMPLES = Path(__file__).parents[2] / "samples"


@dataclass(frozen=True)
class Case:
    """A started backend, a photo each of two people, and a picture of nobody."""

    backend: EmbeddingBackend
    one: Pixels
    other: Pixels
    nobody: Pixels
    radius: float


def pixels(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(params=["painted", "local"])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    nobody = np.full((200, 300, 3), 90, np.uint8)
    if request.param == "painted":
        backend: EmbeddingBackend = PaintedBackend()
        await backend.load()
        yield Case(backend, pixels(photo(RED)), pixels(photo(BLUE)), nobody, 0.05)
        return
    pool = WorkPool(threads=2)
    backend = LocalBackend(
        detector="centerface", model="SFace", detector_max_side=None, weights=WeightStore(tmp_path), pool=pool
    )
    await backend.load()
    one, other = (pixels((SAMPLES / name).read_bytes()) for name in ("astronaut.jpg", "grace_hopper.jpg"))
    yield Case(backend, one, other, nobody, 0.05)
    await backend.aclose()
    pool.close()


async def embeddings(case: Case, *images: Pixels) -> Vectors:
    probes = [
        await case.backend.prepare(image, await case.backend.detect(image, "centerface"), "SFace") for image in images
    ]
    return await case.backend.embed(probes, "SFace")


async def test_faces_lie_inside_of_the_image(case: Case) -> None:
    await check_detection(case.backend, one=case.one, nobody=case.nobody)


async def test_a_person_is_found_by_another_copy_of_the_photo_until_withdrawn(case: Case) -> None:
    one, other = await embeddings(case, case.one, case.other)
    await case.backend.apply(1, "SFace", IndexUpdate([1, 2], np.stack([one, other]), []))
    mirrored = await embeddings(case, np.ascontiguousarray(case.one[:, ::-1]), case.nobody, case.other)
    found = await case.backend.search(1, mirrored, "SFace", metric=Metric.COSINE, radius=case.radius)
    assert [[candidate.reference_image_id for candidate in near] for near in found] == [[1], [2]]
    await case.backend.apply(1, "SFace", IndexUpdate([], np.empty((0, 0), np.float32), [1]))
    found = await case.backend.search(1, mirrored, "SFace", metric=Metric.COSINE, radius=case.radius)
    assert [[candidate.reference_image_id for candidate in near] for near in found] == [[], [2]]


async def test_embeddings_do_not_depend_on_what_else_is_in_the_batch_or_runs_beside(case: Case) -> None:
    alone = [(await embeddings(case, image))[0] for image in (case.one, case.other)]
    together = await embeddings(case, case.one, case.other)
    beside = await asyncio.gather(*(embeddings(case, case.one, case.other) for _ in range(4)))
    for batch in (together, *beside):
        assert np.array_equal(batch, np.stack(alone))


async def test_what_is_not_on_this_machine_is_refused_by_name(case: Case) -> None:
    with pytest.raises(NotReadyError, match="facescreen weights pull ArcFace"):
        await case.backend.require("centerface", "ArcFace")


async def test_no_faces_make_an_empty_batch(case: Case) -> None:
    none: tuple[Face, ...] = ()
    probe = await case.backend.prepare(case.nobody, none, "SFace")
    assert (probe.faces, probe.crops) == ((), ())


def test_spaces_tell_models_apart(case: Case) -> None:
    assert case.backend.space("SFace") != case.backend.space("Dlib")
