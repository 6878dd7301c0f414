"""What catalogues and loaders of data sets read of a release: its files and columns in Croissant 1.1, as JSON-LD.

Nothing of it is about the records: the columns and their types are those of the released files. The address, the
publisher and the date are not known here; whoever publishes the release says them where it is published.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dpsda.privacy.files import sha256

if TYPE_CHECKING:
    import pyarrow as pa

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
_TERMS = (
    *("annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes", "extract"),
    *("field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath"),
    *("key", "md5", "parentField", "path", "readLines", "recordSet", "references", "regex", "repeated", "replace"),
    *("samplingRate", "sdVersion", "separator", "source", "subField", "transform", "unArchive", "value"),
)
_CONTEXT: dict[str, Any] = {  # the recommended one, as validators compare it
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
_RECORDS = "texts"


def metadata(texts: Path, parquet: Path, statement: str, about: dict[str, str]) -> dict[str, Any]:
    """The description of a csv and of the same as parquet. `statement` is the guarantee in one sentence, `about` what
    the card says of the release."""
    import pyarrow.parquet as pq

    known: dict[str, Any] = {}
    if "license" in about:
        known["license"] = {"@type": "sc:CreativeWork", "name": about["license"]}
    if "language" in about:
        known["inLanguage"] = about["language"].split(", ")
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": f"{about.get('data set', 'texts')}, synthetic",
        "description": f"Synthetic texts. {statement} certificate.json beside this file has the details.",
        **known,
        "keywords": ["synthetic"],
        "distribution": [_file(texts, "text/csv"), _file(parquet, "application/x-parquet")],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": _RECORDS,
                "name": _RECORDS,
                "field": [_field(column, texts.name) for column in pq.read_schema(parquet)],
            }
        ],
    }


def _file(path: Path, encoding: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "encodingFormat": encoding,
        "sha256": sha256(path),
    }


def _field(column: pa.Field, file: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{_RECORDS}/{quote(column.name, safe='')}",
        "name": column.name,
        "dataType": _type(column.type),
        "source": {"fileObject": {"@id": file}, "extract": {"column": column.name}},
    }


def _type(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:Date" if pa.types.is_date(kind) else "sc:Text"
