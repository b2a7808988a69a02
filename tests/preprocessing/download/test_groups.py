"""Sources from a local server and from a folder; the files are small but in the official layout."""

import dataclasses
import hashlib
import io
import json
import os
import zipfile

import pytest
from rich.console import Console

from preprocessing.common.errors import InputError, UserError
from preprocessing.download import catalogue, groups
from preprocessing.download.collect import Settings, find_given
from preprocessing.download.fetch import RetryPolicy
from preprocessing.download.manifest import FILE_NAME, Manifest
from preprocessing.download.source import GROUPS, Download, DownloadSource, matches
from tests.helpers.file_server import FileServer, Served
from tests.helpers.forked import run_module

ORDER = b"00001 A00     0 Cholera                                                      Cholera\r\n"
PRODUCT = b"PRODUCTID\tPRODUCTNDC\tPRODUCTTYPENAME\r\n"
CONSO = b"38|ENG||||||829|829|38||RXNORM|BN|38|Parlodel||N|4096|\n"


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


ICD = zipped(
    {
        "Code Descriptions/icd10cm_order_2026.txt": ORDER,
        "Code Descriptions/icd10cm_order_addenda_2026.txt": b"Add",
        "Code Descriptions/icd10OrderFiles.pdf": b"%PDF",
    }
)
NDC = zipped({"product.txt": PRODUCT, "package.txt": PRODUCT})
PRESCRIBE = zipped({"rrf/RXNCONSO.RRF": CONSO, "rrf/RXNSAT.RRF": b"x|\n", "scripts/x.sql": b"-"})
FULL = zipped({"rrf/RXNCONSO.RRF": CONSO * 3, "prescribe/rrf/RXNCONSO.RRF": CONSO})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("UMLS_API_KEY", raising=False)
    with FileServer() as running:
        running.files = {
            "/icd.zip": Served(ICD),
            "/ndctext.zip": Served(NDC),
            "/prescribe.zip": Served(PRESCRIBE),
        }
        yield running


def by_name(name):
    return next(source for source in catalogue.SOURCES if source.name == name)


@pytest.fixture
def sources(server):
    """Sources of the catalogue with the local server's addresses, and its checksum for ICD10CM."""

    def at(name, path, sha256=None):
        source = by_name(name)
        (original, *_) = source.downloads
        return dataclasses.replace(source, downloads=(Download(original.name, server.url + path, sha256),))

    releases = f"{server.url}/releases?releaseType=rxnorm-full-monthly-release"
    return [
        at("ICD10CM", "/icd.zip", hashlib.sha256(ICD).hexdigest()),
        dataclasses.replace(by_name("RxNorm_full"), listing=releases),
        at("RxNorm", "/prescribe.zip"),
        at("NDC", "/ndctext.zip"),
        by_name("CPT4"),
    ]


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path / "codes", progress=False, retry=RetryPolicy(attempts=2, sleep=lambda _: None))


def run(settings, sources, **more):
    return {outcome.source.name: outcome for outcome in groups.download("codes", settings, sources=sources, **more)}


def states(outcomes):
    return {name: outcome.state for name, outcome in outcomes.items()}


def test_fetched_unpacked_recorded_and_not_fetched_again(server, sources, settings):
    outcomes = run(settings, sources)
    assert states(outcomes) == {
        "ICD10CM": "fetched",
        "RxNorm_full": "missing",
        "RxNorm": "fetched",
        "NDC": "fetched",
        "CPT4": "missing",
    }
    found = {str(path.relative_to(settings.output)) for path in settings.output.rglob("*") if path.is_file()}
    assert found == {
        "manifest.json",
        "ICD10CM/icd10cm_order_2026.txt",
        "RxNorm/RXNCONSO.RRF",
        "RxNorm/RXNSAT.RRF",
        "NDC/product.txt",
        "NDC/package.txt",
    }
    assert (settings.output / "ICD10CM/icd10cm_order_2026.txt").read_bytes() == ORDER
    manifest = Manifest.read(settings.output)
    manifest.verify()
    entry = manifest.files["ICD10CM/icd10cm_order_2026.txt"]
    assert entry["source"] == f"{server.url}/icd.zip"
    assert entry["archive_sha256"] == hashlib.sha256(ICD).hexdigest()
    assert (entry["version"], entry["verified"], entry["by_hand"]) == ("FY2026, April 2026", True, False)
    assert not manifest.files["NDC/product.txt"]["verified"]
    asked = len(server.asked)
    assert states(run(settings, sources))["NDC"] == "there"
    assert len(server.asked) == asked


