"""List the sources that the pipeline reads, with their addresses, licenses and needed credentials.

Files that never change have a checksum; files that a publisher replaces under the same address ("current") have none,
and the manifest records the fetched version and the date.
"""

from collections.abc import Iterable, Sequence

from preprocessing.common.errors import InputError, did_you_mean
from preprocessing.download.source import GROUPS, Download, DownloadSource

_CMS = "https://www.cms.gov"
_MONDO = "v2026-08-04"
_UTS = "https://uts-ws.nlm.nih.gov"
_DATAVERSE = "https://dataverse.harvard.edu/api"
_PUBLIC_DOMAIN = "public domain (US government)"
_UMLS_LICENSE = "UMLS Metathesaurus license"
_UMLS_HOW = (
    "get a free license at https://uts.nlm.nih.gov/uts/signup-login and set UMLS_API_KEY to the key that your profile "
    "there shows"
)


# SHA-256 of mondo_NAME.sssom.tsv in that release.
_MONDO_MAPPINGS = {
    "broadmatch_icd10cm": "e5da7d432057c0fdcf279b07e79af8d6773a0c6ac9227c0161d64ecbfc41a8e8",
    "broadmatch_sctid": "5deb0cbf284d36db0876f02992ba328d8a114a0c36e399ba2e637d816219d423",
    "closematch_icd10cm": "abfdab59516234789dc9594c316d9f11ac0a0a3d2564fac0157038893b0c3ff7",
    "closematch_sctid": "116af215b6509db1c387152d8d12da319013b9b3daf74103be4c0caa11c4a88f",
    "exactmatch_icd10cm": "c217ab67567945b3d7ed3a224a80a961c9b3106c920050d46e8c8c5df0ca2626",
    "exactmatch_omim": "7dad9b7df2729c06f0bbfdc134ac4bf9982385a22a1cafe966e6942274c221d5",
    "exactmatch_orphanet": "2f1dd7fc078d02852acd3bf8212437583eafe983477a07080bc68cb2f7b11836",
    "exactmatch_sctid": "cb4420952cf0b1a329a831992774556ea0637ad91afff4941482a2941a26492f",
    "exactmatch_umls": "b418ee92228b18ab178ea6e5bf67ed3acf826d59f6bbaf3157c55f0157fecf1d",
    "hasdbxref_icd10cm": "cc155324375bf29c1bb3ce7166cf8cf97e5de04711a736523ac8a689bf3e88f3",
    "hasdbxref_icd9": "47d5556de2f7b19f00173c8cd7e3edfb1085ceaa6d1d164ef87fc095e2432c3a",
    "hasdbxref_icd9cm": "e5100f02dd7f23cae4eeb8777eb8af80493017c4442cb6590cff2382220a81bd",
    "hasdbxref_sctid": "dab30bdaae6c8e019245bd934f1e0c0a1185c19fc24b79aff74a6ecd95f26fb6",
    "narrowmatch_icd10cm": "fb94c64483c333dcf7632fa8c3a85d48e55c53e8a8961939ff7c763e43c4e7cb",
    "narrowmatch_sctid": "1e1fceefa539162a60202c42fafd1a076ba0700a2bacebe16abff945e37c2e34",
    "relatedmatch_icd10cm": "f261d3e4ac4ddfc37df1b0414127a68225f4b81b9b3a072426934b2b1a8e1b49",
    "relatedmatch_sctid": "a75b4673cc7d1e34405270bc32d40cd18d218c4a08b2b34a5d6371d60837bb0d",
}

