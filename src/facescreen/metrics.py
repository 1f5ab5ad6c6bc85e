"""Every Prometheus instrument. No label holds anything that a caller chose, and every label has few values.

With several workers each writes its numbers into ``PROMETHEUS_MULTIPROC_DIR``, and whichever is asked adds them up.
"""

import os
from pathlib import Path

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = CONTENT_TYPE_LATEST
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable; it has to be set before this module is imported."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

requests = Counter("facescreen_requests", "Requests that were answered.", ["method", "route", "status"])
request_seconds = Histogram(
    "facescreen_request_seconds", "From the request to the end of its answer.", ["method", "route"], buckets=_SECONDS
)
requests_in_progress = Gauge(
    "facescreen_requests_in_progress", "Requests that are not answered yet.", multiprocess_mode="livesum"
)
problems = Counter("facescreen_problems", "Answers that are problems, by their code.", ["code"])

running = Gauge("facescreen_work_running", "Requests that compute with images now.", multiprocess_mode="livesum")
waiting = Gauge("facescreen_work_waiting", "Requests that wait for those.", multiprocess_mode="livesum")
admitted = Counter("facescreen_work_admitted", "Requests that were let compute.")
stopped = Counter("facescreen_requests_stopped", "Requests whose work was stopped: deadline, client_gone.", ["reason"])

image_seconds = Histogram(
    "facescreen_image_seconds",
    "What one step takes: decode and detect for one image, compare for all faces of a request.",
    ["step"],
    buckets=_SECONDS,
)
images = Counter("facescreen_images", "Images that were screened, by verdict; refused: without one.", ["verdict"])
faces = Counter("facescreen_faces", "Faces that were screened, by verdict.", ["verdict"])

list_version = Gauge(
    "facescreen_list_version",
    "Version of the default collection in the index; of several workers the oldest.",
    multiprocess_mode="livemin",
)
list_images = Gauge(
    "facescreen_list_reference_images",
    "Reference images of the default collection; of several workers the fewest.",
    multiprocess_mode="livemin",
)
photos_to_embed = Gauge(
    "facescreen_photos_to_embed",
    "Reference images that lack an embedding of the configured model while another model answers.",
    multiprocess_mode="livemax",
)

database_writes = Counter("facescreen_database_writes", "Transactions that were committed.")
database_failures = Counter(
    "facescreen_database_failures", "Transactions that failed: database_busy, storage_full.", ["code"]
)


def exposition() -> bytes:
    """Everything in Prometheus's text format."""
    if SHARED_FOLDER not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget_workers(*, this_too: bool = False) -> None:
    """Take what workers had in progress that have ended out of the sums.

    Args:
        this_too: this one is about to end.
    """
    folder = os.environ.get(SHARED_FOLDER)
    for file in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = int(file.stem.rpartition("_")[2])
        if this_too if pid == os.getpid() else not Path("/proc", str(pid)).exists():
            multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
