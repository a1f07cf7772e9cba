"""Workbooks as bytes, made by hand."""

import base64
import io
import zipfile
import zlib
from typing import Any

Rows = list[list[Any]]

_SHEET_ML = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_RELATIONSHIP = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_RELATIONSHIPS = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
_OPEN_DOCUMENT = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for name in ("office", "table", "text")
)


def xlsx(sheets: dict[str, Rows | str]) -> bytes:
    """A workbook of Excel with these sheets: their rows, or their XML."""
    files = {
        "_rels/.rels": _relations([("officeDocument", "xl/workbook.xml")]),
        "xl/workbook.xml": f'<workbook {_SHEET_ML} xmlns:r="{_RELATIONSHIP}"><sheets>'
        + "".join(
            f'<sheet name="{name}" sheetId="{at}" r:id="rId{at}"/>'
            for at, name in enumerate(sheets, 1)
        )
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": _relations(
            [("worksheet", f"worksheets/sheet{at}.xml") for at in range(1, len(sheets) + 1)]
        ),
    }
    for at, rows in enumerate(sheets.values(), 1):
        files[f"xl/worksheets/sheet{at}.xml"] = rows if isinstance(rows, str) else sheet_xml(rows)
    return archive(files)


def sheet_xml(rows: Rows) -> str:
    lines = []
    for number, row in enumerate(rows, 1):
        cells = []
        for column, value in zip("ABCDEFGH", row, strict=False):
            place = f'r="{column}{number}"'
            if isinstance(value, str):
                cells.append(f'<c {place} t="inlineStr"><is><t>{value}</t></is></c>')
            elif value is not None:
                cells.append(f"<c {place}><v>{value}</v></c>")
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    return f"<worksheet {_SHEET_ML}><sheetData>{''.join(lines)}</sheetData></worksheet>"


def ods(rows: Rows) -> bytes:
    """A workbook of LibreOffice with one sheet of texts, `Open`."""
    lines = "".join(
        "<table:table-row>"
        + "".join(
            f'<table:table-cell office:value-type="string"><text:p>{value}</text:p>'
            "</table:table-cell>"
            for value in row
        )
        + "</table:table-row>"
        for row in rows
    )
    return archive(
        {
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "META-INF/manifest.xml": "<manifest/>",
            "content.xml": f"<office:document-content {_OPEN_DOCUMENT}><office:body>"
            f'<office:spreadsheet><table:table table:name="Open">{lines}</table:table>'
            "</office:spreadsheet></office:body></office:document-content>",
        }
    )


def archive(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            file.writestr(name, text)
    return content.getvalue()


def _relations(targets: list[tuple[str, str]]) -> str:
    lines = "".join(
        f'<Relationship Id="rId{at}" Type="{_RELATIONSHIP}/{kind}" Target="{target}"/>'
        for at, (kind, target) in enumerate(targets, 1)
    )
    return f"<Relationships {_RELATIONSHIPS}>{lines}</Relationships>"


#: A workbook of Excel 97 with the sheet `Old`: city, n; Rome, 3; Oslo, 2.5.
XLS = zlib.decompress(
    base64.b64decode(
        b"eNrtWE1oU0EQ/va9pPmxTZOaCq1QYsGqtRfx4qV9KmhPtrUXRQRNmxxKYyKxl3rQas1REDwpXgq9eKl68Qc9KF48"
        b"CBU9CIKQ6LEnQcFDm9eZefsw1Rwa0KCy32NnZ2dmdydvZ+dl981yorzwoLuCnzAEG1U3gpYamaIS8RtxkN51mfXr"
        b"MBXX4J9CJEwL2RLE07bXIV5DXu8KLNwPvCAKfKJyGucxUshnU03EYfEhrdiHQaIKd0gSQ5d41SF0UuhWoffE8pnQ"
        b"gyK5LnSQbMvqFJadkf4DOopPWr2ii4HHfSR9PohkHzrxiqP48g3l2QZxqDiVzv2dip5AKxZB6zaczWeL6VwZSVrA"
        b"RXxzU8BXf6c+Txl5c+UKJP++UR6qI79pBYA5uGclwEvYgpc2a2yM5jKr2AFS+2VyamaWVj9P7HjhXJaq0Qu5QpRT"
        b"smzh+IYt3Cah3Uo0g3bhExLgcUrSq3e/vD02MeacEcmcpG0vue9kf+DiCvegzjF43jDYtl/oXqFXZdTtwncLTVJY"
        b"Ut031qmZo/Nic020fTTPfsE7Z1cNv5v40srxxz2lz84e4peGKxeTS++dBfTSxyZD/fmZx4AaULdvMZ44fq10Ivgo"
        b"tOuXpBC24tp3V3/B2rGGqLAJoV6L347S9qqOvRJ7HvGSFRV/Eohpe6uOvSX2trb33v4KNYesDjxkJaWoH4jCwMDA"
        b"wMDAwMDAoElQ+q+9rU8aQX2ACOl7nTUqVXNN8t9iHAV6ZuhgegR5qouYbSh+tiGo/LHUJvv494WMEzR7EdOYED+m"
        b"G45fOgCq2t+z6Y7x37eFGp2/2oiff3j+ddnow8Y="
    )
)
#: How an Excel workbook with a password begins, and the name of a stream in it.
ENCRYPTED = (
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le")
)
#: Two cells, so far apart that the cells between them need 512 GiB.
FAR_APART = xlsx(
    {
        "Far": f"<worksheet {_SHEET_ML}><sheetData>"
        '<row r="1"><c r="A1"><v>1</v></c></row>'
        '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData></worksheet>'
    }
)
