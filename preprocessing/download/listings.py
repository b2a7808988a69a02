"""Look up the addresses of files without a fixed address: releases at the NLM, and files of a Dataverse dataset."""

import dataclasses
import json
from urllib.parse import quote, urlencode, urlsplit

from preprocessing.download.fetch import Access, Expected, RetryPolicy, read
from preprocessing.download.http_session import FetchError, is_loopback
from preprocessing.download.physionet import parse_checksums
from preprocessing.download.source import Download, DownloadSource

KEY_VARIABLE = "UMLS_API_KEY"


@dataclasses.dataclass(frozen=True)
class Located:
    """Hold a download with its address, its version, its expected size and checksums, and the needed credentials."""

    download: Download
    url: str
    version: str
    expected: Expected = dataclasses.field(default_factory=Expected)
    access: Access = dataclasses.field(default_factory=Access)


def locate(source: DownloadSource, downloads: list[Download], key: str | None, retry: RetryPolicy) -> list[Located]:
    """Return the addresses of the downloads of a source.

    Args:
        source: the source.
        downloads: the wanted downloads of the source.
        key: the user's UMLS key, or None.
        retry: retry policy for the listing.

    Raises:
        FetchError: the listing cannot be fetched, or does not hold a wanted file.
        InputError: the list of checksums is not in the format of `sha256sum`.
    """
    if source.access == "umls":
        return [_current_release(source, download, key, retry) for download in downloads]
    if source.listing:
        return _of_dataset(source, downloads, retry)
    if source.checksums:
        return _of_checksums(source, downloads, retry)
    return [Located(download, download.url, source.version, Expected(sha256=download.sha256)) for download in downloads]


def _current_release(source: DownloadSource, download: Download, key: str | None, retry: RetryPolicy) -> Located:
    """Return the current release from the Release API, to be fetched through the Download API.

    Both are described at https://documentation.uts.nlm.nih.gov/automating-downloads.html.
    """
    url = f"{source.listing}&current=true"
    releases = _json(url, retry)
    try:
        release = next((release for release in releases if release.get("current", True)), None)
        address = release["downloadUrl"]
        version = str(release.get("releaseVersion") or source.version)
    except (TypeError, KeyError, AttributeError) as error:
        raise FetchError(f"{url} lists no current release of {source.name}; {source.how}.") from error
    if not (urlsplit(address).hostname or "").endswith(".nlm.nih.gov") and not is_loopback(url):
        raise FetchError(f"{url} lists a release of {source.name} that is not at the NLM; it is not fetched.")
    parts = urlsplit(source.listing)
    through = f"{parts.scheme}://{parts.netloc}/download?{urlencode({'url': address})}"
    return Located(download, through, version, access=Access(secret_parameters={"apiKey": key or ""}))


def _of_dataset(source: DownloadSource, downloads: list[Download], retry: RetryPolicy) -> list[Located]:
    """Return the files of the latest version of a Dataverse dataset, with their size and MD5.

    Tables that Dataverse has converted are fetched as they were uploaded; their MD5 is not compared, because the two
    forms share one field.
    """
    try:
        latest = _json(source.listing, retry)["data"]["latestVersion"]
        files = [entry["dataFile"] for entry in latest["files"]]
        version = f"{source.version}, V{latest['versionNumber']}.{latest['versionMinorNumber']}"
        by_name = {name: file for file in files for name in (file["filename"], file.get("originalFileName")) if name}
    except (TypeError, KeyError) as error:
        raise FetchError(f"{source.listing} does not list the files of {source.name}.") from error
    located = []
    for download in downloads:
        file = by_name.get(download.name)
        if file is None and not download.url:
            raise FetchError(f"{source.listing} does not list {download.name}; it has: {', '.join(sorted(by_name))}.")
        if file is None:
            located.append(Located(download, download.url, source.version))
            continue
        base = source.listing.partition("/datasets/")[0]
        url = f"{base}/access/datafile/{quote(str(file['id']))}"
        if file.get("originalFileFormat"):
            expected = Expected(size=file.get("originalFileSize"))
            url += "?format=original"
        else:
            expected = Expected(size=file.get("filesize"), md5=file.get("md5"))
        located.append(Located(download, url, version, expected))
    return located


def _of_checksums(source: DownloadSource, downloads: list[Download], retry: RetryPolicy) -> list[Located]:
    """Return the downloads with the checksums that the publisher lists."""
    published = parse_checksums(read(source.checksums, retry=retry).decode("utf-8", "replace"), source.checksums)
    missing = [download.name for download in downloads if download.name not in published]
    if missing:
        raise FetchError(f"{source.checksums} does not list {missing[0]}; is it the list of {source.version}?")
    return [
        Located(download, download.url, source.version, Expected(sha256=published[download.name]))
        for download in downloads
    ]


def _json(url: str, retry: RetryPolicy):
    try:
        return json.loads(read(url, retry=retry))
    except (ValueError, RecursionError) as error:
        raise FetchError(f"{url} does not answer with JSON.") from error
