"""The real application on a Rekognition and an S3 of this machine."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import httpx
import pytest
from botocore.config import Config

from facescreen.config import Settings
from facescreen.db.connection import Database
from tests.loopback_aws import CREDENTIALS, s3_server
from tests.rekognition.s3_proxy import S3Proxy
from tests.rekognition.sides import COLLECTION, Aws, serving
from tests.rekognition_server import RekognitionServer

pytest.register_assert_rewrite("tests.rekognition.agreement")


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(scope="session")
def buckets(moto: str) -> Iterator[Any]:
    """A client of the S3 that nothing fails for."""
    config = Config(s3={"addressing_style": "path"})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=moto, region_name="us-east-1", config=config)
    with closing(client):
        yield client


@pytest.fixture
def aws(moto: str, buckets: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """Nothing but an empty bucket, and credentials."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid4()}"
    buckets.create_bucket(Bucket=bucket)
    with RekognitionServer() as rekognition, S3Proxy(moto) as s3:
        yield Aws(rekognition, s3, buckets, bucket)


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database, to be copied."""
    path = tmp_path_factory.mktemp("schema") / "facescreen.db"
    asyncio.run(Database(f"sqlite+aiosqlite:///{path}").migrate())
    return path


@pytest.fixture
def settings(tmp_path: Path, schema: Path, aws: Aws) -> Settings:
    """Settings whose data here are all below the test's own folder."""
    data = tmp_path / "data" / "facescreen.db"
    data.parent.mkdir()
    shutil.copy(schema, data)
    return Settings(
        _env_file=None,
        face_processing_backend="aws_rekognition",
        blacklist_db_path=tmp_path / "blacklist_db",
        processed_images_output_dir=tmp_path / "processed",
        database_url=f"sqlite+aiosqlite:///{data}",
        deepface_home=tmp_path / "home",
        image_input_roots=(),
        aws_region="us-east-1",
        aws_s3_bucket_name=aws.bucket,
        aws_rekognition_collection_id=COLLECTION,
        aws_endpoint_url_rekognition=aws.rekognition.url,
        aws_endpoint_url_s3=aws.s3.url,
    )


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as started:
        yield started
