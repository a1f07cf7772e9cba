"""analyze-csv finds the separator, the header and the encoding, or says what it assumed."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from eventjobs.demo.handlers import analyze_csv
from eventjobs.errors import InvalidInput, JobError
from tests.support.demo_jobs import Result, column, profile_of


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., Result]:
    """Profile a file with this content."""
    return partial(profile_of, tmp_path / "in put[1].csv")


def names(result: Result) -> list[str]:
    return [each["name"] for each in result["columns"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nname;qty;price\r\npen;3;1,50\r\nbook;1;12,00\r\n",
        "SEP=,\nname,qty,price\npen,3,1.5\nbook,1,12\n",
        "sep=\t\nname\tqty\tprice\npen\t3\t1.5\nbook\t1\t12\n",
        "sep=~\nname~qty~price\npen~3~1.5\nbook~1~12\n",
    ],
)
def test_excels_first_line_names_the_separator(
    text: str, encoding: str, profile: Callable[..., Result]
) -> None:
    """cpython#109644, rainbow_csv#108"""
    result = profile(text.encode(encoding))
    assert names(result) == ["name", "qty", "price"]
    assert (result["rows"], result["separator"]) == (2, text[4])


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("2024-01-01;1,50\n2024-01-02;2,75\n2024-01-03;10,00\n", 2),
        ("2020-01-01;1,50;x\n2020-01-02;2,50;y\n", 3),
        ("10;A.N.;;;73,00;-73,00\n11;B.N.;;;53,47;-53,47\n", 6),
    ],
)
def test_decimal_commas_do_not_win_over_the_separator(
    text: str, columns: int, profile: Callable[..., Result]
) -> None:
    """PapaParse#153, TableTool#34"""
    result = profile(text, header=False)
    assert (result["separator"], result["column_count"]) == (";", columns)


@pytest.mark.parametrize(
    ("text", "skipped"),
    [
        ("Report generated 2024-01-01\n\nname,age\nAnn,30\nBob,40\n", 2),
        ("# source: lab\n# v2\nname,age\nAnn,30\nBob,40\n", 2),
        ("   \nname,age\nAnn,30\nBob,40\n", 1),
        ("Sales,\n,\nname,age\nAnn,30\nBob,40\n", 0),  # rows of a table, as far as anyone can see
        ("name,age\nAnn,30\nBob,40\n", 0),
    ],
)
def test_titles_and_comments_above_the_header_are_skipped(
    text: str, skipped: int, profile: Callable[..., Result]
) -> None:
    """csvkit#336, qsv#260, PapaParse#489"""
    result = profile(text)
    assert result["skipped_lines"] == skipped
    assert any("Skipped" in note for note in result["notes"]) == (skipped > 0)
    if "Sales" not in text:
        assert names(result) == ["name", "age"]
        assert result["rows"] == 2


@pytest.mark.parametrize(
    "text",
    [
        "mpg,cyl\nMazda,21.0,6\nDatsun,22.8,4\nHornet,18.7,8\n",
        '"mpg","cyl"\n"Mazda RX4",21,6\n"Datsun",22.8,4\n"Hornet",18,8\n',
        "mpg\tcyl\nMazda\t21.0\t6\nDatsun\t22.8\t4\nHornet\t18.7\t8\n",
    ],
)
def test_a_header_that_is_one_name_short_names_the_columns_after_the_first(
    text: str, profile: Callable[..., Result]
) -> None:
    """R writes it for tables with row names. polars#1999, readr#762"""
    result = profile(text)
    assert names(result) == ["column_1", "mpg", "cyl"]
    assert column(result, "cyl")["numbers"]["max"] == 8
    assert "one name fewer" in result["notes"][0]
    assert result["rows"] == 3


def test_rows_that_are_short_or_long_do_not_hide_the_separator(
    profile: Callable[..., Result],
) -> None:
    for rows in ("1,2,3\n4,5\n6,7,8,9\n", "1,2,3\n4,5,6\nTotal\n", "1,2,3\n" * 50 + "1,2,3,4\n"):
        result = profile("a,b,c\n" + rows)
        assert (result["column_count"], result["skipped_lines"]) == (3, 0)
        assert result["rows"] == rows.count("\n")