def test_what_needs_a_license_is_said_and_not_asked_for(server, sources, settings):
    outcomes = run(settings, sources)
    assert "https://uts.nlm.nih.gov" in outcomes["RxNorm_full"].reason
    assert "UMLS_API_KEY" in outcomes["RxNorm_full"].reason
    assert "--from_dir" in outcomes["CPT4"].reason
    assert not server.requests("/releases")
    groups.raise_failures(outcomes.values())
    with pytest.raises(InputError, match="CPT4"):
        groups.raise_failures(outcomes.values(), ["cpt4"])


def test_what_a_killed_process_left(server, sources, settings):
    """A whole archive that was not unpacked yet is used; one that was is removed, and so is a part of it."""
    downloads = settings.output / ".downloads"
    downloads.mkdir(parents=True)
    (downloads / "ndctext.zip").write_bytes(NDC)
    assert states(run(settings, sources))["NDC"] == "fetched"
    assert not server.requests("/ndctext.zip")
    downloads.mkdir()
    (downloads / "ndctext.zip").write_bytes(NDC)
    (downloads / "ndctext.zip.partial").write_bytes(NDC[:9])
    assert states(run(settings, sources))["NDC"] == "there"
    assert not downloads.exists()
    (settings.output / "ICD10CM" / "icd10cm_order_2026.txt").unlink()
    downloads.mkdir()
    (downloads / sources[0].downloads[0].name).write_bytes(b"of another release")
    assert states(run(settings, sources))["ICD10CM"] == "fetched"


def test_a_failure_leaves_the_others(server, sources, settings):
    server.files["/prescribe.zip"].failures = [404]
    outcomes = run(settings, sources)
    assert states(outcomes) | {"RxNorm": "failed"} == states(outcomes)
    assert "404" in outcomes["RxNorm"].reason
    with pytest.raises(UserError, match="RxNorm") as caught:
        groups.raise_failures(outcomes.values())
    assert caught.value.exit_status == 1
    asked = len(server.asked)
    assert states(run(settings, sources))["RxNorm"] == "fetched"
    assert len(server.asked) == asked + 1


def test_an_archive_with_other_bytes_than_published(server, sources, settings):
    server.files["/icd.zip"].content = ICD[:-30] + b"\0" * 30
    outcome = run(settings, sources, only=["icd10cm"])["ICD10CM"]
    assert outcome.state == "failed"
    assert "sha256" in outcome.reason
    assert not list(settings.output.rglob("*.zip*"))
    assert not (settings.output / "ICD10CM").exists()


