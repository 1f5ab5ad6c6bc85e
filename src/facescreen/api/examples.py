"""Examples that run as they stand in Swagger UI: ``samples/`` is the default input root."""

from fastapi.openapi.models import Example

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
    "reason": {"summary": "Another reason", "value": {"reason": "banned until 2027-01-01"}},
    "expiry": {"summary": "Until when", "value": {"expires_at": "2099-12-31T23:59:59Z"}},
    "both": {"summary": "Name and reason", "value": {"name": "Eileen M. Collins", "reason": "mistaken identity"}},
}
