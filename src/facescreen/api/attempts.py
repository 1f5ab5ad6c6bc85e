"""What was attempted and failed is recorded here; what was done, with the change itself."""

import re
from collections.abc import Mapping
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from facescreen import errors
from facescreen.domain.trail import Action, Details
from facescreen.errors import FacescreenError
from facescreen.factory import Services

ACTIONS: Final[Mapping[str, Action]] = {
    "process_images": Action.SCREENING,
    "delete_result": Action.RESULT_DELETE,
    "clear_face": Action.CLEAR,
    "restore_face": Action.UNCLEAR,
    "create_entry": Action.ENTRY_CREATE,
    "update_entry": Action.ENTRY_UPDATE,
    "delete_entry": Action.ENTRY_DELETE,
    "add_images": Action.IMAGE_ADD,
    "delete_image": Action.IMAGE_DELETE,
    "sync_folder": Action.SYNC,
    "create_collection": Action.COLLECTION_CREATE,
    "delete_collection": Action.COLLECTION_DELETE,
    "delete_calibration": Action.CALIBRATION_DELETE,
}
"""What each operation that changes something attempts."""

NOT_BEGUN: Final = frozenset(
    error.code
    for error in (
        errors.OverloadedError,
        errors.RateLimitedError,
        errors.UnreadyError,
        errors.DatabaseBusyError,
        errors.StorageFullError,
    )
)
"""What is not worth a record that costs more than the refusal, or cannot be recorded."""

_OF_RESULTS = {Action.RESULT_DELETE, Action.CLEAR, Action.UNCLEAR}
_ID = re.compile(r"[1-9][0-9]{0,17}")


class Attempts:
    """Records what an operation that changes something did not do.

    Args:
        operation: its name.
    """

    def __init__(self, app: ASGIApp, *, operation: str) -> None:
        self._app = app
        self._action = ACTIONS.get(operation)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        code = None
        try:
            await self._app(scope, receive, send)
            code = scope.get("state", {}).get("code")
        except FacescreenError as error:
            code = error.code
            raise
        except HTTPException:  # there is no such method, so nothing was attempted
            raise
        except Exception:
            code = FacescreenError.code
            raise
        finally:
            if self._action is not None and code is not None and code not in NOT_BEGUN:
                services: Services = scope["app"].state.services
                await services.trail.note_failure(self._action, **_details(scope, self._action, code))


def _details(scope: Scope, action: Action, code: str) -> Details:
    given = scope["path_params"].get("id", "")
    ids = [int(given)] if _ID.fullmatch(given) else []
    return {"outcome": code, "result_ids": ids} if action in _OF_RESULTS else {"outcome": code, "entry_ids": ids}
