"""Heading of a column: which of site, part, date and quantity it speaks for, and how strongly.

    heading --> words, without case and accents, joined ones apart --> the word that says what the cells are

    "Qty Sold"   "Jumlah Barang"   "Ngày bán"   "storename"   "Artikelbezeichnung"
     quantity     quantity          date         site, a name  part, a name

Words are of English, Indonesian, Vietnamese, Spanish, German and French. One of several parts is written with "_"
here, and is found in "Số lượng", "SoLuong" and "soluong" alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

# Words by what they speak for: sure, likely, weak.
_WORDS: Mapping[str, tuple[str, str, str]] = {
    "site": (
        """
        site location store warehouse branch plant depot shop outlet lokasi cabang gudang toko kho cua_hang chi_nhanh
        dia_diem kho_hang tienda sucursal almacen ubicacion bodega filiale standort lager werk niederlassung laden markt
        magasin entrepot agence etablissement emplacement whs loc wh dc facility distribution_center point_de_vente
        punto_de_venta centro_de_distribucion nha_kho sede local filial filiales centro
        """,
        """
        dealer distributor counter city kota thanh_pho ciudad stadt ville region wilayah area
        """,
        """
        country negara pais land pays state province provinsi provincia zone zona vung territory
        """,
    ),
    "part": (
        """
        part item sku product material article stockcode barang produk suku_cadang ma_hang ma_san_pham san_pham hang_hoa
        mat_hang vat_tu hang articulo producto referencia pieza repuesto artikel teil produkt materialnummer
        artikelnummer produit reference piece_detachee unique_id uniqueid mpn upc ean gtin asin isbn ma_vat_tu ma_sp
        spare teile teilenummer stock_code brg kd_brg art_nr mat_nr p_n
        """,
        """
        kode codigo ma ref cod clave
        """,
        """
        goods model
        """,
    ),
    "date": (
        """
        date ds tanggal tgl ngay fecha datum timestamp datetime calday
        """,
        """
        day week month period hari minggu bulan thang tuan dia semana mes tag woche monat jour semaine mois periode
        periodo kw calweek calmonth ky waktu yearmonth year_month
        """,
        """
        time zeit heure hora gio
        """,
    ),
    "quantity": (
        """
        quantity qty qnty quant demand y units units_sold pieces pcs kuantitas kuantiti terjual so_luong sl san_luong
        cantidad cant unidades demanda menge anzahl stueck stuck stk bedarf absatz absatzmenge stueckzahl quantite qte
        nombre_de_pieces demande unites permintaan nhu_cau qtd jml qta sold_units q_ty stuckzahl
        """,
        """
        ordered delivered consumed invoiced billed sales jumlah penjualan ventas ventes verkauf volume count sold
        consumption usage pemakaian vendidas vendus verkaufte verkaufe orders luong_ban ban issued shipped
        """,
        """
        amount value total unit
        """,
    ),
}
# Dates of other things than demand; money and what else is counted; what a part belongs to. They speak against it.
_AGAINST: Mapping[str, str] = {
    "site": """
        type group category manager size sqm open phone address email tax desc description
        """,
    "part": """
        category group family type class brand kategori kelompok jenis merk nhom loai grupo categoria tipo marca gruppe
        kategorie typ marke groupe categorie famille marque uom unit satuan don_vi unidad einheit unite size weight
        color colour price cost line count
        """,
    "date": """
        ship shipping shipped delivery delivered due expiry expiration created updated modified birth print load etl
        valid kirim giao entrega lieferung lieferdatum livraison faellig vencimiento open close launch return
        """,
    "quantity": """
        price harga cost biaya revenue turnover gia precio prix preis betrag umsatz importe montant nilai gia_tri
        thanh_tien doanh_thu ca usd idr eur vnd rp gbp tax ppn vat discount diskon money currency profit margin stock
        stok on_hand onhand inventory inventario bestand balance saldo ton_kho weight min max reorder lead return
        returned returns open backorder pct percent rank ratio customer org organization office rep channel person
        district
        """,
}
_CODE = frozenset(
    ["code", "kode", "id", "no", "nr", "num", "number", "nummer", "numero", "ma", "codigo", "cod", "clave", "key",
     "sku", "ref", "nomor", "so", "stockcode", "materialnummer", "artikelnummer", "ean", "upc"]
)  # fmt: skip
_NAME = frozenset(
    ["name", "nama", "ten", "nombre", "nom", "desc", "description", "descripcion", "deskripsi", "bezeichnung",
     "beschreibung", "designation", "libelle", "keterangan", "title", "text", "mo", "ta", "label", "names"]
)  # fmt: skip
_PLAIN_WORDS = """
    order sold sale total sum of the per in net gross daily weekly monthly transaction invoice posting document demand
    actual kauf pesan bayar transaksi faktur venta vente commande pedido verkaufs bestell rechnungs hoa_don mua don hang
    from to origin destination source target customer supplier unnamed index row
    """
# What a code is of, where it is no part's: "Kode Transaksi", "Mã đơn hàng".
_DOCUMENTS = frozenset(
    ["order", "invoice", "document", "doc", "transaction", "customer", "client", "transaksi", "faktur", "pesanan",
     "pelanggan", "pedido", "factura", "cliente", "don_hang", "hoa_don", "khach_hang", "phieu", "chung_tu", "kunde"]
)  # fmt: skip
STRENGTHS = (6.0, 4.0, 2.0)  # of a sure word, a likely one, a weak one
OWN = 10.0  # of one of our own four names
_AGAINST_IT = {"site": 6.0, "part": 6.0, "date": 4.0, "quantity": 6.0}
_NUMBERS = frozenset(["no", "nr", "id", "code", "numero", "nummer", "nomor", "key"])
_MONEY = frozenset(["amount", "value"])
_FIRST_WORDS = frozenset(["jumlah", "penjualan", "pemakaian", "ventas", "ventes", "total", "luong_ban", "ban"])
_WEEKS = frozenset(["week", "calweek", "kw", "woche", "semaine", "semana", "minggu", "tuan", "yearweek"])
_MONTHS = frozenset(["month", "calmonth", "monat", "mois", "mes", "meses", "bulan", "thang", "yearmonth", "year_month"])
_EXPLICIT_DATES = frozenset(_WORDS["date"][0].split())


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a heading speaks for.

    Attributes:
        ours: One of site, part, date and quantity.
        strength: How strongly: `OWN`, or about one of `STRENGTHS`, less what speaks against it.
        entity: The word that says so.
        facet: "code", "name" or "": what of it the column holds.
    """

    ours: str
    strength: float
    entity: str
    facet: str = ""


