"""Text files, read whole: regular files, in UTF-8 unless their format has another encoding, of a size that memory takes."""

from __future__ import annotations

from pathlib import Path

from lfjax.errors import FileError
from lfjax.io.arrays import reading
from lfjax.io.claims import require_claim

COPIES = 8  # of a text that parsing it takes


def read_text(path: str | Path, kind: str, expected: str | None = None, encoding: str = "utf-8-sig") -> str:
    """A text file.

    Args:
        path: the file.
        kind: for messages: "STAR", "TOML".
        expected: see `lfjax.io.arrays.reading`.
        encoding: of the text; "latin-1" takes any bytes.

    Raises:
        FileError: the file is missing, no regular file, not in UTF-8 (the message tells the line), or larger than memory.
    """
    with reading(path, kind, expected):
        require_claim(path, COPIES * Path(path).stat().st_size, what="its text")
        whole = Path(path).read_bytes()
        try:
            return whole.decode(encoding)
        except UnicodeDecodeError as error:
            line = whole.count(b"\n", 0, error.start) + 1
            told = f"line {line}: byte {whole[error.start]:#04x} is not UTF-8 text"
            raise FileError(
                f"{path}: {told}; expected UTF-8: convert the file, for example with iconv -f LATIN1 -t UTF-8"
            ) from None
