"""Which column is which: found by name, or given. Dates: read in one way for the whole column, never guessed."""

import pandas as pd
import pytest

from ipybatch import InputError
from ipybatch.forecast.data.columns import OURS, UnknownColumns, choose_columns, find_columns
from ipybatch.forecast.data.headings import spoken_for

DAY = pd.Timestamp("2025-07-31")


@pytest.mark.parametrize(
    "names",
    [
        ["site", "part", "date", "quantity"],
        ["Site", "Part No.", "Order Date", "QTY"],
        ["qty", "DS", "SKU", "Warehouse", "price"],
        ["lokasi", "kode_barang", "tanggal", "jumlah"],
    ],
)
def test_columns_are_found_by_their_usual_names(names):
    """Whatever their case, blanks and dots, and in whatever order."""
    found = find_columns(names)
    assert list(found) == list(OURS)
    assert set(found.values()) <= set(names)
    assert len(set(found.values())) == 4


def test_the_commonest_name_wins():
    assert find_columns(["country", "site", "part", "date", "quantity"])["site"] == "site"


def test_a_given_column_wins_over_a_found_one():
    names = ["site", "region", "part", "date", "quantity"]
    assert find_columns(names, {"site": "region"})["site"] == "region"


def test_a_column_is_not_taken_twice():
    """One that is given as the part is no longer found as the site."""
    found = find_columns(["store", "site", "date", "qty"], {"part": "site"})
    assert (found["site"], found["part"]) == ("store", "site")


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (
            ["part", "date", "qty"],
            None,
            r"must have a 'site' column, got 'part', 'date', 'qty': .*\{\"site\": \.\.\.\}",
        ),
        (["a"], {"site": "b"}, r"columns\['site'\] must be a column of demand, one of 'a', got 'b'"),
        (["a"], {"where": "a"}, "columns must name 'site', 'part', 'date', 'quantity', got 'where'"),
        (["a"], {"site": "a", "part": "a"}, "columns must name a column once"),
        (["site", "part", "date", "qty", "qty"], None, "one column 'qty', got 2"),
        ([], None, "got none"),
    ],
)
def test_what_is_missing_is_told(names, given, message):
    with pytest.raises(InputError, match=message):
        find_columns(names, given)


def test_a_wide_table_is_not_listed_whole():
    with pytest.raises(InputError, match="and 188 more"):
        find_columns([f"c{number}" for number in range(200)])


def test_what_was_not_found_can_be_asked_for():
    """The error has what a form needs: all columns, and those that were found."""
    with pytest.raises(UnknownColumns) as told:
        find_columns(["wo", "sku", "date", "n"])
    assert told.value.names == ["wo", "sku", "date", "n"]
    assert told.value.found == {"site": None, "part": "sku", "date": "date", "quantity": None}


@pytest.mark.parametrize(
    ("heading", "ours"),
    [
        ("Lokasi", "site"), ("Kode Toko", "site"), ("Nama Cabang", "site"), ("Gudang", "site"), ("Cửa hàng", "site"),
        ("Chi nhánh", "site"), ("Mã kho", "site"), ("Sucursal", "site"), ("Almacén", "site"), ("Filiale", "site"),
        ("Lager-Nr.", "site"), ("Magasin", "site"), ("Centro", "site"), ("Point de vente", "site"),
        ("storename", "site"), ("StoreID", "site"), ("Item Location", "site"), ("Sales Location", "site"),
        ("Locations", "site"),
        ("Kode Barang", "part"), ("nama_barang", "part"), ("KODEBARANG", "part"), ("Mã hàng", "part"),
        ("Tên sản phẩm", "part"), ("MaHang", "part"), ("Código de producto", "part"), ("Artículo", "part"),
        ("Artikelnummer", "part"), ("Teilenummer", "part"), ("Artikelbezeichnung", "part"), ("Code article", "part"),
        ("Référence", "part"),
        ("Part No.", "part"), ("Item #", "part"), ("StockCode", "part"), ("Warehouse Part No", "part"),
        ("P/N", "part"),
        ("Tanggal", "date"), ("Tgl.", "date"), ("Ngày bán", "date"), ("ngay", "date"),
        ("Fecha de venta", "date"),
        ("Bestelldatum", "date"), ("Date de commande", "date"), ("Sales Date", "date"), ("Demand Date", "date"),
        ("invoicedate", "date"), ("Bulan", "date"), ("Tháng", "date"), ("Week", "date"), ("Periode", "date"),
        ("Jumlah", "quantity"), ("Jumlah Barang", "quantity"), ("Số lượng", "quantity"), ("SoLuong", "quantity"),
        ("so luong", "quantity"), ("Cantidad vendida", "quantity"), ("Menge [ST]", "quantity"), ("Qté", "quantity"),
        ("Stückzahl", "quantity"), ("Total Qty (pcs)", "quantity"), ("fact.sales_qty", "quantity"),
        ("QTYs", "quantity"),
        ("[Measures].[Qty]", "quantity"), ("Sum of Quantity", "quantity"), ("UnitsSold", "quantity"),
        ("Store Sales", "quantity"), ("Item Count", "quantity"), ("Weekly_Sales", "quantity"), ("Q'ty", "quantity"),
    ],
)  # fmt: skip
def test_headings_of_six_languages_speak_for_what_their_cells_are(heading, ours):
    """With accents or without, joined or apart, with units, prefixes, plurals; not for what the cells are of."""
    spoken = spoken_for(heading)
    assert spoken is not None
    assert spoken.ours == ours
    assert spoken.strength > 1