@lru_cache(maxsize=4096)
def spoken_for(heading: str) -> Spoken | None:
    """Return what a heading speaks for; None where no word of it is known.

    Of several words the one counts that names what the cells are: a date before all others; a quantity before what it
    is of; of a site and a part the last word.
    """
    words = _words_of(heading)
    if (joined := "".join(words)) in _WORDS:
        return Spoken(joined, OWN, joined)
    hits = {ours: hits for ours in _WORDS if (hits := _hits(ours, words))}
    if not hits:
        return None
    ours = _of_one(hits, words)
    strength, _, word = max(hits[ours])
    facet = "name" if _NAME & set(words) else "code" if _CODE & set(words) else ""
    against = sum(word in _AGAINST_WORDS[ours] for word in words)
    if ours == "part" and strength < STRENGTHS[0]:
        against += bool(_DOCUMENTS & set(words))
    if ours == "quantity" and strength < STRENGTHS[0]:  # "Sales Order", "Sales Document No."
        against += bool((_DOCUMENTS | _NUMBERS) & set(words))
    if ours == "quantity" and strength == STRENGTHS[1] and _MONEY & set(words):
        strength = STRENGTHS[2]
    strength -= _AGAINST_IT[ours] * against + 0.3 * min(sum(word not in _KNOWN for word in words), 3)
    if ours in ("site", "part"):
        strength += {"code": 0.5, "name": -1.5 if ours == "part" else -0.5}.get(facet, 0.0)
    return Spoken(ours, strength, word, facet)


