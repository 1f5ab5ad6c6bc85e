"""What handlers are given."""

from typing import Annotated

from fastapi import Depends, Request

from facescreen.factory import Services


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
