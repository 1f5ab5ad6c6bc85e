"""Where encoded images are kept under names: the interface."""

from typing import Protocol


class ImageStore(Protocol):
    """Encoded images under relative names with forward slashes, such as ``ada-lovelace/3f2a.jpg``.

    Whatever else lies there is one of them: only its bytes tell whether it is an image.

    Safe for concurrent use, also by several processes. Every method that takes a name raises ValueError where
    ``name_parts`` does. Hidden files and symbolic links are not part of the store.
    """

    async def put(self, name: str, data: bytes) -> None:
        """Store the image, replacing what has the name. On return it survives a power cut; no part is seen before.

        Raises:
            StorageFullError: the medium is full, read-only or failing; no part of the image is left behind.
        """
        ...

    async def get(self, name: str) -> bytes:
        """The image.

        Raises:
            FileNotFoundError: nothing has the name.
            StorageFullError: the medium is failing, or the image another user's.
        """
        ...

    async def delete(self, name: str) -> None:
        """Remove the image for good, and folders that it leaves empty. A name that nothing has is fine.

        Raises:
            StorageFullError: the medium is read-only or failing, or the image another user's.
        """
        ...

    async def list(self, folder: str | None = None) -> list[str]:
        """The names of all images, or of those in and below a folder, sorted.

        Raises:
            StorageFullError: not all of them can be listed.
        """
        ...


def name_parts(name: str) -> tuple[str, ...]:
    """The components of a name in a store.

    Raises:
        ValueError: it holds a NUL, or a component that is empty or begins with a dot.
    """
    parts = name.split("/")
    if "\0" in name or any(not part or part.startswith(".") for part in parts):
        raise ValueError("not a name in an image store")
    return tuple(parts)
