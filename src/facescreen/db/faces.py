"""A detected face as columns, shared by reference images and results."""

from typing import Any

from sqlalchemy import RowMapping

from facescreen.domain.faces import Box, Face, Landmarks, Point

_LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


def to_columns(face: Face) -> dict[str, Any]:
    """The values of the face columns."""
    landmarks = {name: list(point) for name in _LANDMARKS if (point := getattr(face.landmarks, name)) is not None}
    box = face.box
    return {"x": box.x, "y": box.y, "w": box.w, "h": box.h, "landmarks": landmarks, "confidence": face.confidence}


def from_row(row: RowMapping) -> Face:
    """The face that :func:`to_columns` stored; whether it is upright stands in the quality of its picture."""
    landmarks = Landmarks(**{name: Point(*point) for name, point in row["landmarks"].items()})
    is_upright = (row["quality"] or {}).get("is_upright", True)
    return Face(Box(row["x"], row["y"], row["w"], row["h"]), landmarks, row["confidence"], is_upright)
