"""The tidy table: one row for each score, with everything that is needed to measure it again."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
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


def write(path: Path, rows: Iterable[tuple[Any, ...]], provenance: Mapping[str, str]) -> int:
    """Writes a table; it is there whole or not at all.

    Args:
        path: Ends in .parquet, .csv or .csv.gz.
        rows: As `SCORES`.
        provenance: What is the same in all rows: as `PROVENANCE`.

    Returns:
        The number of rows.
    """
    frame = pd.DataFrame(rows, columns=list(SCORES)).astype({"seed": int, "value": float})
    frame = frame.assign(**{name: provenance[name] for name in PROVENANCE})
    with replacing(path) as file:
        if path.suffix == ".parquet":
            frame.to_parquet(file, index=False, compression="zstd", compression_level=19)
        else:
            text = frame.to_csv(index=False, na_rep="nan", lineterminator="\n").encode()
            file.write(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return len(frame)


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