CITIES = {
    "cp1250": ("nazwa,miasto", "Łukasz,Łódź\nŚwięty,Kraków\nGrażyna,Poznań"),
    "cp1251": ("имя,город", "Иван,Москва\nПётр,Казань\nЖук,Тверь"),  # noqa: RUF001
    "cp932": ("名前,都市", "処理,東京\n佐藤,大阪"),
    "gb18030": ("姓名,城市", "张三,北京\n李四,上海"),
    "big5": ("姓名,城市", "張三,臺北\n李四,高雄"),
    "cp949": ("이름,도시", "홍길동,서울\n김철수,부산"),
    "cp1252": ("nombre,año", "Peña,2020\nMuñoz,2021\nÁlvarez,1999"),
}


@pytest.mark.parametrize("encoding", CITIES)
def test_legacy_encodings_are_recognized_by_their_letters(
    encoding: str, profile: Callable[..., Result]
) -> None:
    header, rows = CITIES[encoding]
    result = profile(f"{header}\n{rows}\n".encode(encoding))
    assert (result["encoding"], names(result)) == (encoding, header.split(","))
    assert "not UTF-8" in result["notes"][0]


def test_the_letters_count_wherever_in_the_file_they_are(profile: Callable[..., Result]) -> None:
    text = "name,n\n" + "plain,1\n" * 20_000 + "Łódź,2\nŚwięty,3\nGrażyna Poznań,4\n"
    assert profile(text.encode("cp1250"))["encoding"] == "cp1250"


@pytest.mark.parametrize("encoding", ["cp1251", "windows-1251", "koi8-r", "CP1251"])
def test_an_encoding_that_is_given_is_used(encoding: str, profile: Callable[..., Result]) -> None:
    """csvbase#91, smoothcsv3#228"""
    text = "имя,n\nИнна,1\n"  # noqa: RUF001
    result = profile(text.encode(encoding), encoding=encoding)
    assert names(result) == ["имя", "n"]
    assert result["notes"] == []


@pytest.mark.parametrize("encoding", ["base64", "rot13", "nonsense", "zlib"])
def test_an_encoding_that_is_none_is_refused(encoding: str) -> None:
    with pytest.raises(InvalidInput):
        analyze_csv.parse({"encoding": encoding})


@pytest.mark.parametrize(
    ("content", "encoding", "replaced"),
    [
        ("name,n\n”quoted”,1\nÁgua,2\n".encode() * 50 + b"bad\xe9,3\n", "utf-8", 1),
        (b"\xef\xbb\xbfname,n\nbad\xe9,3\nmore and more text,4\n", "utf-8-sig", 1),
        ("größe,n\nMüller,1\nJäger,2\n".encode("cp1252") + b"caf\xe9 \x81,3\n", "cp1252", 1),
        ("a,b\n1,2\n3,half a character".encode("utf-16") + b"\x00\xd8", "utf-16", 1),
    ],
)
def test_a_few_odd_bytes_are_replaced_and_pointed_out(
    content: bytes, encoding: str, replaced: int, profile: Callable[..., Result]
) -> None:
    result = profile(content)
    assert result["encoding"] == encoding
    assert f"{replaced} characters are not valid in this encoding" in " ".join(result["notes"])


def test_an_encoding_that_does_not_fit_at_all_ends_the_job(profile: Callable[..., Result]) -> None:
    with pytest.raises(JobError, match="much of it is not valid utf-8"):
        profile("größe,übung\nMüller,1\n".encode("cp1252"), encoding="utf-8")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", [",", ";", "a,", '"', "a\n", ",\n", '"",', "sep=,\n", "\t|;,"])
def test_a_hostile_first_part_is_sniffed_in_bounded_time(
    piece: str, profile: Callable[..., Result]
) -> None:
    content = piece * (300_000 // len(piece))
    with suppress(JobError):
        assert len(profile(content, charts_max=0)["columns"]) <= 200
