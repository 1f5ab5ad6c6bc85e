"""Settings: each spelling is taken as it was meant, or refused in one line that says what is allowed."""

from pathlib import Path
from typing import get_args

import pytest

from facescreen.config import Settings, load_settings
from facescreen.errors import StartupError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which has no ``.env`` yet; the home folder is beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def refusal() -> str:
    with pytest.raises(StartupError) as refused:
        load_settings()
    (line,) = str(refused.value).splitlines()
    assert not any(sign in line for sign in ("<Metric", "<class", "Value error", "pattern"))
    return line


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [
        ("DATABASE_URL", "sqlite:///data/x.db", "sqlite+aiosqlite:///data/x.db"),
        ("DATABASE_URL", "sqlite+pysqlite:////srv/x.db", "sqlite+aiosqlite:////srv/x.db"),
        ("DATABASE_URL", "data/x.db", "sqlite+aiosqlite:///data/x.db"),
        ("DATABASE_URL", "/srv/x.db", "sqlite+aiosqlite:////srv/x.db"),
        ("DATABASE_URL", "~/x.db", "sqlite+aiosqlite:////home/ada/x.db"),
        ("DATABASE_URL", "sqlite:///~/x.db", "sqlite+aiosqlite:////home/ada/x.db"),
        ("BLACKLIST_DB_PATH", "~/faces", Path("/home/ada/faces")),
        ("PROCESSED_IMAGES_OUTPUT_DIR", "~/copies", Path("/home/ada/copies")),
        ("DEEPFACE_HOME", "~", Path("/home/ada")),
        ("ENCRYPTION_KEY_DIR", "~/keys", Path("/home/ada/keys")),
        ("ENCRYPTION_KEY_DIR", " ", None),
        ("IMAGE_INPUT_ROOTS", '["samples", "~/photos"]', (Path("samples"), Path("/home/ada/photos"))),
        ("IMAGE_INPUT_ROOTS", "samples, '/srv/a b',", (Path("samples"), Path("/srv/a b"))),
        ("IMAGE_INPUT_ROOTS", "", ()),
        (
            "URL_ALLOWED_HOSTS",
            "NAS.local,[::1]:8080,::1,10.0.0.7:81",
            ("nas.local", "[::1]:8080", "::1", "10.0.0.7:81"),
        ),
        ("CORS_ALLOWED_ORIGINS", "https://Gate.example.com/", ("https://gate.example.com",)),
        (
            "CORS_ALLOWED_ORIGINS",
            "https://a.example:443,http://b.example:443",
            ("https://a.example", "http://b.example:443"),
        ),
        ("CORS_ALLOWED_ORIGINS", "*,null,capacitor://localhost", ("*", "null", "capacitor://localhost")),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("HOST", "[::1]", "::1"),
        ("HOST", "LocalHost", "localhost"),
        ("DISTANCE_METRIC", "Cosine", "cosine"),
        ("DETECTOR_BACKEND", "CenterFace", "centerface"),
        ("MODEL_NAME", "sface", "SFace"),
        ("FACE_PROCESSING_BACKEND", "DeepFace", "deepface"),
        ("AUTH_MODE", "None", "none"),
        ("LOG_LEVEL", "INFO", "info"),
        ("MODEL_NAME", '"Dlib" ', "Dlib"),
        ("PORT", "'8001'\r", 8001),
        ("DOCS_ENABLED", "off ", False),
        ("MATCH_THRESHOLD", '""', None),
        ("RETENTION_HITS_DAYS", "", None),
        ("RATE_LIMIT_PER_KEY", "", ""),
    ],
)
def test_what_was_meant(monkeypatch: pytest.MonkeyPatch, name: str, text: str, meant: object) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(load_settings(), name.lower()) == meant


