"""What operations of the facade attempted and did not do is recorded here; what was done, with the change itself."""

from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from facescreen.api.attempts import NOT_BEGUN
from facescreen.api.rekognition.faults import RekognitionFault
from facescreen.domain.trail import Action
from facescreen.errors import FacescreenError
from facescreen.services.trail import TrailService

ACTIONS: Final[Mapping[str, Action]] = {
    "CreateCollection": Action.COLLECTION_CREATE,
    "DeleteCollection": Action.COLLECTION_DELETE,
    "IndexFaces": Action.ENTRY_CREATE,
    "DeleteFaces": Action.ENTRY_DELETE,
    "CreateUser": Action.ENTRY_CREATE,
    "DeleteUser": Action.ENTRY_UPDATE,
    "AssociateFaces": Action.IMAGE_MOVE,
    "DisassociateFaces": Action.IMAGE_MOVE,
}
"""What each operation that changes something attempts."""


class Attempts:
    """Records what an operation that changes something did not do, once it is known who asked for it."""

    def __init__(self, app: ASGIApp, trail: TrailService) -> None:
        self._app = app
        self._trail = trail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        code = None
        try:
            await self._app(scope, receive, send)
        except RekognitionFault as fault:
            code = fault.name
            raise
        except FacescreenError as error:
            code = error.code
            raise
        except Exception:
            code = FacescreenError.code
            raise
        finally:
            action = ACTIONS.get(scope.get("state", {}).get("attempted"))
            if action is not None and code is not None and code not in NOT_BEGUN:
                await self._trail.note_failure(action, outcome=code)
