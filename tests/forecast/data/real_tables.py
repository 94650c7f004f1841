"""Real tables: small demand tables as people have them, each with what must be understood or asked.

A kind is one line of `TABLES`. Sites and parts are invented. All hold the same sales, so that what must come out is the
same: `TOTALS`, by site and month, unless the line says otherwise. Add a line: a name, what is handed over (text and
bytes are a file's), arguments, and what is expected: totals, or a pattern of the question that is asked; and a
pattern of what must be told, where something must.
"""

from __future__ import annotations

import datetime as dt
import gzip
import io
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa

from tests.forecast.data.spreadsheet import xlsx

Totals = Mapping[tuple[str, str], float]

SITES, PARTS = ("Kendari", "Sofifi"), ("K-101", "K-102")
DAYS = [dt.date(2025, 7, 3) + dt.timedelta(days=3 * at) for at in range(18)]  # into August
SALES = [
    (site, part, day, 3 + 7 * at + 2 * number)
    for number, (site, part) in enumerate((site, part) for site in SITES for part in PARTS)
    for at, day in enumerate(DAYS)
]
TITLES = ("site", "part", "date", "quantity")


def totals(sales: Any = SALES) -> Totals:
    """What was sold by site and month."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for site, _, day, quantity in sales:
        found[str(site), f"{day:%Y-%m}"] += quantity
    return dict(found)


TOTALS = totals()


@dataclass(frozen=True, kw_only=True)
class RealTable:
    """A table, and what must become of it.

    Attributes:
        name: Its kind, in a few words.
        given: A file's text or bytes, or a frame.
        expected: Totals by site and month, or a pattern of the question.
        told: A pattern of what must be told of it; "" for nothing.
        arguments: Of `analyze`.
    """

    name: str
    given: Any
    expected: Totals | str = field(default_factory=lambda: TOTALS)
    told: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def carrier(self) -> Any:
        """What is handed over."""
        data = self.given.encode() if isinstance(self.given, str) else self.given
        return io.BytesIO(data) if isinstance(data, bytes) else data


def text(
    sep: str = ",",
    titles: tuple[str, ...] = TITLES,
    *,
    day: Callable[[dt.date], str] = dt.date.isoformat,
    number: Callable[[int], str] = str,
    site: Callable[[str], str] = str,
    part: Callable[[str], str] = str,
    more: tuple[str, ...] = (),
    end: str = "\n",
) -> str:
    """The sales as a text file, each cell written in a way; ``more`` are cells of further columns."""
    rows = [(site(place), part(name), day(date), number(count), *more) for place, name, date, count in SALES]
    return end.join(sep.join(row) for row in (titles, *rows)) + end


def frame() -> pd.DataFrame:
    """The sales as a frame."""
    made = pd.DataFrame(SALES, columns=list(TITLES))
    return made.assign(date=pd.to_datetime(made["date"]))


def weeks(sep: str = ",", title: Callable[[dt.date], Any] = dt.date.isoformat, total: bool = False) -> list[list[Any]]:
    """The sales as a wide table: a column for each date."""
    series: dict[tuple[str, str], list[int]] = defaultdict(list)
    for site, part, _, count in SALES:
        series[site, part].append(count)
    rows: list[list[Any]] = [["site", "part", *map(title, DAYS), *(["Total"] if total else [])]]
    rows += [[*key, *counts, *([sum(counts)] if total else [])] for key, counts in series.items()]
    return rows


def sheet() -> list[list[Any]]:
    """The sales as rows of a spreadsheet."""
    return [list(TITLES), *(list(row) for row in SALES)]


def arrow_frame() -> pd.DataFrame:
    """As ``read_parquet(dtype_backend="pyarrow")`` gives them."""
    columns = zip(*SALES, strict=True)
    made = pa.table({name: pa.array(list(values)) for name, values in zip(TITLES, columns, strict=True)})
    return made.to_pandas(types_mapper=pd.ArrowDtype)


def joined(rows: list[list[Any]], sep: str = ",") -> str:
    return "\n".join(sep.join(map(str, row)) for row in rows) + "\n"


HEAD, BODY = ",".join(TITLES) + "\n", text().partition("\n")[2]
CAFE = {"Kendari": "Café Köln", "Sofifi": "São João"}
ACCENTED = {(CAFE[site], month): total for (site, month), total in TOTALS.items()}

CYRILLIC = {"Kendari": "Казань", "Sofifi": "Москва"}

ENCODINGS = (
    RealTable(name="a byte-order mark", given=text().encode("utf-8-sig")),
    RealTable(name="UTF-8 with accents", given=text(site=CAFE.get), expected=ACCENTED),
    RealTable(
        name="Latin-1 with accents",
        given=text(site=CAFE.get).encode("latin-1"),
        expected=ACCENTED,
        told="Windows-1252|cp1252",
    ),
    RealTable(
        name="Windows-1252 with a euro sign",
        given=text(";", site=CAFE.get, part=lambda part: f"{part} €").encode("cp1252"),
        expected=ACCENTED,
        told="Windows-1252|cp1252",
    ),
    RealTable(
        name="a spreadsheet's Unicode text",
        given=text("\t", site=CAFE.get, end="\r\n").encode("utf-16"),
        expected=ACCENTED,
    ),
    RealTable(
        name="Cyrillic of unknown encoding",
        given=text(site=CYRILLIC.get).encode("cp1251"),
        expected=r"which may be .*\(encoding='cp1251'\)",
    ),
    RealTable(
        name="Cyrillic of a named encoding",
        given=text(site=CYRILLIC.get).encode("cp1251"),
        expected={(CYRILLIC[site], month): total for (site, month), total in TOTALS.items()},
        arguments={"encoding": "cp1251"},
    ),
)
SHAPES = (
    RealTable(name="semicolons", given=text(";")),
    RealTable(name="tabs", given=text("\t")),
    RealTable(name="bars", given=text("|")),
    RealTable(name="trailing separators on the rows alone", given=HEAD + BODY.replace("\n", ",,\n")),
    RealTable(name="line feeds in quotation marks", given=text(part=lambda part: f'"{part}\nspare"')),
    RealTable(name="blank lines between all rows", given=text(end="\n\n")),
    RealTable(
        name="a title above and a total below",
        given=f"Penjualan 2025,,,\n\n{text()}Total,,,9999\n",
        told="titles were found in row 3",
    ),
    RealTable(name="a remark below", given=f"{text()}\nPrinted by ERP on 2025-09-01\n", told="remark below the table"),
    RealTable(
        name="subtotals of the sites",
        given=HEAD + re.sub(r"(Sofifi)", r"Kendari Total,,,777\n\1", BODY, count=1),
        told="is a total",
    ),
    RealTable(
        name="titles twice, as of two files",
        given=HEAD + re.sub("(?=Sofifi)", HEAD, BODY, count=1),
        told="repeats the titles",
    ),
    RealTable(name="an index column without a name", given=frame().to_csv()),
    RealTable(
        name="the quantity's title twice",
        given=text(titles=(*TITLES, "quantity"), more=("7",)),
        expected=r"'quantity \(column 4\)' or 'quantity \(column 5\)'.*columns=",
    ),
    RealTable(
        name="thousands without quotation marks",
        given=text(number=lambda count: f"1,{count:03d}"),
        expected="as many cells in a row .*row 2",
    ),
    RealTable(name="no titles", given=BODY, expected="must have a row of titles"),
    RealTable(name="wide: a column for each date", given=joined(weeks()), told="18 columns whose titles are dates"),
    RealTable(
        name="wide, with semicolons and totals",
        given=joined(weeks(total=True), ";"),
        told="18 columns whose titles are dates",
    ),
    RealTable(
        name="wide, days first", given=joined(weeks(title=lambda day: f"{day:%d/%m/%Y}"), ";"), told="18 columns"
    ),
    RealTable(
        name="a column for each site",
        given="date,part,Kendari,Sofifi\n" + "".join(f"{day},K-101,1,2\n" for day in DAYS),
        expected="'Kendari', 'Sofifi'.*columns=",
    ),
    RealTable(
        name="a stray quotation mark", given=text().replace("K-101", '"K-101', 1), expected="opens in row 2 is not"
    ),
    RealTable(name="prose", given="Dear colleague,\n\nplease find the table attached.\n", expected="demand must"),
)
CARRIERS = (
    RealTable(name="gzip", given=gzip.compress(text().encode())),
    RealTable(name="a spreadsheet", given=xlsx({"Sheet1": sheet()})),
    RealTable(
        name="a spreadsheet with a cover",
        given=xlsx({"Cover": [["Sales"], ["by hand"]], "Data": sheet()}),
        told="the sheet 'Data' was read",
    ),
    RealTable(
        name="a spreadsheet with a sheet a year",
        given=xlsx({"2024": sheet(), "2025": sheet()}),
        expected=r"may be '2024' \(sheet='2024'\) or '2025' \(sheet='2025'\)",
    ),
    RealTable(
        name="a spreadsheet, a sheet named",
        given=xlsx({"2024": sheet()[:9], "2025": sheet()}),
        arguments={"sheet": "2025"},
    ),
    RealTable(
        name="a wide spreadsheet",
        given=xlsx({"Sheet1": weeks(title=lambda day: day)}),
        told="18 columns whose titles are dates",
    ),
    RealTable(name="objects", given=frame().astype(object)),
    RealTable(name="categories", given=frame().astype({"site": "category", "part": "category"})),
    RealTable(name="nullable types", given=frame().convert_dtypes()),
    RealTable(name="Arrow types, days as date32", given=arrow_frame()),
    RealTable(name="names in the index", given=frame().set_index(["site", "part", "date"])),
    RealTable(name="polars", given=pl.from_pandas(frame())),
    RealTable(name="polars, lazy", given=pl.from_pandas(frame()).lazy()),
    RealTable(name="pyarrow", given=pa.Table.from_pandas(frame())),
    RealTable(name="parquet", given=frame().to_parquet()),
)
MONTHS = {
    "Indonesian": ("Juli", "Agustus"),
    "Spanish": ("julio", "agosto"),
    "German": ("Juli", "August"),
    "French": ("juillet", "août"),
    "short French": ("juil.", "aout"),
    "short Indonesian": ("Jul", "Agt"),
}
THOUSANDS = {key: 1000 * total for key, total in TOTALS.items()}
HALVES = {key: total / 2 for key, total in TOTALS.items()}
FIRST_DAYS = [sale for sale in SALES if sale[2].day <= 12]


def thousands(mark: str) -> Callable[[int], str]:
    """A number times 1,000 with a mark, so that 3 is 3.000."""
    return lambda count: f"{count * 1000:,}".replace(",", mark)


def halves(mark: str) -> Callable[[int], str]:
    """Half a number, with a decimal mark."""
    return lambda count: f"{count / 2:.1f}".replace(".", mark)


NUMBERS = (
    RealTable(name="decimal commas", given=text(";", number=halves(",")), expected=HALVES),
    RealTable(
        name="decimal commas in quotation marks",
        given=text(number=lambda n: f'"{n / 2}"'.replace(".", ",")),
        expected=HALVES,
    ),
    RealTable(
        name="thousands points in a semicolon file",
        given=text(";", number=thousands(".")),
        expected=THOUSANDS,
        told="'[0-9]+.000' in quantity was read as",
    ),
    RealTable(
        name="thousands points in a comma file",
        given=text(number=thousands(".")),
        expected=r"'quantity', got '\d+\.000', which may be .*decimal='\.'.*thousands='\.'",
    ),
    RealTable(
        name="thousands points, named",
        given=text(number=thousands(".")),
        expected=THOUSANDS,
        arguments={"thousands": "."},
    ),
    RealTable(
        name="thousands commas in quotation marks",
        given=text(number=lambda n: f'"{n * 1000:,}"'),
        expected=THOUSANDS,
        told="decimal=',' reads it as",
    ),
    RealTable(
        name="thousands commas in a tab file",
        given=text("\t", number=thousands(",")),
        expected=r"got '\d+,000', which may be",
    ),
    RealTable(name="thin blanks as thousands", given=text(number=thousands("\u202f")), expected=THOUSANDS),
    RealTable(name="apostrophes as thousands", given=text(number=thousands("'")), expected=THOUSANDS),
    RealTable(
        name="thousands and fractions",
        given=text(";", number=lambda n: f"{n * 1000:,}".replace(",", ".") + ",00"),
        expected=THOUSANDS,
    ),
    RealTable(
        name="pieces with their unit",
        given=text(number=lambda n: f"{n} pcs"),
        told="units in quantity were left out: 'pcs'",
    ),
    RealTable(name="numbers with an exponent", given=text(number=lambda n: f"{n}E3"), expected=THOUSANDS),
    RealTable(
        name="Arabic digits", given=text(number=lambda n: str(n).translate({48 + d: 0x660 + d for d in range(10)}))
    ),
    RealTable(
        name="text among the numbers of a frame",
        given=frame().assign(quantity=[str(n) if at % 2 else n for at, (*_, n) in enumerate(SALES)]),
    ),
)
DATES = (
    RealTable(name="day, month, year", given=text(day=lambda day: f"{day:%d/%m/%Y}")),
    RealTable(name="month, day, year", given=text(day=lambda day: f"{day:%m/%d/%Y}")),
    RealTable(name="points between", given=text(";", day=lambda day: f"{day:%d.%m.%Y}")),
    RealTable(name="no zeros, and a time", given=text(day=lambda day: f"{day.day}/{day.month}/{day.year} 8:05")),
    RealTable(
        name="year, month, day of two digits",
        given=text(day=lambda day: f"{day:%y/%m/%d}"),
        told="date_format='%d/%m/%y' reads it as 2003-07-25",
    ),
    RealTable(
        name="day, month, year of two digits",
        given=text(day=lambda day: f"{day:%d/%m/%y}"),
        told="date_format='%y/%m/%d'",
    ),
    RealTable(name="eight digits", given=frame().assign(date=[int(f"{day:%Y%m%d}") for _, _, day, _ in SALES])),
    RealTable(name="days of a spreadsheet", given=text(day=lambda day: str((day - dt.date(1899, 12, 30)).days))),
    RealTable(name="short names of months", given=text(day=lambda day: f"{day:%d-%b-%y}")),
    RealTable(name="Vietnamese months", given=text(day=lambda day: f"{day.day} tháng {day.month} {day.year}")),
    RealTable(
        name="only months, by number",
        given=text(day=lambda day: f"{day:%Y%m}"),
        expected=r"'date', got '202507', which may be 2025-07-01 \(date_format='%Y%m'\) or 2025-02-10",
    ),
    RealTable(
        name="only months, by number, and the period is said",
        given=text(day=lambda day: f"{day:%Y%m}"),
        told="rows repeat a site, part and date",
        arguments={"freq": "M"},
    ),
    RealTable(name="an offset at midnight", given=text(day=lambda day: f"{day} 00:00:00+09:00")),
    RealTable(name="a zone", given=frame().assign(date=frame()["date"].dt.tz_localize("Asia/Makassar"))),
    RealTable(
        name="two ways in one column",
        given=text(day=lambda day: f"{day:%d/%m/%Y}" if day.month == 7 else str(day)),
        told="written in 2 ways",
    ),
    RealTable(
        name="days up to 12 only",
        given=pd.DataFrame(FIRST_DAYS, columns=list(TITLES)).assign(
            date=lambda made: [f"{day:%d/%m/%Y}" for day in made["date"]]
        ),
        expected=r"'date', got '\d\d/\d\d/2025', which may be .*date_format='%d/%m/%Y'.*date_format='%m/%d/%Y'",
    ),
    RealTable(
        name="days up to 12 only, named",
        given=pd.DataFrame(FIRST_DAYS, columns=list(TITLES)).assign(
            date=lambda made: [f"{day:%d/%m/%Y}" for day in made["date"]]
        ),
        expected=totals(FIRST_DAYS),
        arguments={"date_format": "%d/%m/%Y"},
    ),
    RealTable(
        name="days that a spreadsheet took for months",
        given=frame().assign(
            date=[f"{day:%d/%m/%Y}" if day.day > 12 else dt.date(2025, day.day, day.month) for _, _, day, _ in SALES]
        ),
        expected="day and month swapped in 'date'",
    ),
    *(
        RealTable(
            name=f"{language} months",
            given=text(day=lambda day, names=names: f"{day.day} {names[day.month - 7]} {day.year}"),
        )
        for language, names in MONTHS.items()
    ),
)
COLUMNS = (
    RealTable(
        name="Indonesian titles, and money",
        given=text(
            ";",
            titles=("Lokasi", "Kode Barang", "Tanggal", "Jumlah", "Nama Barang", "Jumlah Harga"),
            more=("Baut", "12,50"),
        ),
        told="read 'Kode Barang' as the part \\(beside 'Nama Barang'\\)",
    ),
    RealTable(
        name="Vietnamese titles, and money",
        given=text(titles=("Cửa hàng", "Mã hàng", "Ngày", "Số lượng", "Thành tiền"), more=("99.5",)),
    ),
    RealTable(
        name="Vietnamese titles without accents",
        given=text(titles=("cua_hang", "MaHang", "ngay", "soluong", "don gia"), more=("9",)),
    ),
    RealTable(
        name="Spanish titles", given=text(titles=("Tienda", "Código", "Fecha", "Cantidad", "Importe"), more=("9.5",))
    ),
    RealTable(
        name="German titles", given=text(titles=("Filiale", "Artikelnummer", "Datum", "Menge", "Umsatz"), more=("9.5",))
    ),
    RealTable(
        name="French titles",
        given=text(titles=("Magasin", "Référence", "Date de vente", "Qté", "Montant"), more=("9.5",)),
    ),
    RealTable(
        name="money beside the pieces",
        given=frame()
        .assign(Amount=9.99)
        .rename(columns={"quantity": "Qty Sold"})[["site", "part", "date", "Amount", "Qty Sold"]],
        told="read 'Qty Sold' as the quantity \\(beside 'Amount'\\)",
    ),
    RealTable(
        name="a country beside the store",
        given=frame()
        .assign(Country="ID")
        .rename(columns={"site": "Store Name"})[["Country", "Store Name", "part", "date", "quantity"]],
        told="\\(beside 'Country'\\)",
    ),
    RealTable(
        name="two quantities",
        given=frame().assign(**{"Qty Shipped": 1}).rename(columns={"quantity": "Qty Ordered"}),
        expected="quantity may be 'Qty Ordered' or 'Qty Shipped'.*columns=",
    ),
    RealTable(
        name="money alone",
        given=frame().assign(quantity="$9.50").rename(columns={"quantity": "Amount"}),
        expected="must have a 'quantity' column",
    ),
)
TABLES = (*ENCODINGS, *SHAPES, *CARRIERS, *NUMBERS, *DATES, *COLUMNS)
