"""The folder of generated files: content-addressed, written whole or not at all, checked when read.

An entry is a folder of files beside a ``manifest.json`` with their checksums. It is
prepared under a temporary name and renamed into place under a lock, so that a process killed at any
moment leaves either nothing or a whole entry, and two processes that want the same one write it once.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from ..errors import StoreError

Files = Mapping[str, str | bytes]
"""What an entry consists of, by file name: texts, which are kept in UTF-8, and binary files."""

MANIFEST = "manifest.json"
_FORMAT = 1
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_ABANDONED_AFTER = 3600.0  # seconds; an unfinished entry this old belongs to a process that died
_LOCK_TIMEOUT = 600.0


def default_folder() -> Path:
    """``$RECURRA_CACHE``, else the user's cache folder of this platform."""
    return Path(os.environ.get("RECURRA_CACHE") or user_cache_dir("recurra"))


def fingerprint(name: str, *parts: str) -> str:
    """The key of an entry: the spec's name and a hash of everything that decides the files.

    >>> fingerprint("lstm", "source text", "options") == fingerprint("lstm", "source text", "options")
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return f"{name}-{digest.hexdigest()[:20]}"


class Store:
    """Generated files by key, in ``folder`` (default: :func:`default_folder`)."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()

    def get_or_create(self, key: str, files: Callable[[], Files]) -> Path:
        """The folder of one entry, written first if it is missing, incomplete or corrupt.

        ``key`` becomes the folder's name (see :func:`fingerprint`). ``files`` gives each file by name and
        is called only when the entry must be written; it may take minutes, during which other processes
        that want the same entry wait, and what it raises passes through, except that an OSError is taken
        for one of the cache. A cache that is read-only is replaced by a temporary folder for this process,
        with a warning. StoreError if there is no room or the lock cannot be taken.
        """
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", key) or key.startswith("."):
            raise ValueError(f"{key!r} is no key: use letters, digits, '_', '-' and '.'")
        entry = self.folder / key
        if is_intact(entry):
            return entry
        try:
            return self._create(self.folder, key, files)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise _explained(self.folder, error) from error
        fallback = _fallback_folder(self.folder)
        entry = fallback / key
        return entry if is_intact(entry) else self._create(fallback, key, files)

    def entries(self) -> list[Path]:
        """The entries that are there, whole or not, by name."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith("."))

    def _create(self, folder: Path, key: str, files: Callable[[], Files]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        entry = folder / key
        try:
            with FileLock(folder / f".{key}.lock", timeout=_LOCK_TIMEOUT):
                if not is_intact(entry):  # another process may have been faster
                    _remove_abandoned(folder)
                    _write(entry, files())
        except Timeout as error:
            raise StoreError(f"{error.lock_file} is locked by another process; remove it if none is running") from error
        return entry


def is_intact(entry: Path) -> bool:
    """Whether every file that the entry's manifest names is there, unchanged."""
    try:
        manifest = json.loads((entry / MANIFEST).read_bytes())
        return manifest["format"] == _FORMAT and all(
            _checksum((entry / name).read_bytes()) == checksum for name, checksum in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _write(entry: Path, files: Files) -> None:
    """Writes a whole entry beside its place, then moves it there."""
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=entry.parent))
    try:
        checksums = {}
        for name, content in files.items():
            if Path(name).name != name or name == MANIFEST:
                raise ValueError(f"{name!r} is not a plain file name")
            data = content.encode() if isinstance(content, str) else content
            (draft / name).write_bytes(data)
            checksums[name] = _checksum(data)
        (draft / MANIFEST).write_text(json.dumps({"format": _FORMAT, "files": checksums}, indent=1))
        draft.chmod(0o755)
        if entry.exists():  # corrupt: out of the way first, since folders are not replaced atomically
            discarded = Path(tempfile.mkdtemp(prefix=".draft-", dir=entry.parent))
            os.replace(entry, discarded / entry.name)
            shutil.rmtree(discarded, ignore_errors=True)
        os.replace(draft, entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _explained(folder: Path, error: OSError) -> OSError:
    if isinstance(error, StoreError):
        return error
    return StoreError(
        f"generated files cannot be written to {folder}: {error.strerror or error}; "
        "make room there or set RECURRA_CACHE to another folder"
    )


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _remove_abandoned(folder: Path) -> None:
    for draft in folder.glob(".draft-*"):
        try:
            old = time.time() - draft.stat().st_mtime > _ABANDONED_AFTER
        except OSError:
            continue
        if old:
            shutil.rmtree(draft, ignore_errors=True)


@cache
def _fallback_folder(folder: Path) -> Path:
    replacement = Path(tempfile.mkdtemp(prefix="recurra-"))
    atexit.register(shutil.rmtree, replacement, ignore_errors=True)
    warnings.warn(
        f"{folder} is read-only: generated files go to {replacement} and are lost when this process ends; "
        "set RECURRA_CACHE to a folder that can be written",
        RuntimeWarning,
        stacklevel=5,
    )
    return replacement