_CODES = (
    DownloadSource(
        name="ICD9CM",
        group="codes",
        folder="ICD9CM",
        version="v32 (October 2014, the last)",
        license=_PUBLIC_DOMAIN,
        stage="codes",
        required=(r"CMS\d\d_DESC_LONG_DX.*\.txt", r"CMS\d\d_DESC_LONG_SG.*\.txt"),
        downloads=(
            Download(
                "icd-9-cm-v32-master-descriptions.zip",
                f"{_CMS}/medicare/coding/icd9providerdiagnosticcodes/downloads/icd-9-cm-v32-master-descriptions.zip",
                "45a7d05ddcadf124af88375b64cdf068bb1e3f999ce7fdacb91f65f4e6d55f08",
            ),
        ),
        archives=(r"(icd-9-cm-|cms)v?\d\d[-_]master[-_]descriptions.*\.zip",),
    ),
    DownloadSource(
        name="ICD10CM",
        group="codes",
        folder="ICD10CM",
        version="FY2026, April 2026",
        license=_PUBLIC_DOMAIN,
        stage="codes",
        required=(r"icd10cm[-_](?!.*addend)(order|codes)[-_].*\d{4}\.txt",),
        downloads=(
            Download(
                "april-1-2026-code-descriptions-tabular-order.zip",
                f"{_CMS}/files/zip/april-1-2026-code-descriptions-tabular-order.zip",
                "4fd9d8b37f02ab42827c7e7be30595c005b0cc3a6bae7a515e3f4c86b6918688",
            ),
        ),
        archives=(r".*code-descriptions.*\.zip", r"icd10cm[-_]code.?descriptions.*\.zip"),
    ),
    DownloadSource(
        name="ICD10PCS",
        group="codes",
        folder="ICD10PCS",
        version="FY2026, April 2026",
        license=_PUBLIC_DOMAIN,
        stage="codes",
        required=(r"icd10pcs[-_](?!.*addend)(order|codes)[-_].*\d{4}\.txt",),
        downloads=(
            Download(
                "april-1-2026-icd-10-pcs-order-file-long-abbreviated-titles.zip",
                f"{_CMS}/files/zip/april-1-2026-icd-10-pcs-order-file-long-abbreviated-titles.zip",
                "9bb4a892c34b82d525182a6db6ef42ccba2c7b331ac5d24d459664a1129d776d",
            ),
        ),
        archives=(r".*icd-10-pcs-(order|codes)-file.*\.zip",),
    ),
    DownloadSource(
        name="GEM",
        group="codes",
        folder="GEM",
        version="2018 (the last)",
        license=_PUBLIC_DOMAIN,
        stage="codes",
        required=(r"\d{4}_I9gem\.txt", r"\d{4}_I10gem\.txt", r"gem_i9pcs\.txt", r"gem_pcsi9\.txt"),
        downloads=(
            Download(
                "2018-icd-10-cm-general-equivalence-mappings.zip",
                f"{_CMS}/medicare/coding/icd10/downloads/2018-icd-10-cm-general-equivalence-mappings.zip",
                "1c5e5f14026ace48437a0d1c485d282fb5d171c357c6ab4f7798fc0a1e3624a2",
            ),
            Download(
                "2018-icd-10-pcs-general-equivalence-mappings.zip",
                f"{_CMS}/medicare/coding/icd10/downloads/2018-icd-10-pcs-general-equivalence-mappings.zip",
                "7410a56e04411030739bfa2d300ce7e42ea23e8f9281c45d04dc4d6c678f9db0",
            ),
        ),
        archives=(r".*general-equivalence-mappings.*\.zip",),
    ),
    DownloadSource(
        name="RxNorm_full",
        group="codes",
        folder="RxNorm",
        version="current monthly release",
        license=_UMLS_LICENSE,
        stage="codes",
        required=(r"RXNCONSO\.RRF",),
        optional=(r"RXNSAT\.RRF", r"RXNREL\.RRF"),
        downloads=(Download("RxNorm_full_current.zip"),),
        listing=f"{_UTS}/releases?releaseType=rxnorm-full-monthly-release",
        archives=(r"RxNorm_full_(?!prescribe).*\.zip",),
        access="umls",
        how=f"{_UMLS_HOW}, or give RxNorm_full_*.zip in --from_dir",
        replaces="RxNorm",
    ),
    DownloadSource(
        name="RxNorm",
        group="codes",
        folder="RxNorm",
        version="current prescribable content",
        license="no license needed (RxNorm Current Prescribable Content, NLM)",
        stage="codes",
        required=(r"RXNCONSO\.RRF",),
        optional=(r"RXNSAT\.RRF", r"RXNREL\.RRF"),
        downloads=(
            Download(
                "RxNorm_full_prescribe_current.zip",
                "https://download.nlm.nih.gov/rxnorm/RxNorm_full_prescribe_current.zip",
            ),
        ),
        archives=(r"RxNorm_full_prescribe.*\.zip",),
    ),
    DownloadSource(
        name="NDC",
        group="codes",
        folder="NDC",
        version="current",
        license=_PUBLIC_DOMAIN,
        stage="codes",
        required=(r"product\.txt", r"package\.txt"),
        downloads=(Download("ndctext.zip", "https://www.accessdata.fda.gov/cder/ndctext.zip"),),
        archives=(r"ndctext.*\.zip",),
    ),
    DownloadSource(
        name="HCPCS",
        group="codes",
        folder="HCPCS",
        version="July 2026",
        license=_PUBLIC_DOMAIN,
        stage="codes",
        required=(r"HCPC\d{4}.*ANWEB(?!.*(trans|correction)).*\.(txt|xlsx)",),
        optional=(r"HCPC.*record.?layout.*\.txt",),
        downloads=(
            Download(
                "july-2026-alpha-numeric-hcpcs-file.zip",
                f"{_CMS}/files/zip/july-2026-alpha-numeric-hcpcs-file.zip",
                "5591fed257e4d2307c1d2dc9c66abc8e346b1f4c076e9e48559799e2de14b70a",
            ),
        ),
        archives=(r".*alpha-numeric-hcpcs.*\.zip",),
    ),
    DownloadSource(
        name="SNOMED",
        group="codes",
        folder="SNOMED",
        version="current US edition",
        license="SNOMED CT affiliate license, in the US the UMLS license",
        stage="codes",
        required=(r"sct2_Concept_Snapshot.*\.txt", r"sct2_Description_Snapshot.*\.txt"),
        optional=(
            r"sct2_(Relationship|TextDefinition)_Snapshot.*\.txt",
            r"der2_cRefset_LanguageSnapshot.*\.txt",
            r"der2_iisssccRefset_ExtendedMapSnapshot.*\.txt",
        ),
        downloads=(Download("SnomedCT_USEditionRF2_PRODUCTION.zip"),),
        listing=f"{_UTS}/releases?releaseType=snomed-ct-us-edition",
        archives=(r"SnomedCT_.*\.zip",),
        access="umls",
        how=f"{_UMLS_HOW}, or give SnomedCT_*RF2*.zip of your national release center in --from_dir",
    ),
    DownloadSource(
        name="ATC",
        group="codes",
        folder="ATC",
        version="as given by hand",
        license="WHO Collaborating Center for Drug Statistics Methodology",
        stage="codes",
        required=(r"(.*[^a-z])?atc([^a-z].*)?\.(csv|tsv|txt)",),
        archives=(r"(.*[^a-z])?atc([^a-z].*)?\.zip",),
        access="hand",
        how=(
            "order the index from its center (https://atcddd.fhi.no/atc_ddd_index/) and give a file named like atc.csv "
            "in --from_dir (the full release of RxNorm holds the classes too)"
        ),
    ),
    DownloadSource(
        name="CPT4",
        group="codes",
        folder="CPT4",
        version="as given by hand",
        license="American Medical Association",
        stage="codes",
        required=(r"(LONGULT|LONGULF|MEDU|SHORTU|Consolidated_Code_List|(.*[^a-z])?cpt([^a-z].*)?)\.(txt|csv|tsv)",),
        archives=(r"(.*[^a-z])?cpt([^a-z].*)?\.zip",),
        access="hand",
        how=(
            "license the CPT data files from the AMA (https://www.ama-assn.org/practice-management/cpt) and give "
            "LONGULT.txt, or a table named like cpt.csv, in --from_dir"
        ),
    ),
)

