"""Looks up where files are that have no fixed address: releases at the NLM, and data sets of a Dataverse."""

import dataclasses
import json
from urllib.parse import quote, urlencode, urlsplit

from preprocessing.download.fetch import Access, Expected, Patience, read
from preprocessing.download.http_session import FetchError, is_loopback
from preprocessing.download.source import Download, Source

KEY_VARIABLE = "UMLS_API_KEY"


@dataclasses.dataclass(frozen=True)
class Located:
    """Where a download is, what is known of it, what the server wants to see, and which version it is."""

    download: Download
    url: str
    version: str
    expected: Expected = dataclasses.field(default_factory=Expected)
    access: Access = dataclasses.field(default_factory=Access)


def locate(source: Source, downloads: list[Download], key: str | None, patience: Patience) -> list[Located]:
    """Where the downloads of a source are.

    Args:
        source: the source.
        downloads: those of its downloads that are wanted.
        key: the user's UMLS key, where the source needs one.
        patience: for the listing.

    Raises:
        FetchError: the listing cannot be had, or does not hold what is wanted.
    """
    if source.access == "umls":
        return [_current_release(source, download, key, patience) for download in downloads]
    if source.listing:
        return _of_dataset(source, downloads, patience)
    return [Located(download, download.url, source.version, Expected(sha256=download.sha256)) for download in downloads]


def _current_release(source: Source, download: Download, key: str | None, patience: Patience) -> Located:
    """The current release by the Release API, to be fetched through the Download API.

    Both are described at https://documentation.uts.nlm.nih.gov/automating-downloads.html.
    """
    url = f"{source.listing}&current=true"
    releases = _json(url, patience)
    try:
        release = next((release for release in releases if release.get("current", True)), None)
        address, version = release["downloadUrl"], str(release.get("releaseVersion") or source.version)
    except (TypeError, KeyError, AttributeError) as error:
        raise FetchError(f"{url} lists no current release of {source.name}; {source.how}.") from error
    if not (urlsplit(address).hostname or "").endswith(".nlm.nih.gov") and not is_loopback(url):
        raise FetchError(f"{url} lists a release of {source.name} that is not at the NLM; it is not fetched.")
    parts = urlsplit(source.listing)
    through = f"{parts.scheme}://{parts.netloc}/download?{urlencode({'url': address})}"
    return Located(download, through, version, access=Access(secret_parameters={"apiKey": key or ""}))


def _of_dataset(source: Source, downloads: list[Download], patience: Patience) -> list[Located]:
    """Files of the latest version of a Dataverse dataset, with their size and MD5.

    Tables that Dataverse has converted are fetched as they were uploaded; their MD5 is not compared, for the two forms
    share one field.
    """
    try:
        latest = _json(source.listing, patience)["data"]["latestVersion"]
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


def _json(url: str, patience: Patience):
    try:
        return json.loads(read(url, patience=patience))
    except ValueError as error:
        raise FetchError(f"{url} does not answer with JSON.") from error
