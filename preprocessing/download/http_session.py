"""Restrict HTTP to https URLs, and to a session of `requests` that sends no credentials from the environment."""

import importlib.metadata
from urllib.parse import urljoin, urlsplit

import requests

from preprocessing.common.errors import InputError, UserError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class FetchError(UserError):
    """Signal that a file could not be fetched; `status` is the HTTP status, or None if the server gave none."""

    def __init__(self, sentence: str, status: int | None = None):
        super().__init__(sentence)
        self.status = status


def check_url(url: str) -> None:
    """Check that a URL uses https, or http on this machine, and holds no credentials.

    Raises:
        InputError: the URL is malformed or not permitted.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InputError(f"{url!r} is not a URL ({error}).") from error
    if parts.username or parts.password:
        raise InputError(f"the URL on {parts.hostname} holds a user name or password; remove them from the URL.")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url))):
        raise InputError(f"{url!r} is not fetched; a URL must begin with https://.")


def is_loopback(url: str) -> bool:
    """Return whether the URL's host is this machine."""
    return urlsplit(url).hostname in _LOOPBACK


class Session(requests.Session):
    """Send requests with the proxies and certificates of the environment, without its credentials.

    The `User-Agent` header names this package.
    """

    def __init__(self):
        super().__init__()
        # requests would read ~/.netrc for each request without an authentication.
        self.auth = _unauthenticated
        self.headers["User-Agent"] = _user_agent()

    def rebuild_auth(self, prepared_request, response):
        """Keep requests from reading ~/.netrc again on a redirect."""

    def get_redirect_target(self, resp):
        """Return the target of a redirect, or refuse one from https to http.

        Raises:
            FetchError: the target is not https.
        """
        target = super().get_redirect_target(resp)
        if target:
            url = urljoin(resp.url, target)
            if urlsplit(url).scheme != "https" and not (is_loopback(url) and is_loopback(resp.url)):
                raise FetchError(f"{bare_url(resp.url)} redirects to an address that is not https; it is not followed.")
        return target


def _unauthenticated(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def bare_url(url: str) -> str:
    """Return the URL without its query."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def _user_agent() -> str:
    """Return the names and versions of this package and of requests."""
    try:
        name = f"medtok_jax/{importlib.metadata.version('medtok_jax')}"
    except importlib.metadata.PackageNotFoundError:  # Run from a checkout that is not installed.
        name = "medtok_jax"
    return f"{name} ({requests.utils.default_user_agent()})"