_PRIMEKG = (
    DownloadSource(
        name="PrimeKG",
        group="primekg",
        folder="",
        version="doi:10.7910/DVN/IXA7BM",
        license="CC0 1.0",
        stage="PrimeKG",
        required=(r"kg\.csv",),
        optional=(r"(drug|disease)_features\.(tab|csv)", r"(nodes|edges)\.(tab|csv)"),
        downloads=(
            # The address from PrimeKG's instructions, which serves if the listing does not name the file.
            Download("kg.csv", f"{_DATAVERSE}/access/datafile/6180620"),
            Download("drug_features.csv", f"{_DATAVERSE}/access/datafile/6180619?format=original", optional=True),
            Download("disease_features.csv", f"{_DATAVERSE}/access/datafile/6180618?format=original", optional=True),
        ),
        listing=f"{_DATAVERSE}/datasets/:persistentId/?persistentId=doi:10.7910/DVN/IXA7BM",
    ),
)

_CROSSREFERENCES = (
    DownloadSource(
        name="MONDO",
        group="crossreferences",
        folder="MONDO",
        version=_MONDO,
        license="CC BY 4.0 (Monarch Initiative)",
        stage="linking",
        required=(r"mondo_exactmatch_icd10cm\.sssom\.tsv",),
        optional=(r"mondo\.obo", r"mondo.*\.sssom\.tsv"),
        downloads=(
            Download("mondo.obo", f"https://github.com/monarch-initiative/mondo/releases/download/{_MONDO}/mondo.obo"),
            *(
                Download(
                    f"mondo_{name}.sssom.tsv",
                    "https://raw.githubusercontent.com/monarch-initiative/mondo/"
                    f"{_MONDO}/src/ontology/mappings/mondo_{name}.sssom.tsv",
                    sha256,
                )
                for name, sha256 in _MONDO_MAPPINGS.items()
            ),
        ),
    ),
    DownloadSource(
        name="HPO",
        group="crossreferences",
        folder="HPO",
        version="current",
        license="HPO license (free with attribution, https://hpo.jax.org/license)",
        stage="linking",
        required=(r"hp\.obo",),
        downloads=(Download("hp.obo", "https://purl.obolibrary.org/obo/hp.obo"),),
    ),
    DownloadSource(
        name="DrugBank",
        group="crossreferences",
        folder="DrugBank",
        version="as given by hand",
        license="CC0 1.0 (DrugBank open data)",
        stage="linking",
        required=(r"drugbank.*vocabulary.*\.csv",),
        archives=(r"drugbank_all_drugbank_vocabulary.*\.zip",),
        access="hand",
        how=(
            "its server accepts only browsers, so download the Open Data vocabulary at "
            "https://go.drugbank.com/releases/latest#open-data and give drugbank_all_drugbank_vocabulary.csv.zip in "
            "--from_dir"
        ),
    ),
    DownloadSource(
        name="UMLS",
        group="crossreferences",
        folder="UMLS",
        version="current",
        license=_UMLS_LICENSE,
        stage="linking",
        required=(r"MRCONSO\.RRF",),
        optional=(r"umls_mondo\.csv",),
        downloads=(Download("umls-mrconso.zip"),),
        listing=f"{_UTS}/releases?releaseType=umls-metathesaurus-mrconso-file",
        archives=(r"umls-.*mrconso.*\.zip", r"MRCONSO.*\.zip"),
        access="umls",
        how=f"{_UMLS_HOW}, or give umls-*-mrconso.zip in --from_dir",
        max_bytes=8 << 30,
    ),
)

