"""Does a request come from this machine, and from no page of another site?"""

import re
from collections.abc import Collection

from starlette.requests import HTTPConnection

from facescreen.domain.access import is_loopback

_PROXY_HEADERS = (
    "forwarded",
    "x-forwarded-",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "via",
)
"""What proxies add: who asks through one is not on this machine, though the connection is."""
_LOCAL_HOST = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?", re.IGNORECASE)


def is_from_this_machine(connection: HTTPConnection) -> bool:
    """Whether the request comes from this machine and no proxy passed it on.

    It also has to be addressed to this machine, and to nothing else: else a page of the internet could ask from a
    browser here, under a name of its own that it has turned to 127.0.0.1.
    """
    if any(name.startswith(_PROXY_HEADERS) for name in connection.headers):
        return False
    hosts = connection.headers.getlist("host")
    addressed_here = len(hosts) == 1 and _LOCAL_HOST.fullmatch(hosts[0])
    return connection.client is not None and is_loopback(connection.client.host) and bool(addressed_here)


def is_from_foreign_page(connection: HTTPConnection, allowed_origins: Collection[str]) -> bool:
    """Whether a browser sent the request for a page that is neither of this service nor of an allowed origin.

    Another port of this machine is another site: whose program listens there is not known.
    """
    headers = connection.headers
    if origins := headers.getlist("origin"):
        own = f"{connection.url.scheme}://{headers.get('host', '')}".lower()
        return not all(origin == own or origin in allowed_origins for origin in origins)
    return not set(headers.getlist("sec-fetch-site")) <= {"same-origin", "none"}