@pytest.mark.parametrize(
    ("name", "texts", "told"),
    [
        (
            "DATABASE_URL",
            ["", "postgresql://ada@db/x", "sqlite://data/x.db", "sqlite://", "sqlite:///:memory:", ":memory:"],
            "must be the path of an SQLite file",
        ),
        ("BLACKLIST_DB_PATH", [""], "must name a folder"),
        ("BLACKLIST_DB_PATH", ["file:///srv/faces", "s3://faces", "smb://nas/faces"], "not an address"),
        (
            "PROCESSED_IMAGES_OUTPUT_DIR",
            ["$HOME/faces", "%USERPROFILE%/faces"],
            "variables such as $HOME are not replaced",
        ),
        ("IMAGE_INPUT_ROOTS", ["~nobody-of-this-name/x"], "no home folder is known"),
        ("IMAGE_INPUT_ROOTS", ["['samples']", '["samples"', "[1]"], "without brackets"),
        (
            "URL_ALLOWED_HOSTS",
            ["http://nas.local", "nas.local/x", "192.168.0.0/16", "*.local", "straße.local", "nas local", "nas:http"],
            "without http://, path, mask and wildcard",
        ),
        ("URL_ALLOWED_HOSTS", ["nas:0", "nas:70000"], "port from 1 to 65535"),
        (
            "CORS_ALLOWED_ORIGINS",
            ["gate.example.com", "https://gate.example.com/app", "https://*@x", "https://"],
            "must be origins such as https://gate.example.com",
        ),
        (
            "AWS_ENDPOINT_URL",
            ["localhost:9000", "http://", "http://a:b@c", "ftp://c", "http://c:x"],
            "must be an address such as",
        ),
        ("AWS_S3_BUCKET_NAME", ["s3://faces", "https://s3.amazonaws.com/faces"], "name of the bucket"),
        ("HOST", ["", "http://0.0.0.0", "0.0.0.0:8000", "my host"], "which PORT gives"),
        (
            "DISTANCE_METRIC",
            ["cosin"],
            "must be one of cosine, euclidean, euclidean_l2, angular; the nearest one is cosine",
        ),
        ("LOG_LEVEL", ["loud"], "must be one of debug, info, warning, error"),
        ("RATE_LIMIT_FAILURES", ["30", "30/min"], "must be such as 6000/minute"),
        ("REKOGNITION_ACCESS_KEYS", ["AKIA"], "must be <access key id>"),
        ("PORT", ["http", ""], "integer"),
    ],
)
def test_what_cannot_work(monkeypatch: pytest.MonkeyPatch, name: str, texts: list[str], told: str) -> None:
    for text in texts:
        monkeypatch.setenv(name, text)
        line = refusal()
        assert line.startswith(f"{name}: "), text
        assert told in line, text


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_trimmed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    annotation, value = Settings.model_fields[name].annotation, Settings.model_fields[name].default
    if isinstance(value, tuple) or value is None:
        written = ",".join(map(str, value or ()))
        assert value is not None or type(None) in get_args(annotation)
    else:
        written = str(value)
    monkeypatch.setenv(name.upper(), f' "{written}" \t')
    assert getattr(load_settings(), name) == value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_dotenv(folder: Path, encoding: str) -> None:
    (folder / ".env").write_text("MODEL_NAME=Dlib\n# für später\nBLACKLIST_DB_PATH=gesichter/ü\n", encoding)
    settings = load_settings()
    assert (settings.model_name, settings.blacklist_db_path) == ("Dlib", Path("gesichter/ü"))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("A=1\nB=ü\n".encode("latin-1"), ".env, line 2: the text is not UTF-8; save the file as UTF-8"),
        ("MODEL_NAME=Dlib".encode("utf-16-le"), ".env: the text is not UTF-8; save the file as UTF-8"),
        (b"# yes\n\nMODEL_NAME: Dlib\n", ".env, line 3: must be NAME=value, or begin with #"),
        (b"MODEL_NAME\n", ".env, line 1: must be NAME=value, or begin with #"),
    ],
)
def test_a_dotenv_that_cannot_be_read(folder: Path, data: bytes, told: str) -> None:
    (folder / ".env").write_bytes(data)
    assert refusal() == told


def test_a_folder_named_dotenv(folder: Path) -> None:
    (folder / ".env").mkdir()
    assert refusal().startswith(".env cannot be read: ")


MISSPELT = [
    ("ENCRYPTION_KEYS_DIR", "ENCRYPTION_KEY_DIR"),
    ("RETENTION_HITS_DAY", "RETENTION_HITS_DAYS"),
    ("MATCH_TRESHOLD", "MATCH_THRESHOLD"),
    ("match_treshhold", "MATCH_THRESHOLD"),
    ("MATCH-THRESHOLD", "MATCH_THRESHOLD"),
    ("REVIEW_THERSHOLD", "REVIEW_THRESHOLD"),
    ("DATABASE_URI", "DATABASE_URL"),
    ("AWS_KEEP_LOCAL_COPYS", "AWS_KEEP_LOCAL_COPY"),
    ("AWS_ENDPOINT_URLS_3", "AWS_ENDPOINT_URL_S3"),
    ("FACESCREEN_MATCH_THRESHOLD", "MATCH_THRESHOLD"),
    ("FACESCREEN_HOST", "HOST"),
]


@pytest.mark.parametrize(("name", "meant"), MISSPELT)
def test_a_misspelt_setting_stops_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "1")
    assert refusal() == f"there is no setting {name}; the nearest one is {meant}"
    monkeypatch.delenv(name)
    (folder / ".env").write_text(f"PORT=8001\n\n{name}=1\n")
    assert refusal() == f".env, line 3: there is no setting {name}; the nearest one is {meant}"


@pytest.mark.parametrize("name", ["RETENTION_DAYS", "MAX_UPLOAD_SIZE", "DATABASE_PASSWORD", "LOG_FORMAT", "HOST_NAME"])
def test_a_line_of_dotenv_that_begins_like_a_setting_stops_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    load_settings()
    (folder / ".env").write_text(f"export {name}=1\n")
    assert refusal().startswith(f".env, line 1: there is no setting {name}; the nearest one is ")


OTHERS = """
    PATH PYTHONPATH HOME HOSTNAME HOSTTYPE LANG PWD SHELL TERM TZ USER PORTS POST REPORT LOGLEVEL MODEL IMAGE_NAME
    DATABASE_HOST DATABASE_NAME UVICORN_PORT WEB_CONCURRENCY MAX_WORKERS KUBERNETES_SERVICE_HOST
    AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE AWS_DEFAULT_REGION AWS_MAX_ATTEMPTS
    AWS_ENDPOINT_URL_STS AWS_ENDPOINT_URL_EC2 DEEPFACE_LOG_LEVEL DEEPFACE_BACKEND_ENGINE COMPOSE_PROJECT_NAME
    PROMETHEUS_MULTIPROC_DIR FACESCREEN_PORT FACESCREEN_PORT_8000_TCP FACESCREEN_SERVICE_HOST FACESCREEN_UID
"""


def test_what_others_set_is_theirs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OTHERS.split():
        monkeypatch.setenv(name, "1")
    load_settings()
    shared = [name for name in OTHERS.split() if name.startswith(("AWS", "DEEPFACE", "FACESCREEN", "COMPOSE", "TZ"))]
    (folder / ".env").write_text("".join(f"{name}=1\n" for name in shared))
    load_settings()
