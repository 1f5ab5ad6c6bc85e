"""The three sides of a service on AWS: its database with its folders, the bucket, and the collections."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import httpx

from facescreen.config import Settings
from facescreen.factory import Services
from facescreen.services.audit import Finding
from tests.conftest import serving_with
from tests.rekognition.s3_proxy import S3Proxy
from tests.rekognition_server import RekognitionServer

COLLECTION = "ours"
PREFIX = "blacklist/"


@dataclass(frozen=True)
class Aws:
    """A Rekognition and an S3 that fail as they are told, and a client of the S3 behind that never does."""

    rekognition: RekognitionServer
    s3: S3Proxy
    client: Any
    bucket: str

    def objects(self) -> dict[str, bytes]:
        """Everything in the bucket."""
        listed = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {each["Key"]: self.object(each["Key"]) for each in listed}

    def object(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return data

    def put(self, key: str, data: bytes = b"x") -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def faces(self, collection: str = COLLECTION) -> dict[str, tuple[str | None, str | None]]:
        """Name of ours and person of each face, by its id."""
        found = self.rekognition.collections[collection].faces.values()
        return {face.face_id: (face.external_image_id, face.user_id) for face in found}

    def users(self, collection: str = COLLECTION) -> set[str]:
        return set(self.rekognition.collections[collection].users)

    def heal(self) -> None:
        self.rekognition.heal()
        self.s3.heal()


def serving(settings: Settings) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """The started application with the configured backend, and a client of it below ``/api/v1``."""
    return serving_with(settings, None)


def inside(client: httpx.AsyncClient) -> Services:
    """The services behind the client."""
    services: Services = client.services  # type: ignore[attr-defined]
    return services


async def audit(client: httpx.AsyncClient, *, fix: bool = False) -> list[Finding]:
    """What the audit finds."""
    return [finding async for finding in inside(client).audit.audit(fix=fix)]
