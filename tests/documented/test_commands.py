"""Every documented command and every script is run, in a small form, or listed here with the reason why it is not."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.documented.blocks import ROOT, Block, blocks
from tests.documented.checkout import Checkout, free_port
from tests.loopback_aws import s3_server

BLOCKS = blocks()
KEY = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "change-me-to-something-long"}

STARTS_THE_SERVICE = ("docs/rekognition.md", "echo 'REKOGNITION_ACCESS_KEYS=")
"""Started by this block, the service answers all others."""

APART = {("docs/operations.md", "facescreen keys create")}
"""Blocks that are run on a database of their own: from the first key on, the service would refuse all others."""

NOT_RUN = {
    ("README.md", "make serve"): "its targets are run one by one, see MAKE",
    ("docs/operations.md", "docker compose run"): "needs Docker",
    ("docs/operations.md", "pip install"): "downloads packages",
}
"""Blocks by their page and how they begin, and why."""

CONFIGURES_AWS = ("docs/rekognition.md", "aws configure set")
TO_AWS = ("docs/rekognition.md", "export FACE_PROCESSING_BACKEND=aws_rekognition")
FROM_AWS = ("docs/rekognition.md", "AWS_KEEP_LOCAL_COPY=true")
FROM_BUCKET = ("docs/rekognition.md", "local-rekognition create-collection")
MOVES = [TO_AWS, FROM_AWS, FROM_BUCKET]
"""Blocks that one test runs one after the other, with an S3 and a Rekognition of this machine."""

MAKE = {
    "help": "make help",
    "test": "PYTEST_ADDOPTS=tests/domain/test_distances.py make test",
    "check": "make check",
    "bench": "make bench BENCH_FLAGS='--tiny --photos samples'",
    "torture": "PYTEST_ADDOPTS='--collect-only -q' make torture",
    "clean": "make clean",
}
"""Targets, and how they are run. `make check` looks at one file's types; `make serve` starts the service here."""

MAKE_NOT_RUN = {"serve": "run by the block that starts the service", "lock": "asks a package registry"}

PHOTOS, PAIRS = "LFW/images", "LFW/pairs.csv"
SCRIPTS = {
    "__main__": MAKE["bench"],
    "detection": f"python -m bench.detection {PHOTOS} --every 6 --sizes 1mp --repeats 1 --against yunet",
    "encryption": "python -m bench.encryption --count 200",
    "false_alerts": f"python bench/false_alerts.py {PHOTOS} {PAIRS}",
    "landmark_box": f"python bench/landmark_box.py {PHOTOS}",
    "lfw_http": f"python bench/lfw_http.py http://127.0.0.1:8000 {PHOTOS}",
    "lfw_rekognition": f"python -m bench.lfw_rekognition http://127.0.0.1:8000 $REMOTE {PHOTOS}",
    "list_report": f"python -m bench.list_report {PHOTOS} --count 400",
    "orientation": f"python bench/orientation.py {PHOTOS}",
    "overload": "python -m bench.overload --seconds 0.4 --rounds 1",
    "quality": f"python bench/quality.py {PHOTOS} {PAIRS}",
    "refusals": "python -m bench.refusals",
}
"""Scripts of bench/, and how they are run."""


def begins(block: Block, name: tuple[str, str]) -> bool:
    return block.page == name[0] and block.text.startswith(name[1])


def is_one_of(block: Block, names: object) -> bool:
    return any(begins(block, name) for name in names)  # type: ignore[attr-defined]


def found(name: tuple[str, str]) -> Block:
    (block,) = (block for block in BLOCKS if begins(block, name))
    return block