@pytest.mark.parametrize(
    "heading",
    [
        "Harga", "Unit Price", "Jumlah Harga", "Thành tiền", "Doanh thu", "Umsatz", "Betrag", "Stock on hand",
        "Category",
        "Item Group", "Sales Rep", "Qty Returned", "Kode Transaksi", "Mã đơn hàng", "Invoice No", "Customer",
        "Unnamed: 0",
        "Đơn vị", "Product Category", "Keterangan", "n", "wo", "Candidate", "Partner",
    ],
)  # fmt: skip
def test_headings_of_other_things_speak_for_nothing(heading):
    spoken = spoken_for(heading)
    assert spoken is None or spoken.strength < 1


def cells(**columns):
    """A table of ten rows; text and numbers are repeated."""
    return pd.DataFrame({name: value if isinstance(value, list) else [value] * 10 for name, value in columns.items()})


PIECES, MONEY = list(range(10)), [9.99 * number for number in range(10)]
PLAIN = {"Store Name": "Kendari", "SKU": "P1", "Tanggal": "2025-07-01"}


@pytest.mark.parametrize(
    ("columns", "ours", "taken", "told"),
    [
        ({**PLAIN, "Amount": MONEY, "Qty Sold": PIECES}, "quantity", "Qty Sold", "(beside 'Amount')"),
        ({**PLAIN, "Sales": MONEY, "Units": PIECES}, "quantity", "Units", "(beside 'Sales')"),
        ({**PLAIN, "Sales": MONEY}, "quantity", "Sales", "its cells have fractions, as money has"),
        ({**PLAIN, "Amount": PIECES}, "quantity", "Amount", "for want of a clearer heading"),
        ({"Country": "ID", **PLAIN, "Qty": PIECES}, "site", "Store Name", "(beside 'Country')"),
        ({"Store Name": "K", "Store ID": 1, **PLAIN, "Qty": PIECES}, "site", "Store ID", "(beside 'Store Name')"),
        ({"Item Description": "Bolt", **PLAIN, "Qty": PIECES}, "part", "SKU", "(beside 'Item Description')"),
        ({"Product": "Bolt", **PLAIN, "Product ID": 7, "Qty": PIECES}, "date", "Tanggal", None),
        ({**PLAIN, "Ship Date": "2025-08-01", "Qty": PIECES}, "date", "Tanggal", "(beside 'Ship Date')"),
        ({**PLAIN, "quantity": PIECES, "Qty Sold": PIECES}, "quantity", "quantity", None),
        (
            {"Cabang": "K", "SKU": "P", "Hari ini": "x", "Kapan": "2025-07-01", "Qty": PIECES},
            "date",
            "Kapan",
            "no other",
        ),
    ],
)
def test_a_sure_choice_beside_another_is_told(columns, ours, taken, told):
    if "Product ID" in columns:
        del columns["SKU"]
    chosen = choose_columns(cells(**columns))
    assert chosen.names[ours] == taken
    notes = [note for note in chosen.notes if repr(taken) in note]
    assert notes == [] if told is None else told in notes[0]


@pytest.mark.parametrize(
    ("columns", "asked"),
    [
        ({**PLAIN, "Qty Ordered": PIECES, "Qty Shipped": PIECES}, "quantity may be 'Qty Ordered' or 'Qty Shipped'"),
        ({**PLAIN, "Qty": PIECES, "Units": PIECES}, "quantity may be 'Qty' or 'Units'"),
        ({**PLAIN, "Warehouse": "W", "Qty": PIECES}, "site may be 'Store Name' or 'Warehouse'"),
        ({**PLAIN, "Order Date": "2025-07-01", "Qty": PIECES}, "date may be 'Tanggal' or 'Order Date'"),
    ],
)
def test_a_near_tie_is_asked_about(columns, asked):
    """With the names of both, and what decides it; which then does."""
    with pytest.raises(UnknownColumns, match=f"{asked}: say which with columns=") as told:
        choose_columns(cells(**columns))
    ours = asked.split()[0]
    assert told.value.found[ours] is None
    name = asked.split("'")[1]
    assert choose_columns(cells(**columns), {ours: name}).names[ours] == name


def test_money_alone_is_not_taken_for_pieces():
    with pytest.raises(UnknownColumns, match="must have a 'quantity' column"):
        choose_columns(cells(**PLAIN, Amount=[f"${number}.50" for number in range(10)]))


@pytest.mark.parametrize(
    "heading", ["Sales Order", "Sales Document", "Sales No.", "Orders ID", "Penjualan No", "Ventas ID"]
)
def test_the_number_of_a_document_is_no_quantity(heading):
    spoken = spoken_for(heading)
    assert spoken is None or spoken.ours != "quantity" or spoken.strength < 1


@pytest.mark.parametrize("other", ["Ordered", "Delivered", "Invoiced", "Consumed"])
def test_what_was_ordered_is_not_what_was_shipped(other):
    table = pd.DataFrame({"site": ["B"], "part": ["P"], "date": ["2025-07-01"], other: [3], "Shipped": [2]})
    with pytest.raises(UnknownColumns, match=f"quantity may be {other!r} or 'Shipped'"):
        choose_columns(table)
