"""Which URLs are fetched at all, and a session of `requests` that lets out no more than it was told to."""

import importlib.metadata
from urllib.parse import urljoin, urlsplit

import requests

from preprocessing.common.errors import InputError, UserError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class FetchError(UserError):
    """A file could not be fetched; `status` is the HTTP status where the server gave one."""

    def __init__(self, sentence: str, status: int | None = None):
        super().__init__(sentence)
        self.status = status


def check_url(url: str) -> None:
    """Refuses all but https, and http on this machine.

    Raises:
        InputError: the URL is something else.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InputError(f"{url!r} is not a URL ({error}).") from error
    if parts.username or parts.password:
        raise InputError(f"the URL on {parts.hostname} carries a user name or password; give them another way.")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url))):
        raise InputError(f"{url!r} is not fetched; a URL must begin with https://.")


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    return urlsplit(url).hostname in _LOOPBACK


class Session(requests.Session):
    """Takes proxies and certificates from the environment, but no credentials, and says who asks."""

    def __init__(self):
        super().__init__()
        # requests looks into ~/.netrc for each request that has no authentication of its own.
        self.auth = lambda request: request
        self.headers["User-Agent"] = _user_agent()

    def rebuild_auth(self, prepared_request, response):
        """On a redirect: requests would look into ~/.netrc again."""

    def get_redirect_target(self, resp):
        """On a redirect: not from https to http."""
        target = super().get_redirect_target(resp)
        if target:
            url = urljoin(resp.url, target)
            if urlsplit(url).scheme != "https" and not (is_loopback(url) and is_loopback(resp.url)):
                raise FetchError(f"{bare_url(resp.url)} redirects to an address that is not https; it is not followed.")
        return target


def bare_url(url: str) -> str:
    """The URL without its query."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def _user_agent() -> str:
    """Says who asks, by which library."""
    try:
        name = f"medtok_jax/{importlib.metadata.version('medtok_jax')}"
    except importlib.metadata.PackageNotFoundError:  # Run from a checkout that is not installed.
        name = "medtok_jax"
    return f"{name} ({requests.utils.default_user_agent()})"
