"""Images as objects of a bucket."""

import mimetypes
from collections.abc import AsyncIterator, Sequence
from typing import Any

from facescreen.aws import AwsClient, AwsRefusal
from facescreen.errors import AwsServiceError
from facescreen.images.store import name_parts


class S3Store:
    """An ``ImageStore`` of objects whose keys are the prefix and the name. S3 shows an object whole or not at all.

    Every method raises :class:`facescreen.errors.AwsError` where S3 does not do its part.

    Args:
        client: of the service ``s3``; whoever made it closes it.
        prefix: ends with a slash, or is empty.
    """

    def __init__(self, client: AwsClient, bucket: str, *, prefix: str = "blacklist/") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    async def require(self) -> None:
        """Prove that the bucket exists and may be listed.

        Raises:
            AwsBucketMissingError: it does not exist.
        """
        # HeadBucket would do, but its answers have no body to tell expired credentials from a missing permission.
        await self._call("list_objects_v2", Prefix=self._prefix, MaxKeys=1)

    async def put(self, name: str, data: bytes) -> None:
        content_type, _ = mimetypes.guess_type(name, strict=False)
        await self._call(
            "put_object", Key=self._key(name), Body=data, ContentType=content_type or "application/octet-stream"
        )

    async def get(self, name: str) -> bytes:
        answer = await self._call("get_object", Key=self._key(name))
        data: bytes = answer["Body"]
        return data

    async def delete(self, name: str) -> None:
        key = self._key(name)
        answer = await self._call("delete_object", Key=key)
        if answer.get("DeleteMarker"):  # a bucket with versioning hides the object and keeps all that it ever was
            async for version in self._versions(key):
                await self._call("delete_object", Key=key, VersionId=version)

    async def list(self, folder: str | None = None) -> list[str]:
        top = self._prefix if folder is None else f"{self._key(folder)}/"
        names = [key.removeprefix(self._prefix) async for key in self._keys(top)]
        return sorted(filter(_is_listed, names))

    def _key(self, name: str) -> str:
        return self._prefix + "/".join(name_parts(name))

    async def _keys(self, prefix: str) -> AsyncIterator[str]:
        async for page in self._pages("list_objects_v2", prefix, markers=["ContinuationToken"]):
            for each in page.get("Contents", []):
                yield each["Key"]

    async def _versions(self, key: str) -> AsyncIterator[str]:
        async for page in self._pages("list_object_versions", key, markers=["KeyMarker", "VersionIdMarker"]):
            for each in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
                if each["Key"] == key:
                    yield each["VersionId"]

    async def _pages(self, operation: str, prefix: str, *, markers: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        following: dict[str, str] = {}
        while True:
            page = await self._call(operation, Prefix=prefix, **following)
            if "IsTruncated" not in page:  # another kind of document is not an empty bucket
                raise AwsServiceError("S3 answered with something that is no listing")
            yield page
            if not page["IsTruncated"]:
                return
            following = {marker: page[f"Next{marker}"] for marker in markers}

    async def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever S3 takes
        try:
            return await self._client.call(operation, Bucket=self._bucket, **parameters)
        except AwsRefusal as refusal:
            raise AwsServiceError(f"S3 refused {operation}") from refusal


def _is_listed(name: str) -> bool:
    try:
        name_parts(name)
    except ValueError:
        return False
    else:
        return True
