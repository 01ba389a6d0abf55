"""Where an overseer's server may be, and which servers are sent a key."""

import ipaddress
import os
from urllib.parse import urlsplit

from amplify.errors import AmplifyError

KEY = "OPENAI_API_KEY"
"""The environment variable whose value is sent as a key, if there is one."""


def check_address(address: str) -> None:
    """Raises AmplifyError unless an address is one of a server, with nothing else in it."""
    needed = (
        f"overseer.endpoint must be an address such as http://localhost:8000/v1, got {address!r}"
    )
    if "@" in address:  # not shown: it may hold a password
        raise AmplifyError(f"overseer.endpoint must have no password in it: set {KEY} instead")
    try:
        parts = urlsplit(address)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed = False
    plain = address.isascii() and address.isprintable() and not set(address) & set(" ?#\\")
    if not (well_formed and plain):
        raise AmplifyError(needed)


def key_for(address: str) -> str:
    """The key that a server at this address is sent; "" if none is set, or it may not be sent.

    Raises:
        AmplifyError: if the key cannot be sent; it is not shown.
    """
    key = os.environ.get(KEY, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise AmplifyError(f"{KEY} has characters in it that no key has, such as a line break")
    parts = urlsplit(address)
    return key if parts.scheme == "https" or is_this_machine(parts.hostname or "") else ""


def is_this_machine(host: str) -> bool:
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
