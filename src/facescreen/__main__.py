"""``python -m facescreen``."""

from facescreen.cli import main

main()
