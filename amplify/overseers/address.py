"""Validates the address of an overseer's server, and decides which servers receive the API key."""

import ipaddress
import os
from urllib.parse import urlsplit

from amplify.errors import AmplifyError

KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable that holds the API key."""


def check_address(address: str) -> None:
    """Checks the address of a server.

    Args:
        address: the URL of an OpenAI-compatible API.

    Raises:
        AmplifyError: if it is not an http(s) URL, or has a password, a query or a fragment.
    """
    message = (
        f"overseer.endpoint must be an address such as http://localhost:8000/v1, got {address!r}"
    )
    if "@" in address:  # not printed, because it may contain a password
        raise AmplifyError(
            f"overseer.endpoint must have no password in it: set {KEY_VARIABLE} instead"
        )
    try:
        parts = urlsplit(address)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed = False
    has_only_path = address.isascii() and address.isprintable() and not set(address) & set(" ?#\\")
    if not (well_formed and has_only_path):
        raise AmplifyError(message)


def key_for(address: str) -> str:
    """The API key to send to a server: only over TLS, or to this machine.

    Args:
        address: the server's URL.

    Returns:
        The key; "" if none is set or it must not be sent.

    Raises:
        AmplifyError: if the key has invalid characters; the message does not contain it.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise AmplifyError(f"{KEY_VARIABLE} contains invalid characters, such as a line break")
    parts = urlsplit(address)
    return key if parts.scheme == "https" or is_loopback(parts.hostname or "") else ""


def is_loopback(host: str) -> bool:
    """Whether a host name or IP address is that of this machine."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
