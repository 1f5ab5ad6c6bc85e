"""Examples that run as they stand in Swagger UI: ``samples/`` is the default input root."""

from typing import Any

from fastapi.openapi.models import Example

from facescreen.api.bodies import FORM

_DATA_URL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)

DETECT: dict[str, Example] = {
    "path": {"summary": "A photo in samples/", "value": {"image": "samples/astronaut.jpg"}},
    "detector": {
        "summary": "Another detector",
        "value": {"image": "samples/astronaut.jpg", "detector_backend": "dlib"},
    },
    "data URL": {"summary": "A data URL (one pixel, no face)", "value": {"image": _DATA_URL}},
}

PROCESS: dict[str, Example] = {
    "paths": {
        "summary": "Two photos in samples/",
        "value": {"images": ["samples/astronaut.jpg", "samples/grace_hopper.jpg"]},
    },
    "threshold": {
        "summary": "Another metric and a stricter threshold",
        "value": {
            "images": ["samples/astronaut.jpg"],
            "detector_backend": "centerface",
            "model_name": "SFace",
            "distance_metric": "euclidean_l2",
            "threshold": 0.9,
        },
    },
    "one bad image": {
        "summary": "A bad image does not fail the others",
        "value": {"images": ["samples/astronaut.jpg", "samples/no-such-file.jpg", _DATA_URL]},
    },
}

UPDATE: dict[str, Example] = {
    "nothing": {"summary": "Nothing: write here what is to change", "value": {}},
    "reason": {"summary": "Another reason", "value": {"reason": "banned until 2027-01-01"}},
    "expiry": {"summary": "Until when", "value": {"expires_at": "2099-12-31T23:59:59Z"}},
    "both": {"summary": "Name and reason", "value": {"name": "Eileen M. Collins", "reason": "mistaken identity"}},
}


def with_empty_forms(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with nothing filled into the fields of its forms, except for their defaults.

    Swagger UI fills in the example of a field, and a random value where there is none. An empty field is not given.
    """
    bodies = (operation.get("requestBody", {}) for item in document["paths"].values() for operation in item.values())
    for body in bodies:
        schema = body.get("content", {}).get(FORM, {}).get("schema", {})
        if name := schema.get("$ref", "").rpartition("/")[2]:
            schema = document["components"]["schemas"][name]
        for field in schema.get("properties", {}).values():
            if "default" not in field:
                field.get("items", field)["examples"] = [""]
    return document
