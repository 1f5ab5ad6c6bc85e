"""What Rekognition answers instead of a result, in the names that its clients branch on."""

_SERVER_FAULTS = {"InternalServerError", "ThrottlingException"}
"""The shapes that the service model marks as faults of the server."""


class RekognitionFault(Exception):  # noqa: N818 - AWS's own word, and the name of the error is AWS's too
    """An error that the client is told.

    Args:
        name: as the service model spells it, ``ResourceNotFoundException`` for example.
        message: shown to the client as it stands; empty where AWS says no more than the name.
        status: of HTTP. None: 500 for the server's own faults, 400 for all others, as AWS has it.
    """

    def __init__(self, name: str, message: str, *, status: int | None = None) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message
        self.status = status or (500 if name in _SERVER_FAULTS else 400)

    def document(self, request_id: str) -> dict[str, str]:
        """The JSON body, with the members that Rekognition sends.

        https://docs.aws.amazon.com/rekognition/latest/dg/error-handling.html
        """
        if not self.message:
            return {"__type": f"com.amazon.coral.service#{self.name}"}
        return {"__type": self.name, "Code": self.name, "Logref": request_id, "Message": self.message}


def unknown_operation(message: str, *, status: int = 400) -> RekognitionFault:
    """Nothing here has that name; with 404, the request is not of the protocol at all."""
    return RekognitionFault("UnknownOperationException", message, status=status)


def not_serializable(message: str) -> RekognitionFault:
    """The body is no JSON, or has a value of another type than the member's."""
    return RekognitionFault("SerializationException", message)


def invalid(violations: list[str]) -> RekognitionFault:
    """The body breaks constraints of the service model."""
    errors = "error" if len(violations) == 1 else "errors"
    message = f"{len(violations)} validation {errors} detected: {'; '.join(violations)}"
    return RekognitionFault("ValidationException", message)
