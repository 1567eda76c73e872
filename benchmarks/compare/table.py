"""The tidy table: one row for each score, with everything that is needed to measure it again."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from captum_pullback.outputs import replacing

SUFFIXES = (".parquet", ".csv", ".gz")

#: What a row says: of which network (and which weights), photograph, method, metric and seed this
#: is the value, and what there is to note.
SCORES = ("network", "checkpoint", "image", "method", "metric", "note", "seed", "value")

#: And with what it was measured.
PROVENANCE = (
    "device", "captum_pullback", "captum", "torch", "torchvision", "python", "command",
)  # fmt: skip

_ROWS_AT_ONCE = 100_000


def write(path: Path, rows: Iterable[tuple[Any, ...]], provenance: Mapping[str, str]) -> int:
    """Writes a table, holding only some of its rows in memory; it is there whole or not at all.

    Args:
        path: Ends in .parquet, .csv or .csv.gz.
        rows: As `SCORES`.
        provenance: What is the same in all rows: as `PROVENANCE`.

    Returns:
        The number of rows.
    """
    count = 0
    with ExitStack() as stack:
        add = _writer(path, stack)
        held: list[tuple[Any, ...]] = []
        for row in rows:
            held.append(row)
            if len(held) == _ROWS_AT_ONCE:
                add(_frame(held, provenance))
                count += len(held)
                held = []
        add(_frame(held, provenance))
        return count + len(held)


def read(path: Path) -> pd.DataFrame:
    """Reads a table that `write` wrote.

    Raises:
        ValueError: It is no such table.
    """
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
    else:
        # Numbers as text first: Python reads them exactly, pandas not in every version.
        frame = pd.read_csv(path, keep_default_na=False, dtype=str)
    missing = [name for name in SCORES if name not in frame]
    if missing:
        raise ValueError(f"{path} is no table of scores: it has no column {', '.join(missing)}")
    frame["value"] = frame["value"].map(float)
    return frame.astype({"seed": int})


def _frame(rows: list[tuple[Any, ...]], provenance: Mapping[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(SCORES))
    for name in PROVENANCE:
        frame[name] = provenance[name]
    return frame


def _writer(path: Path, stack: ExitStack) -> Callable[[pd.DataFrame], None]:
    file: Any = stack.enter_context(replacing(path))
    if path.suffix == ".parquet":
        return _parquet_writer(file, stack)
    if path.suffix == ".gz":
        file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
    text = stack.enter_context(io.TextIOWrapper(file, encoding="utf-8", newline=""))
    header = [True]

    def add(frame: pd.DataFrame) -> None:
        frame.to_csv(text, index=False, header=header[0], na_rep="nan", lineterminator="\n")
        header[0] = False

    return add


def _parquet_writer(file: Any, stack: ExitStack) -> Callable[[pd.DataFrame], None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"seed": pa.int64(), "value": pa.float64()}
    schema = pa.schema([(n, kinds.get(n, pa.string())) for n in (*SCORES, *PROVENANCE)])
    options = {"compression": "zstd", "compression_level": 19}
    writer = stack.enter_context(pq.ParquetWriter(file, schema, **options))

    def add(frame: pd.DataFrame) -> None:
        writer.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False))

    return add
