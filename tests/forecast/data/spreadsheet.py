"""A spreadsheet of given cells, as small as one can be: no package that writes them is needed for the tests."""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    '<Override PartName="/xl/workbook.xml"'
    ' ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>'
)
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
_STYLES = f'<styleSheet xmlns="{_MAIN}"><cellXfs count="2"><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>'


def xlsx(sheets: Mapping[str, Sequence[Sequence[Any]]], merged: Sequence[str] = ()) -> bytes:
    """A file with sheets of rows: text, numbers, days; None for an empty cell. Merged cells are of each, as "A2:A9"."""
    cells = "".join(f'<mergeCell ref="{ref}"/>' for ref in merged)
    merges = f"<mergeCells>{cells}</mergeCells>" if merged else ""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("[Content_Types].xml", _TYPES)
        file.writestr(
            "_rels/.rels",
            f'{_RELATIONS}<Relationship Id="r" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/>'
            "</Relationships>",
        )
        numbers = range(1, len(sheets) + 1)
        names = "".join(
            f'<sheet name="{escape(name)}" sheetId="{at}" r:id="r{at}"/>'
            for at, name in zip(numbers, sheets, strict=True)
        )
        file.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{names}</sheets></workbook>'
        )
        related = "".join(
            f'<Relationship Id="r{at}" Type="{_OFFICE}/worksheet" Target="worksheets/sheet{at}.xml"/>' for at in numbers
        )
        styles = f'<Relationship Id="s" Type="{_OFFICE}/styles" Target="styles.xml"/>'
        file.writestr("xl/_rels/workbook.xml.rels", f"{_RELATIONS}{related}{styles}</Relationships>")
        file.writestr("xl/styles.xml", _STYLES)
        for at, rows in zip(numbers, sheets.values(), strict=True):
            body = "".join(
                f'<row r="{row}">{"".join(_cell(row, column, value) for column, value in enumerate(cells))}</row>'
                for row, cells in enumerate(rows, start=1)
            )
            file.writestr(
                f"xl/worksheets/sheet{at}.xml",
                f'<worksheet xmlns="{_MAIN}"><sheetData>{body}</sheetData>{merges}</worksheet>',
            )
    return made.getvalue()


def _cell(row: int, column: int, value: Any) -> str:
    if value is None:
        return ""
    name = (chr(64 + column // 26) if column >= 26 else "") + chr(65 + column % 26)
    if isinstance(value, str):
        return f'<c r="{name}{row}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    if isinstance(value, bool):
        return f'<c r="{name}{row}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, dt.date):
        day = value.date() if isinstance(value, dt.datetime) else value
        return f'<c r="{name}{row}" s="1"><v>{(day - dt.date(1899, 12, 30)).days}</v></c>'
    return f'<c r="{name}{row}"><v>{value}</v></c>'
