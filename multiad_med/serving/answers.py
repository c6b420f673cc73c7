"""Checks of a DICOMweb server's answers, and what went wrong with a request in words."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from multiad_med.utils.errors import MultiADError

if TYPE_CHECKING:
    import requests  # comes with the extra pacs

__all__ = [
    "TIMEOUT",
    "AnswerError",
    "WebPageError",
    "check_answer",
    "reason_of",
    "watch_answers",
]

TIMEOUT = (10.0, 120.0)
"""Seconds to connect, and seconds without a byte of an answer."""

_TAIL = 1024
_PAGES = ("text/html", "application/xhtml+xml")


class AnswerError(MultiADError, OSError):
    """An answer is not what DICOMweb has for the request; the message says what it is."""


class WebPageError(AnswerError):
    """A web page came instead of an answer, such as a login's."""


def check_answer(response: requests.Response, *args: Any, **kwargs: Any) -> None:
    """Check an answer before it is decoded: a hook of ``requests``.

    Raises:
        WebPageError: when it is a web page.
        AnswerError: when images were asked for and none came. A truncated answer raises when it is read.
    """
    if not response.ok or response.is_redirect:
        return
    media = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media in _PAGES:
        raise WebPageError(
            "a web page came instead of DICOM, such as a login's; look at the address and the credentials"
        )
    if 'type="application/dicom"' not in response.request.headers.get("Accept", ""):
        return
    if response.status_code == HTTPStatus.NO_CONTENT or not media:
        raise AnswerError(f"nothing came (HTTP status {response.status_code})")
    if media not in ("multipart/related", "application/dicom"):
        raise AnswerError(f"{media} came instead of DICOM objects")
    boundary = _parameter(response.headers["Content-Type"], "boundary")
    if media == "multipart/related" and boundary:
        _check_end(response, f"--{boundary}--".encode())


def watch_answers(client: Any) -> None:
    """Make a ``DICOMwebClient`` from elsewhere check its answers and wait no longer than a time-out."""
    client._session.hooks["response"].append(check_answer)
    client._timeout = TIMEOUT


def _parameter(content_type: str, name: str) -> str:
    for part in content_type.split(";")[1:]:
        key, _, value = part.strip().partition("=")
        if key.lower() == name:
            return value.strip('"')
    return ""


def _check_end(response: requests.Response, end: bytes) -> None:
    """Make the body raise where it stops before its closing line."""
    read = response.iter_content

    def checked(*args: Any, **kwargs: Any) -> Iterator[bytes]:
        tail = b""
        for chunk in read(*args, **kwargs):
            tail = (tail + chunk)[-_TAIL - len(end) :]
            yield chunk
        if end not in tail:
            raise AnswerError("its answer is cut: the closing line is missing")

    response.iter_content = checked  # type: ignore[method-assign]


def reason_of(error: OSError) -> str:
    """Return what went wrong with a request, in words without an address, an identifier or a name.

    Args:
        error: of ``requests``, or of :func:`check_answer`.
    """
    import requests.exceptions as kinds

    if isinstance(error, AnswerError):
        return str(error)
    if isinstance(error, kinds.HTTPError):
        status = 0 if error.response is None else error.response.status_code
        return f"HTTP status {status}{_MEANINGS.get(status, '')}"
    reasons = {
        kinds.SSLError: (
            "its certificate is not accepted; REQUESTS_CA_BUNDLE names a file of authorities"
        ),
        kinds.Timeout: "no answer in time",
        kinds.JSONDecodeError: "its answer is not JSON",
        kinds.ChunkedEncodingError: "its answer is cut",
        kinds.TooManyRedirects: "it redirects without end",
        kinds.ConnectionError: "no connection, or it was lost",
    }
    told = (reason for kind, reason in reasons.items() if isinstance(error, kind))
    return next(told, "the request could not be made, or its answer could not be read")


_MEANINGS = {
    401: ": it wants other credentials; they are read from ~/.netrc",
    403: ": these credentials have no access",
    404: ": nothing is there",
    407: ": a proxy wants credentials",
    500: ": an error inside the server",
    502: ": what is behind the gateway does not answer",
    503: ": it is busy or being serviced",
    504: ": what is behind the gateway does not answer",
}
