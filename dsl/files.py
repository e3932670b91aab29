"""Reading `.rec` files: what can be wrong before the first token."""

from __future__ import annotations

from pathlib import Path

from .source import Source

MAX_BYTES = 1 << 20
"""No specification is larger than this; what is was named by mistake."""


def read_source(path: str | Path) -> Source:
    """The text of a `.rec` file (UTF-8, a byte order mark is skipped).

    OSError if it cannot be read, ValueError if it is no text; both name the file.
    """
    path = Path(path)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    return Source(str(path), decode(data, str(path)))


def decode(data: bytes, name: str) -> str:
    """Bytes as text; ValueError that names the file if they are none, or far too many."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name}: more than {MAX_BYTES >> 20} MB; this is no recurrence")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x})") from None
    if "\0" in text:
        raise ValueError(f"{name}: a binary file (byte {data.index(0)} is 0)")
    return text
