"""Every documented command and every script is run, in a small form, or listed here with the reason why it is not."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.documented.blocks import ROOT, Block, blocks
from tests.documented.checkout import Checkout

BLOCKS = blocks()

STARTS_THE_SERVICE = ("docs/rekognition.md", "echo 'REKOGNITION_ACCESS_KEYS=")
"""Started by this block, the service answers all others."""

APART = {("docs/operations.md", "facescreen keys create")}
"""Blocks that are run on a database of their own: from the first key on, the service would refuse all others."""

NOT_RUN = {
    ("README.md", "make serve"): "its targets are run one by one, see MAKE",
    ("docs/operations.md", "docker compose run"): "needs Docker",
    ("docs/operations.md", "pip install"): "downloads packages",
    ("docs/rekognition.md", "local-rekognition create-collection"): "needs a bucket of AWS",
    ("docs/rekognition.md", "AWS_KEEP_LOCAL_COPY=true"): "needs a bucket of AWS",
    ("docs/rekognition.md", "export FACE_PROCESSING_BACKEND=aws_rekognition"): "makes a bucket of AWS",
}
"""Blocks by their page and how they begin, and why."""

MAKE = {
    "help": "make help",
    "test": "PYTEST_ADDOPTS=tests/domain/test_distances.py make test",
    "check": "make check",
    "bench": "make bench BENCH_FLAGS=--tiny",
    "torture": "PYTEST_ADDOPTS='--collect-only -q' make torture",
    "clean": "make clean",
}
"""Targets, and how they are run. `make check` looks at one file's types; `make serve` starts the service here."""

MAKE_NOT_RUN = {"serve": "run by the block that starts the service", "lock": "asks a package registry"}

PHOTOS, PAIRS = "LFW/images", "LFW/pairs.csv"
SCRIPTS = {
    "__main__": MAKE["bench"],
    "detection": f"python -m bench.detection {PHOTOS} --every 6 --repeats 1 --against yunet",
    "encryption": "python -m bench.encryption --count 200",
    "false_alerts": f"python bench/false_alerts.py {PHOTOS} {PAIRS}",
    "landmark_box": f"python bench/landmark_box.py {PHOTOS}",
    "lfw_http": f"python bench/lfw_http.py http://127.0.0.1:8000 {PHOTOS}",
    "list_report": f"python -m bench.list_report {PHOTOS} --count 400",
    "orientation": f"python bench/orientation.py {PHOTOS}",
    "overload": "python -m bench.overload --seconds 0.5 --rounds 1",
    "quality": f"python bench/quality.py {PHOTOS} {PAIRS}",
    "refusals": "python -m bench.refusals",
}
"""Scripts of bench/, and how they are run."""

SCRIPTS_NOT_RUN = {"lfw_rekognition": "needs a bucket of AWS; tests/accuracy/test_rekognition.py runs what it measures"}


def begins(block: Block, name: tuple[str, str]) -> bool:
    return block.page == name[0] and block.text.startswith(name[1])


def is_one_of(block: Block, names: object) -> bool:
    return any(begins(block, name) for name in names)  # type: ignore[attr-defined]


RUN = [block for block in BLOCKS if not is_one_of(block, [*NOT_RUN, STARTS_THE_SERVICE])]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    made = Checkout(tmp_path_factory.mktemp("checkout"))
    made.make_photos()
    return made


@pytest.fixture(scope="module")
def log(checkout: Checkout) -> Iterator[Path]:
    """That of the service, which is started as documented."""
    (block,) = (block for block in BLOCKS if begins(block, STARTS_THE_SERVICE))
    with checkout.serving(block.text) as log:
        yield log


@pytest.mark.parametrize("name", [*NOT_RUN, STARTS_THE_SERVICE, *APART], ids=lambda name: f"{name[0]}: {name[1]}")
def test_what_is_listed_is_documented(name: tuple[str, str]) -> None:
    assert [block.page for block in BLOCKS if begins(block, name)] == [name[0]]


@pytest.mark.parametrize("block", RUN, ids=lambda block: f"{block.page}: {block.text.partition(chr(10))[0][:40]}")
def test_a_documented_block_runs(checkout: Checkout, log: Path, block: Block) -> None:
    if re.search(r"\baws ", block.text) and shutil.which("aws") is None:
        pytest.skip("the AWS CLI is not installed")
    environment = {"DATABASE_URL": "sqlite+aiosqlite:///data/apart.db"} if is_one_of(block, APART) else {}
    if environment:
        checkout.run("facescreen migrate", **environment)
    checkout.run(block.text, python=block.language == "python", **environment)


def test_the_log_of_the_service_is_json_whatever_libraries_say(checkout: Checkout, log: Path) -> None:
    photo = (ROOT / "samples" / "astronaut.jpg").read_bytes()
    torn = photo[:5000] + photo[6000:]
    address = f"http://127.0.0.1:{checkout.port}/api/v1/blacklist/"
    answer = httpx.post(address, data={"name": "Torn"}, files={"images": torn}, trust_env=False)
    assert answer.status_code in {201, 422}
    written = log.read_text().partition("exec .venv/bin/facescreen serve\n")[2]
    events = [json.loads(line)["event"] for line in written.splitlines()]
    assert {"request", "library_output_withheld"} <= set(events)


def test_every_target_and_every_script_is_run_or_listed() -> None:
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(targets) == sorted([*MAKE, *MAKE_NOT_RUN])
    scripts = [path.stem for path in (ROOT / "bench").glob("*.py") if '__name__ == "__main__"' in path.read_text()]
    assert sorted(scripts) == sorted([*SCRIPTS, *SCRIPTS_NOT_RUN])


@pytest.mark.parametrize("target", sorted(MAKE.keys() - {"bench", "clean"}))
def test_a_target_runs(checkout: Checkout, target: str) -> None:
    checkout.run(MAKE[target])


def test_cleaning_leaves_data_and_programs(tmp_path: Path) -> None:
    dirty = Checkout(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "src" / "__pycache__").mkdir()
    left = {*tmp_path.iterdir()} - {tmp_path / ".venv"}
    dirty.run(MAKE["clean"])
    assert {*tmp_path.iterdir()} == left
    assert not (tmp_path / "src" / "__pycache__").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_runs(checkout: Checkout, log: Path, script: str) -> None:
    assert checkout.run(SCRIPTS[script])
