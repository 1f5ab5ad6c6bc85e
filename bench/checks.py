"""Answers that must not depend on which worker gives them, or on what else is going on."""

from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any

import httpx

from .photos import SAMPLES, make_variants
from .service import Service, request


def stale_answers(service: Service, *, workers: int, rounds: int) -> tuple[int, int]:
    """How many answers there were, and how many of them were stale.

    In each round a worker in turn enrolls a person, and all of them are asked at once; the next one deletes the entry,
    and all are asked again.
    """
    photo = (SAMPLES / "astronaut.jpg").read_bytes()
    body = request(photo)
    answers = stale = 0

    def is_listed(client: httpx.Client) -> bool:
        (face,) = service.screen(body, client)["faces"]
        return bool(face["blacklist_matches"])

    def ask_all() -> list[bool]:
        with service.client_per_worker(workers) as clients, ThreadPoolExecutor(workers) as pool:
            return list(pool.map(is_listed, clients))

    for number in range(rounds):
        with service.client_per_worker(workers) as clients:
            entry = service.enroll("astronaut", photo, clients[number % workers])
        enrolled = ask_all()
        with service.client_per_worker(workers) as clients:
            service.delete(entry, clients[(number + 1) % workers])
        deleted = ask_all()
        answers += len(enrolled) + len(deleted)
        stale += enrolled.count(False) + deleted.count(True)
    return answers, stale


def differing_answers(service: Service, *, requests: int, at_once: int) -> tuple[int, int]:
    """How many of the requests are different, and how many answers are not the one that the request gets alone."""
    metrics = ("cosine", "euclidean", "euclidean_l2", "angular", None)
    variants = islice(make_variants(), requests)
    bodies = [request(data, distance_metric=metric) for data, metric in zip(variants, cycle(metrics))]
    alone = [_answer(service, body) for body in bodies]
    assert any(face["blacklist_matches"] for answer in alone for face in answer["faces"])
    with ThreadPoolExecutor(at_once) as pool:
        together = list(pool.map(lambda body: _answer(service, body), islice(cycle(bodies), requests)))
    return len(bodies), sum(answer != expected for answer, expected in zip(together, cycle(alone)))


def _answer(service: Service, body: bytes) -> dict[str, Any]:
    answer = service.screen(body)
    return {key: value for key, value in answer.items() if key not in {"id", "created_at"}}
