"""What a service of its own makes of four times the requests that it can answer: ``python -m bench.overload``.

The same machine computes and asks, as many times as one client after another, as clients that keep it busy, and as
arrivals that wait for no answer, from a process of their own. Between them the probes are asked.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from bench.service import request, serving

K = TypeVar("K")

_SAMPLES = Path(__file__).parents[1] / "samples"
_PHOTOS = ("astronaut.jpg", "grace_hopper.jpg")
_REFERENCES = 1000
_CLIENTS = len(os.sched_getaffinity(0)) + 1
"""Which keep every processor busy, one of them waiting."""
_PROBES = ("/api/v1/live", "/api/v1/ready", "/metrics")
_PROBE_SECONDS = 0.25

MOST_LATENCY = 3.0
LEAST_GOODPUT = 0.9
"""What is promised of accepted requests under overload, as ratios to one client alone and to a busy service."""


@dataclass
class Answers:
    """Seconds until the answer, by status; of each probe in ``probes``."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    probes: dict[str, list[float]] = field(default_factory=dict)
    took: float = 0.0

    def add(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    def __add__(self, other: "Answers") -> "Answers":
        return Answers(_joined(self.seconds, other.seconds), _joined(self.probes, other.probes), self.took + other.took)

    @property
    def accepted(self) -> list[float]:
        return self.seconds.get(200, [])

    @property
    def per_second(self) -> float:
        return len(self.accepted) / self.took


def _joined(one: dict[K, list[float]], other: dict[K, list[float]]) -> dict[K, list[float]]:
    return {key: one.get(key, []) + other.get(key, []) for key in one | other}


@dataclass(frozen=True)
class Load:
    """Whom to ask, for what, and for how long."""

    port: int
    bodies: Sequence[bytes]
    seconds: float

    async def screen(self, number: int, answers: Answers) -> None:
        began = time.perf_counter()
        body = self.bodies[number % len(self.bodies)]
        status = await _ask(self.port, "POST", "/api/v1/process/process-images", body=body)
        answers.add(status, time.perf_counter() - began)


async def _ask(port: int, method: str, path: str, *, body: bytes = b"") -> int:
    """Status of the answer. Bare, for whoever asks takes from the processor that computes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    writer.write(f"{head}\r\n\r\n".encode() + body)
    try:
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        await reader.readexactly(int(answer.partition("content-length:")[2].partition("\r\n")[0]))
    finally:
        writer.close()
    return int(answer.split()[1])


def busy(load: Load, clients: int) -> Answers:
    """So many clients, each with its next request as soon as the last one is answered."""

    async def client(answers: Answers, number: int) -> None:
        end = time.perf_counter() + load.seconds
        while time.perf_counter() < end:
            await load.screen(number, answers)
            number += 1

    async def run(answers: Answers) -> None:
        await asyncio.gather(*(client(answers, number) for number in range(clients)))

    return _timed(run)


def arriving(load: Load, per_second: float) -> Answers:
    """Requests at an even rate, answered or not, and the probes meanwhile."""

    async def probe(answers: Answers, path: str, end: float) -> None:
        while time.perf_counter() < end:
            began = time.perf_counter()
            status = await _ask(load.port, "GET", path)
            if status != 200:
                raise RuntimeError(f"{path} answers {status}")
            answers.probes.setdefault(path, []).append(time.perf_counter() - began)
            await asyncio.sleep(_PROBE_SECONDS)

    async def run(answers: Answers) -> None:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for path in _PROBES:
                tasks.create_task(probe(answers, path, began + load.seconds))
            for number in range(round(load.seconds * per_second)):
                await asyncio.sleep(began + number / per_second - time.perf_counter())
                tasks.create_task(load.screen(number, answers))

    return _timed(run)


def _timed(run: Callable[[Answers], Awaitable[None]]) -> Answers:
    async def timed() -> Answers:
        answers = Answers()
        began = time.perf_counter()
        await run(answers)
        answers.took = time.perf_counter() - began
        return answers

    return asyncio.run(timed())


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[98] if len(seconds) > 1 else seconds[0]


def _line(name: str, answers: Answers) -> str:
    accepted = answers.accepted
    latencies = f"median {statistics.median(accepted) * 1000:.0f} ms, p99 {_p99(accepted) * 1000:.0f} ms"
    counts = Counter({status: len(found) for status, found in answers.seconds.items()})
    return f"{name}: {answers.per_second:.1f} accepted per second, {latencies}; {dict(sorted(counts.items()))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each load lasts")
    parser.add_argument("--rounds", type=int, default=3, help="how often all of them are measured")
    parser.add_argument("--times", type=float, default=4.0, help="arrivals, as a multiple of what can be answered")
    arguments = parser.parse_args()
    bodies = [request((_SAMPLES / name).read_bytes()) for name in _PHOTOS]
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), references=_REFERENCES, is_patient=False) as service,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other,
    ):
        load = Load(service.client.base_url.port or 0, bodies, arguments.seconds)
        other.submit(busy, Load(load.port, bodies, min(2.0, arguments.seconds)), 1).result()
        alone, capacity, overload = Answers(), Answers(), Answers()
        # In turns, because other machines' and other programs' loads come and go.
        for _ in range(arguments.rounds):
            alone += other.submit(busy, load, 1).result()
            full = other.submit(busy, load, _CLIENTS).result()
            capacity += full
            overload += other.submit(arriving, load, arguments.times * full.per_second).result()
    print(_line("one client", alone))
    print(_line(f"{_CLIENTS} clients", capacity))
    print(_line(f"arrivals of {arguments.times:g} times as many", overload))
    if refused := overload.seconds.get(503, []):
        print(f"refused: p99 {_p99(refused) * 1000:.0f} ms")
    for path, seconds in overload.probes.items():
        print(f"{path}: {len(seconds)} times, p99 {_p99(seconds) * 1000:.0f} ms")
    latency = _p99(overload.accepted) / _p99(alone.accepted)
    goodput = overload.per_second / capacity.per_second
    print(f"p99 of accepted requests: {latency:.2f} times that of one client (at most {MOST_LATENCY})")
    print(f"goodput: {goodput:.0%} of what a busy service answers (at least {LEAST_GOODPUT:.0%})")


if __name__ == "__main__":
    main()
