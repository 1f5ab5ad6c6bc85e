"""What clients of Rekognition's operations leave in the audit trail."""

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.api.rekognition.test_operations import KEY_ID, painted, running, settings_in
from tests.at_rest import check_disk, events
from tests.painted import BLUE, GREEN, RED


def test_every_use_and_change_is_recorded_for_the_access_key(tmp_path: Path) -> None:
    with running(settings_in(tmp_path)) as server:
        aws, here = server.rekognition, {"CollectionId": "park"}
        aws.list_collections()  # the start, which synchronises the folder, is over
        before = len(events(server.settings))
        aws.create_collection(**here)
        aws.detect_faces(Image=painted(RED))
        indexed = aws.index_faces(**here, Image=painted(RED, GREEN))["FaceRecords"]
        red, green = (record["Face"]["FaceId"] for record in indexed)
        aws.search_faces_by_image(**here, Image=painted(RED), FaceMatchThreshold=99)
        aws.compare_faces(SourceImage=painted(RED), TargetImage=painted(BLUE))
        aws.create_user(**here, UserId="eve")
        aws.associate_faces(**here, UserId="eve", FaceIds=[red], UserMatchThreshold=0)
        aws.search_users(**here, FaceId=green, UserMatchThreshold=0)
        aws.disassociate_faces(**here, UserId="eve", FaceIds=[red])
        aws.delete_user(**here, UserId="eve")
        aws.delete_faces(**here, FaceIds=[green])
        refused(aws.delete_user, **here, UserId="eve")
        refused(aws.create_collection, **here)
        aws.delete_collection(**here)
        found = events(server.settings)[before:]
    assert {event["actor"] for event in found} == {f"rekognition:{KEY_ID}"}
    # Entries are numbered as they come: the two faces, the person, and the face that is nobody's any more.
    assert [(event["action"], event["entry_ids"]) for event in found if event["outcome"] == "done"] == [
        ("collection.create", []),
        ("detect", []),
        ("entry.create", [1, 2]),
        ("search", [1]),
        ("compare", []),
        ("entry.create", [3]),
        ("image.move", [1, 3]),
        ("entry.delete", [1]),
        ("search", [3]),
        ("image.move", [3, 4]),
        ("entry.update", [3]),
        ("entry.delete", [3]),
        ("entry.delete", [2]),
        ("collection.delete", []),
    ]
    assert [(event["action"], event["outcome"]) for event in found if event["outcome"] != "done"] == [
        ("entry.update", "not_found"),
        ("collection.create", "collection_exists"),
    ]
    check_disk(server.settings)


def refused(operation: Any, **parameters: str) -> None:
    with pytest.raises(ClientError):
        operation(**parameters)