_RELEASE = (
    DownloadSource(
        name="release",
        group="release",
        folder="",
        version="doi:10.7910/DVN/7XNT3M",
        license="see https://doi.org/10.7910/DVN/7XNT3M",
        stage="release",
        required=(r"all_codes_mappings\.parquet", r"kg\.csv"),
        optional=(r"code2tokens\.json", r"code2embeddings\.json"),
        downloads=(
            Download("all_codes_mappings.parquet"),
            Download("kg.csv"),
            Download("code2tokens.json", optional=True),
            Download("code2embeddings.json", optional=True),
        ),
        listing=f"{_DATAVERSE}/datasets/:persistentId/?persistentId=doi:10.7910/DVN/7XNT3M",
    ),
)

_EICU = "https://physionet.org/files/eicu-crd-demo/2.0.1"
_EICU_TABLES = (
    *("patient", "hospital", "diagnosis", "medication", "treatment", "pastHistory", "admissionDx"),
    "apachePatientResult",
)
_RECORDS = (
    DownloadSource(
        name="eICU_demo",
        group="eicu_demo",
        folder="",
        version="2.0.1",
        license="Open Data Commons Open Database License 1.0",
        stage="meds",
        required=tuple(rf"{table}\.csv(\.gz)?" for table in _EICU_TABLES),
        downloads=tuple(Download(f"{table}.csv.gz", f"{_EICU}/{table}.csv.gz") for table in _EICU_TABLES),
        checksums=f"{_EICU}/SHA256SUMS.txt",
    ),
    DownloadSource(
        name="Diabetes130",
        group="diabetes130",
        folder="",
        version="doi:10.24432/C5230J",
        license="CC BY 4.0 (Clore, Cios, DeShazo, Strack 2014)",
        stage="meds",
        required=(r"diabetic_data\.csv(\.gz)?", r"IDS_mapping\.csv"),
        downloads=(
            Download(
                "diabetes130.zip",
                "https://archive.ics.uci.edu/static/public/296/diabetes+130-us+hospitals+for+years+1999-2008.zip",
            ),
        ),
        archives=(r"diabetes.?130.*\.zip", r"dataset_diabetes\.zip"),
    ),
)

SOURCES = (*_CODES, *_PRIMEKG, *_CROSSREFERENCES, *_RELEASE, *_RECORDS)


def select(
    group: str, only: Sequence[str] = (), sources: Iterable[DownloadSource] | None = None
) -> list[DownloadSource]:
    """Return the selected sources of a group, in the order of the catalogue.

    Args:
        group: one of `GROUPS`.
        only: names of sources, ignoring case; empty selects all of the group.
        sources: catalogue to use instead of `SOURCES`.

    Raises:
        InputError: the group or a name is not known.
    """
    if group not in GROUPS:
        raise InputError(f"{group!r} is not a group that can be downloaded; give one of: {', '.join(GROUPS)}.")
    members = [source for source in (SOURCES if sources is None else sources) if source.group == group]
    names = {source.name.lower(): source.name for source in members}
    for name in only:
        if name.lower() not in names:
            raise InputError(f"{name!r} is not a source of {group!r}; {did_you_mean(name, names.values())}")
    asked = {name.lower() for name in only}
    return [source for source in members if not asked or source.name.lower() in asked]