RUN = [block for block in BLOCKS if not is_one_of(block, [*NOT_RUN, STARTS_THE_SERVICE, *MOVES])]
needs_aws_cli = pytest.mark.skipif(shutil.which("aws") is None, reason="the AWS CLI is not installed")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    made = Checkout(tmp_path_factory.mktemp("checkout"))
    made.make_photos()
    return made


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    """Variables that lead to an S3 on this machine."""
    with s3_server() as url:
        yield {**KEY, "AWS_ENDPOINT_URL_S3": url, "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="module")
def log(checkout: Checkout, aws: dict[str, str]) -> Iterator[Path]:
    """That of the service, which is started as documented."""
    with checkout.serving(found(STARTS_THE_SERVICE).text, **aws) as log:
        yield log


LISTED = [*NOT_RUN, STARTS_THE_SERVICE, *APART, CONFIGURES_AWS, *MOVES]


@pytest.mark.parametrize("name", LISTED, ids=lambda name: f"{name[0]}: {name[1]}")
def test_what_is_listed_is_documented(name: tuple[str, str]) -> None:
    assert [block.page for block in BLOCKS if begins(block, name)] == [name[0]]


@pytest.mark.parametrize("block", RUN, ids=lambda block: f"{block.page}: {block.text.partition(chr(10))[0][:40]}")
def test_a_documented_block_runs(checkout: Checkout, log: Path, block: Block) -> None:
    if re.search(r"\baws ", block.text) and shutil.which("aws") is None:
        pytest.skip("the AWS CLI is not installed")
    environment = {"DATABASE_URL": "sqlite+aiosqlite:///data/apart.db"} if is_one_of(block, APART) else {}
    if environment:
        checkout.run("facescreen migrate", **environment)
    if block.language == "python":
        checkout.run_python(block.text)
    else:
        checkout.run(block.text, **environment)


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
    assert sorted(scripts) == sorted(SCRIPTS)


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


@needs_aws_cli
def test_people_move_to_aws_and_back(checkout: Checkout, log: Path, aws: dict[str, str]) -> None:
    (checkout.folder / "moving" / "list" / "eileen").mkdir(parents=True)
    shutil.copy(ROOT / "samples" / "astronaut.jpg", checkout.folder / "moving" / "list" / "eileen")
    port = str(free_port())
    apart = {
        **aws,
        "PORT": port,
        "DATABASE_URL": "sqlite+aiosqlite:///moving/facescreen.db",
        "BLACKLIST_DB_PATH": "moving/list",
        "PROCESSED_IMAGES_OUTPUT_DIR": "moving/processed",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL_REKOGNITION": f"http://127.0.0.1:{checkout.port}/rekognition",
    }
    checkout.run("facescreen migrate && facescreen sync", **apart)
    with checkout.serving(found(TO_AWS).text, **apart):
        remote = f"http://127.0.0.1:{port}"
        listed = httpx.get(f"{remote}/api/v1/blacklist/", trust_env=False).json()
        assert [entry["name"] for entry in listed] == ["eileen"]
        checkout.run(SCRIPTS["lfw_rekognition"], REMOTE=remote)
    at_amazon = {"FACE_PROCESSING_BACKEND": "aws_rekognition", "AWS_S3_BUCKET_NAME": "my-reference-photos"}
    lines, last = found(FROM_AWS).text.rstrip().rsplit("\n", 1)
    assert last == "make serve"  # which would not end
    checkout.run(f"{lines}\nfacescreen doctor", **apart, **at_amazon)


@needs_aws_cli
def test_photos_in_a_bucket_are_indexed_again(checkout: Checkout, log: Path, aws: dict[str, str]) -> None:
    before = [line for line in found(CONFIGURES_AWS).text.splitlines() if not line.startswith("local-rekognition")]
    upload = "aws s3 cp samples/astronaut.jpg 's3://my-photos/visitors/Eileen Collins.jpg'"
    lines = [
        *before,
        "local-rekognition delete-collection --collection-id visitors || true",
        f"aws s3 mb s3://my-photos && {upload}",
        found(FROM_BUCKET).text,
    ]
    printed = checkout.run("\n".join(lines), **aws, AWS_REGION="us-east-1")
    assert '"ExternalImageId": "Eileen_Collins.jpg"' in printed
    assert '"FaceCount": 1' in printed


@pytest.mark.parametrize("script", sorted(SCRIPTS.keys() - {"lfw_rekognition"}))
def test_a_script_runs(checkout: Checkout, log: Path, script: str) -> None:
    assert checkout.run(SCRIPTS[script])