def is_of_weeks(heading: str) -> bool:
    """Whether a heading says that its cells are weeks: KW, YearWeek, Semaine."""
    return bool(_WEEKS & set(_words_of(heading)))


def is_of_months(heading: str) -> bool:
    """Whether a heading says that its cells are months: Bulan, CalMonth, Mois."""
    return bool(_MONTHS & set(_words_of(heading)))


def _hits(ours: str, words: Sequence[str]) -> list[tuple[float, int, str]]:
    """Return strength, place and word of each word that speaks for it."""
    lexicon = _LEXICON[ours]
    return [(lexicon[word], at, word) for at, word in enumerate(words) if word in lexicon]


def _of_one(hits: Mapping[str, list[tuple[float, int, str]]], words: Sequence[str]) -> str:
    """Return what the cells are, of all that a heading speaks for: not what they are of."""
    if "date" in hits and (len(hits) == 1 or _EXPLICIT_DATES & set(words)):
        return "date"
    if "quantity" in hits:
        strength, at, word = max(hits["quantity"])
        if (
            set(hits) <= {"quantity", "date"}
            or strength == STRENGTHS[0]
            or at == len(words) - 1
            or (at == 0 and word in _FIRST_WORDS)
        ):
            return "quantity"
    left = [(strength, at, ours) for ours in ("site", "part", "date") for strength, at, _ in hits.get(ours, [])]
    return max(left)[2]


def _words_of(heading: str) -> list[str]:
    """Return a heading's words, without case and accents; joined ones apart: Số lượng, soLuong, soluong, so_luong."""
    plain = unicodedata.normalize("NFKD", heading.replace("đ", "d").replace("Đ", "D").replace("ß", "ss"))
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    words = re.findall(r"[^\W\d_]+", plain.lower())
    joined: list[str] = []
    at = 0
    while at < len(words):
        size = next((size for size in (3, 2) if "_".join(words[at : at + size]) in _KNOWN), 1)
        phrase = "_".join(words[at : at + size])
        joined += [phrase] if size > 1 else _apart(words[at])
        at += size
    return joined


@lru_cache(maxsize=4096)
def _apart(word: str) -> list[str]:
    """Return the known words that a word is put together from, or it alone: storename, qtysold, locations."""
    if word in _KNOWN:
        return [word]
    if word in _JOINED:
        return [_JOINED[word]]
    for plural in ("s", "es", "e", "en", "n"):
        if word.endswith(plural) and word.removesuffix(plural) in _KNOWN and len(word) > len(plural) + 2:
            return [word.removesuffix(plural)]
    best: list[list[str] | None] = [[], *([None] * len(word))]
    for end in range(2, len(word) + 1):
        for start in range(end - 1):
            piece, before = word[start:end], best[start]
            known = _JOINED.get(piece, piece)
            is_word = known in _KNOWN and (len(piece) > 2 or piece in _SHORT)
            if before is not None and is_word and len(before) + 1 < len(best[end] or word):
                best[end] = [*before, known]
    return best[-1] or [word]


def _lexicon() -> dict[str, dict[str, float]]:
    return {
        ours: {word: strength for words, strength in zip(groups, STRENGTHS, strict=True) for word in words.split()}
        for ours, groups in _WORDS.items()
    }


_LEXICON = _lexicon()
_AGAINST_WORDS = {ours: frozenset(words.split()) for ours, words in _AGAINST.items()}
_KNOWN = frozenset().union(*_LEXICON.values(), *_AGAINST_WORDS.values(), _CODE, _NAME, _DOCUMENTS, _PLAIN_WORDS.split())
_JOINED = {word.replace("_", ""): word for word in _KNOWN if "_" in word}
_SHORT = frozenset(["id", "no", "nr", "of", "wh", "dc", "so", "ma", "sp"])