def test_a_truncated_archive_is_fetched_again_the_next_time(server, sources, settings):
    """The server's own file is cut short, with a length that fits."""
    server.files["/ndctext.zip"].content = NDC[: len(NDC) // 2]
    outcome = run(settings, sources, only=["NDC"])["NDC"]
    assert outcome.state == "failed"
    assert "cannot be read as a complete zip archive" in outcome.reason
    server.files["/ndctext.zip"].content = NDC
    assert states(run(settings, sources, only=["NDC"])) == {"NDC": "fetched"}


def test_an_archive_without_the_files_is_told(server, sources, settings):
    server.files["/ndctext.zip"].content = zipped({"readme.txt": b"moved"})
    outcome = run(settings, sources, only=["NDC"])["NDC"]
    assert outcome.state == "failed"
    assert "product.txt" in outcome.reason


def test_a_file_that_was_changed_or_removed_is_fetched_again(sources, settings):
    run(settings, sources)
    (settings.output / "NDC" / "product.txt").write_bytes(b"edited")
    (settings.output / "ICD10CM" / "icd10cm_order_2026.txt").unlink()
    outcomes = states(run(settings, sources))
    assert (outcomes["NDC"], outcomes["ICD10CM"], outcomes["RxNorm"]) == ("fetched", "fetched", "there")
    Manifest.read(settings.output).verify()


def test_a_new_release_in_the_catalogue_replaces_the_old_one(server, sources, settings):
    run(settings, sources)
    newer = zipped({"icd10cm_order_2027.txt": ORDER * 2})
    server.files["/2027.zip"] = Served(newer)
    changed = Download("2027.zip", f"{server.url}/2027.zip", hashlib.sha256(newer).hexdigest())
    sources[0] = dataclasses.replace(sources[0], downloads=(changed,))
    assert states(run(settings, sources))["ICD10CM"] == "fetched"
    assert [path.name for path in (settings.output / "ICD10CM").iterdir()] == ["icd10cm_order_2027.txt"]
    Manifest.read(settings.output).verify()


def test_umls_key_fetches_the_full_release_and_stays_secret(server, sources, settings, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    run(settings, sources)
    monkeypatch.setenv("UMLS_API_KEY", "hunter2")
    address = f"{server.url}/kss/RxNorm_full_04062026.zip"
    listing = [{"releaseVersion": "04062026", "downloadUrl": address, "current": True}]
    server.files["/releases"] = Served(json.dumps(listing).encode())
    server.files["/download"] = Served(FULL)
    outcomes = run(settings, sources)
    assert (outcomes["RxNorm_full"].state, outcomes["RxNorm"].state) == ("fetched", "not needed")
    assert server.requests("/releases")[0].query == {
        "releaseType": ["rxnorm-full-monthly-release"],
        "current": ["true"],
    }
    assert server.requests("/download")[0].query == {"url": [address], "apiKey": ["hunter2"]}
    # The prescribable content is gone, and of the two tables of the same name the full one was taken.
    assert [path.name for path in (settings.output / "RxNorm").iterdir()] == ["RXNCONSO.RRF"]
    assert (settings.output / "RxNorm" / "RXNCONSO.RRF").read_bytes() == CONSO * 3
    entry = Manifest.read(settings.output).files["RxNorm/RXNCONSO.RRF"]
    assert entry["version"] == "04062026"
    assert "hunter2" not in (settings.output / FILE_NAME).read_text() + caplog.text


def test_a_key_that_is_not_accepted(server, sources, settings, monkeypatch):
    monkeypatch.setenv("UMLS_API_KEY", "hunter2")
    server.files["/releases"] = Served(json.dumps([{"downloadUrl": f"{server.url}/x.zip"}]).encode())
    server.files["/download"] = Served(FULL, failures=[401])
    outcomes = run(settings, sources)
    assert "does not accept UMLS_API_KEY" in outcomes["RxNorm_full"].reason
    assert "hunter2" not in outcomes["RxNorm_full"].reason
    assert outcomes["RxNorm"].state == "fetched"


def test_a_listing_is_not_trusted_with_other_hosts(server, sources, settings, monkeypatch):
    """The real services may not send the key's owner to anywhere but the NLM."""
    from preprocessing.download.http_session import FetchError
    from preprocessing.download.listings import locate

    monkeypatch.setattr("preprocessing.download.listings.is_loopback", lambda url: False)
    server.files["/releases"] = Served(json.dumps([{"downloadUrl": "https://example.org/x.zip"}]).encode())
    with pytest.raises(FetchError, match="not at the NLM"):
        locate(sources[1], list(sources[1].downloads), "key", settings.retry)


@pytest.fixture
def given(tmp_path):
    folder = tmp_path / "given"
    (folder / "deep").mkdir(parents=True)
    return folder


def test_files_given_by_hand_are_taken_loose_or_in_archives(server, sources, settings, given):
    (given / "deep" / sources[0].downloads[0].name).write_bytes(ICD)
    (given / "deep" / "Product.txt").write_bytes(PRODUCT)
    (given / "package.txt").write_bytes(PRODUCT)
    (given / "LONGULT.txt").write_bytes(b"99999\tmade up\n")
    (given / "RxNorm_full_04062026.zip").write_bytes(FULL)
    outcomes = run(dataclasses.replace(settings, from_dir=given), sources)
    assert states(outcomes) == {
        "ICD10CM": "by hand",
        "RxNorm_full": "by hand",
        "RxNorm": "not needed",
        "NDC": "by hand",
        "CPT4": "by hand",
    }
    assert not server.asked
    manifest = Manifest.read(settings.output)
    manifest.verify()
    assert manifest.files["ICD10CM/icd10cm_order_2026.txt"]["verified"]
    assert manifest.files["ICD10CM/icd10cm_order_2026.txt"]["version"] == "FY2026, April 2026"
    entry = manifest.files["NDC/Product.txt"]
    assert (entry["source"], entry["by_hand"], entry["verified"]) == ("given by hand: Product.txt", True, False)
    assert entry["version"] == "as given by hand"
    again = run(dataclasses.replace(settings, from_dir=given), sources)
    assert set(states(again).values()) == {"there", "not needed"}


def test_a_newer_file_given_by_hand_replaces_the_former(sources, settings, given):
    run(settings, sources)
    (given / "icd10cm-order-2027.txt").write_bytes(ORDER * 2)
    outcomes = run(dataclasses.replace(settings, from_dir=given), sources)
    assert (outcomes["ICD10CM"].state, outcomes["NDC"].state) == ("by hand", "there")
    assert [path.name for path in (settings.output / "ICD10CM").iterdir()] == ["icd10cm-order-2027.txt"]
    assert states(run(settings, sources))["ICD10CM"] == "there"


def test_a_damaged_archive_given_by_hand_is_refused_and_kept(sources, settings, given):
    archive = given / sources[0].downloads[0].name
    archive.write_bytes(ICD[:-1])
    outcomes = run(dataclasses.replace(settings, from_dir=given), sources, only=["ICD10CM"])
    assert outcomes["ICD10CM"].state == "failed"
    assert "not the file that the publisher offers" in outcomes["ICD10CM"].reason
    archive.rename(given / "2027-code-descriptions.zip")
    outcomes = run(dataclasses.replace(settings, from_dir=given), sources, only=["ICD10CM"])
    assert "cannot be read as a complete zip archive" in outcomes["ICD10CM"].reason
    assert archive.with_name("2027-code-descriptions.zip").exists()


def test_several_releases_given_by_hand_are_no_choice(given):
    for year in (2025, 2026):
        (given / f"{year}-code-descriptions-tabular-order.zip").write_bytes(ICD)
    with pytest.raises(InputError, match="only one release"):
        find_given(by_name("ICD10CM"), given)
    for folder in ("a", "b"):
        (given / folder).mkdir()
        (given / folder / "product.txt").write_bytes(PRODUCT)
    with pytest.raises(InputError, match="leave only one"):
        find_given(by_name("NDC"), given)


def test_a_part_given_by_hand_is_told(sources, settings, given):
    (given / "product.txt").write_bytes(PRODUCT)
    outcome = run(dataclasses.replace(settings, from_dir=given), sources)["NDC"]
    assert outcome.state == "failed"
    assert "holds only product.txt" in outcome.reason
    assert "package.txt" in outcome.reason


def test_offline_fetches_nothing(server, sources, settings):
    outcomes = run(dataclasses.replace(settings, offline=True), sources)
    assert (outcomes["NDC"].state, outcomes["CPT4"].state) == ("failed", "missing")
    assert not server.asked


def dataverse(server, **files):
    """A dataset as Dataverse's native API lists it; serves its files."""
    entries = []
    for number, (name, (content, more)) in enumerate(files.items(), start=1):
        name = name.replace("__", ".")
        entry = {"id": number, "filename": name, "filesize": len(content), "md5": hashlib.md5(content).hexdigest()}
        entries.append({"label": name, "dataFile": entry | more})
        server.files[f"/api/access/datafile/{number}"] = Served(content)
    latest = {"versionNumber": 1, "versionMinorNumber": 2, "files": entries}
    server.files["/api/datasets/:persistentId/"] = Served(json.dumps({"data": {"latestVersion": latest}}).encode())


@pytest.fixture
def release(server):
    source = by_name("release")
    return dataclasses.replace(source, listing=source.listing.replace("https://dataverse.harvard.edu", server.url))


def test_files_of_a_dataverse_dataset(server, release, settings):
    dataverse(
        server,
        all_codes_mappings__parquet=(b"PAR1", {}),
        kg__tab=(
            b"original,csv\n",
            {
                "filesize": 5,
                "md5": "0" * 32,
                "originalFileName": "kg.csv",
                "originalFileFormat": "text/csv",
                "originalFileSize": 13,
            },
        ),
        code2tokens__json=(b"{}", {}),
        code2embeddings__json=(b"{}", {}),
    )
    (outcome,) = groups.download("release", settings, sources=[release])
    assert outcome.state == "fetched"
    found = {path.name for path in settings.output.iterdir()}
    assert found == {"manifest.json", "all_codes_mappings.parquet", "kg.csv"}
    assert server.requests("/api/access/datafile/2")[0].query == {"format": ["original"]}
    manifest = Manifest.read(settings.output)
    assert manifest.files["kg.csv"]["version"] == "doi:10.7910/DVN/7XNT3M, V1.2"
    assert manifest.files["all_codes_mappings.parquet"]["verified"]
    all_files = dataclasses.replace(settings, all_files=True)
    assert groups.download("release", all_files, sources=[release])[0].state == "fetched"
    assert (settings.output / "code2tokens.json").exists()
    assert len(server.requests("/api/access/datafile/1")) == 1
    assert groups.download("release", settings, sources=[release])[0].state == "there"


def test_a_dataverse_file_with_another_checksum_than_listed(server, release, settings):
    dataverse(server, all_codes_mappings__parquet=(b"PAR1", {"md5": "0" * 32}), kg__csv=(b"a,b\n", {}))
    (outcome,) = groups.download("release", settings, sources=[release])
    assert outcome.state == "failed"
    assert "md5" in outcome.reason


def test_a_dataset_without_the_file_names_what_it_has(server, release, settings):
    dataverse(server, all_codes__parquet=(b"PAR1", {}))
    (outcome,) = groups.download("release", settings, sources=[release])
    assert "all_codes.parquet" in outcome.reason


# Names as the publishers' archives hold them, beside names that must not be taken for them.
NAMES = [
    ("ICD9CM", ["CMS32_DESC_LONG_DX.txt", "CMS32_DESC_LONG_SG.txt"], ["CMS32_DESC_SHORT_DX.txt"]),
    ("ICD10CM", ["icd10cm_order_2026.txt", "icd10cm-codes-April-2025.txt"], ["icd10cm-order-addenda-2024.txt"]),
    ("ICD10PCS", ["icd10pcs_order_2026.txt"], ["order_addenda_2026.txt", "icd10pcsOrderFile.pdf"]),
    ("GEM", ["2018_I9gem.txt", "2018_I10gem.txt", "gem_i9pcs.txt", "gem_pcsi9.txt"], ["Dxgem_guide_2018.pdf"]),
    ("HCPCS", ["HCPC2026_JUL_ANWEB_06172026.txt"], ["HCPC2026_JUL_ANWEB_Transaction Report.txt", "NOC codes.xlsx"]),
    (
        "SNOMED",
        ["sct2_Concept_Snapshot_US1000124_20260301.txt", "sct2_Description_Snapshot-en_US1000124_20260301.txt"],
        ["sct2_Concept_Full_US1000124_20260301.txt", "sct2_Concept_Delta_US1000124_20260301.txt"],
    ),
    ("ATC", ["atc.csv", "WHO ATC-DDD 2024-07-31.csv"], ["batch.csv", "matches.txt"]),
    ("CPT4", ["LONGULT.txt", "cpt_2026.csv"], ["D_ITEMS.csv", "descriptions.csv"]),
    ("DrugBank", ["drugbank vocabulary.csv"], ["drugbank.xml"]),
    ("MONDO", ["mondo.obo", "mondo_exactmatch_icd10cm.sssom.tsv"], ["mondo.owl"]),
]


@pytest.mark.parametrize(("name", "right", "wrong"), NAMES, ids=[row[0] for row in NAMES])
def test_patterns_know_the_official_names(name, right, wrong):
    source = by_name(name)
    assert [file for file in right + wrong if source.wants(file)] == right


def test_the_catalogue_is_complete():
    assert {source.group for source in catalogue.SOURCES} == set(GROUPS)
    assert len({source.name for source in catalogue.SOURCES}) == len(catalogue.SOURCES)
    for source in catalogue.SOURCES:
        assert source.license
        assert source.version
        assert source.stage
        assert source.access == "open" or source.how
        for address in [*(item.url for item in source.downloads), source.listing]:
            assert not address or address.startswith("https://")
        assert source.downloads or source.access == "hand"
        assert all(item.url or source.listing for item in source.downloads)
        assert all(item.sha256 is None or len(bytes.fromhex(item.sha256)) == 32 for item in source.downloads)
        for item in source.downloads:
            if item.is_archive and source.archives:
                assert any(matches(pattern, item.name) for pattern in source.archives) or source.listing
            elif not item.is_archive:
                assert source.wants(item.name)
    licensed = {source.name for source in catalogue.SOURCES if source.access != "open"}
    assert licensed == {"RxNorm_full", "SNOMED", "ATC", "CPT4", "DrugBank", "UMLS"}


def test_selecting_by_name():
    assert [source.name for source in catalogue.select("codes", ["ndc", "ICD10CM"])] == ["ICD10CM", "NDC"]
    with pytest.raises(InputError, match="did you mean 'ICD10CM'"):
        catalogue.select("codes", ["ICD10-CM"])
    with pytest.raises(InputError, match="codes, primekg"):
        catalogue.select("code")


def test_the_list_shows_every_source():
    console = Console(file=io.StringIO(), width=200)
    console.print(groups.catalogue_table(catalogue.SOURCES))
    text = console.file.getvalue()
    for source in catalogue.SOURCES:
        assert f" {source.name} " in text
    assert "UMLS_API_KEY" in text
    assert "PhysioNet account" in text


def command(*arguments, **environment):
    variables = {name: value for name, value in os.environ.items() if name != "UMLS_API_KEY"} | environment
    return run_module("preprocessing.download", *arguments, env=variables)


@pytest.mark.integration
def test_the_command_line(tmp_path, given):
    (given / "ndctext.zip").write_bytes(NDC)
    flags = [f"--output={tmp_path / 'out'}", f"--from_dir={given}", "--offline"]
    done = command("codes", "--only=NDC", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NDC" in done.stdout
    Manifest.read(tmp_path / "out").verify(names=["NDC/product.txt", "NDC/package.txt"])
    failed = command("codes", "--only=NDC,HCPCS", *flags)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: 1 of the sources failed: HCPCS")
    asked = command("codes", "--only=SNOMED", *flags)
    assert asked.returncode == 2
    assert "uts.nlm.nih.gov" in asked.stdout
    assert command("codes").returncode == 2


def test_a_source_of_the_interface():
    """A source is plain values with these defaults, on which others build."""
    source = DownloadSource("n", "codes", "f", "v", "l", "s", required=(r"a\.txt",))
    assert source.wants("A.TXT")
    assert not source.wants("a.txt.gz")
