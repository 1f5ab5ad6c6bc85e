"""A sample of Labeled Faces in the Wild, on the local backend and through Rekognition's protocol."""

from pathlib import Path

import boto3
import pytest

from bench.lfw_http import identification
from bench.lfw_rekognition import compare
from facescreen.config import Settings
from facescreen.db.connection import Database
from tests.loopback_aws import CREDENTIALS, s3_server
from tests.painted_server import server_process
from tests.rekognition.sides import serving

LFW = Path(__file__).parents[3] / "shared/faces/lfw/images"
PEOPLE, MATED, STRANGERS = 12, 12, 8


def settings(folder: Path, **more: object) -> Settings:
    return Settings(
        _env_file=None,
        blacklist_db_path=folder / "blacklist_db",
        processed_images_output_dir=folder / "processed",
        database_url=f"sqlite+aiosqlite:///{folder / 'data' / 'facescreen.db'}",
        deepface_home=folder,
        max_queued_requests=1000,
        **more,  # type: ignore[arg-type]  # checked by pydantic
    )


@pytest.mark.skipif(not LFW.is_dir(), reason="LFW is not part of the project")
async def test_both_backends_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    key = ":".join((CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]))
    listed, mated, strangers = identification(LFW)
    listed = listed[:PEOPLE]
    names = {photo.person for photo in listed}
    probes = [photo for photo in mated if photo.person in names][:MATED] + strangers[:STRANGERS]
    local = settings(tmp_path / "local", rekognition_access_keys=(key,))
    await Database(local.database_url).migrate()
    with s3_server() as s3_url:
        s3 = boto3.client("s3", endpoint_url=s3_url, region_name="us-east-1")
        s3.create_bucket(Bucket="reference-photos")
        s3.close()
        async with server_process(local, backend=None) as facade:
            remote = settings(
                tmp_path / "remote",
                face_processing_backend="aws_rekognition",
                aws_region="us-east-1",
                aws_s3_bucket_name="reference-photos",
                aws_endpoint_url_rekognition=f"{facade.url}/rekognition",
                aws_endpoint_url_s3=s3_url,
            )
            await Database(remote.database_url).migrate()
            async with serving(remote) as client:
                agreed = await compare(facade.client, client, listed=listed, probes=probes)
    assert agreed.faces >= agreed.largest == len(probes)
    assert agreed.boxes == agreed.faces
    assert agreed.largest_people == agreed.largest, agreed.differences
