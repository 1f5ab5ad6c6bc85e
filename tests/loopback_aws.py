"""What tests need to be a client of AWS on this machine: an S3 in this process, and access without waiting for long."""

from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer

from facescreen.aws import AwsAccess, Service

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "a-made-up-secret-access-key",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Environment variables that boto3 finds at the beginning of its chain."""


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 that keeps its buckets in memory, for all such servers of the process alike."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        assert server._server is not None
        server._server.server_close()


def access(
    endpoint_urls: dict[Service, str], *, read_timeout_seconds: float = 10, deadline_seconds: float = 20
) -> AwsAccess:
    """Access to servers on this machine."""
    return AwsAccess(
        region="us-east-1",
        endpoint_urls=endpoint_urls,
        connect_timeout_seconds=5,
        read_timeout_seconds=read_timeout_seconds,
        deadline_seconds=deadline_seconds,
    )
