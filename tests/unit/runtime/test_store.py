from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import pytest

from recurra.runtime.errors import StoreError
from recurra.runtime.store import cache as cache_module
from recurra.runtime.store.cache import Store, default_folder, fingerprint, is_intact

FILES = {"kernels.py": "X = 1\n", "kernels.py.map.json": '{"source": "a.rec", "lines": {}}'}


def never() -> dict[str, str]:
    raise AssertionError("the entry is there already")


def test_writes_once_and_readably(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "cache")
    entry = store.get_or_create("lstm-1", lambda: FILES)
    assert entry == tmp_path / "deep" / "cache" / "lstm-1"
    assert (entry / "kernels.py").read_text() == "X = 1\n"
    assert Store(store.folder).get_or_create("lstm-1", never) == entry
    assert store.entries() == [entry]


def test_keeps_binary_files_as_they_are(tmp_path: Path) -> None:
    data = bytes(range(256)) + b"\r\n"
    entry = Store(tmp_path).get_or_create("k", lambda: {"kernels.so": data, "kernels.cpp": "// \u2207\n"})
    assert (entry / "kernels.so").read_bytes() == data
    assert (entry / "kernels.cpp").read_bytes() == b"// \xe2\x88\x87\n"
    (entry / "kernels.so").write_bytes(data[:-1])
    assert not is_intact(entry)
    assert Store(tmp_path).get_or_create("k", lambda: {"kernels.so": data}) == entry and is_intact(entry)


def test_folder_comes_from_the_environment(cache: Path) -> None:
    assert default_folder() == cache == Store().folder


def test_fingerprint_tells_parts_apart() -> None:
    keys = {
        fingerprint("a", "x", "y"),
        fingerprint("a", "xy"),
        fingerprint("b", "xy"),
        fingerprint("a", "x", "", "y"),
    }
    assert len(keys) == 4 and all(key.startswith(("a-", "b-")) for key in keys)


@pytest.mark.parametrize("key", ["", "../x", ".hidden", "a/b", "a b"])
def test_refuses_keys_that_are_no_folder_names(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        Store(tmp_path).get_or_create(key, lambda: FILES)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../x.py", "a/b.py", "manifest.json"])
def test_refuses_file_names_that_leave_the_entry(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        Store(tmp_path).get_or_create("k", lambda: {name: ""})
    assert Store(tmp_path).entries() == []


def _truncate(entry: Path) -> None:
    (entry / "kernels.py").write_text("X =")


def _remove(entry: Path) -> None:
    (entry / "kernels.py").unlink()


def _spoil_manifest(entry: Path) -> None:
    (entry / "manifest.json").write_text('{"files":')


def _empty_manifest(entry: Path) -> None:
    (entry / "manifest.json").write_text("[]")


def _drop_manifest(entry: Path) -> None:
    (entry / "manifest.json").unlink()


@pytest.mark.parametrize("damage", [_truncate, _remove, _spoil_manifest, _empty_manifest, _drop_manifest])
def test_damaged_entries_are_rebuilt(tmp_path: Path, damage) -> None:
    store = Store(tmp_path)
    entry = store.get_or_create("k", lambda: FILES)
    damage(entry)
    assert not is_intact(entry)
    assert store.get_or_create("k", lambda: FILES) == entry
    assert is_intact(entry) and (entry / "kernels.py").read_text() == "X = 1\n"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".draft")] == []


def test_a_failing_generator_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> dict[str, str]:
        raise KeyError("boom")

    with pytest.raises(KeyError):
        Store(tmp_path).get_or_create("k", fail)
    assert Store(tmp_path).entries() == []
    assert is_intact(Store(tmp_path).get_or_create("k", lambda: FILES))


def test_read_only_cache_falls_back_to_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    mkdir = Path.mkdir

    def refuse(self: Path, *args, **kwargs) -> None:
        if folder in (self, *self.parents):
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    store = Store(folder)
    with pytest.warns(RuntimeWarning, match="read-only") as caught:
        entry = store.get_or_create("k", lambda: FILES)
    assert str(folder) in str(caught[0].message)
    assert is_intact(entry) and folder not in entry.parents
    with warnings.catch_warnings():  # the second time neither warns nor writes
        warnings.simplefilter("error")
        assert store.get_or_create("k", never) == entry


def test_entries_of_a_read_only_cache_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Store(tmp_path).get_or_create("k", lambda: FILES)
    monkeypatch.setattr(cache_module, "FileLock", None)  # nothing is locked, so nothing is written
    assert Store(tmp_path).get_or_create("k", never) == entry


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    """The kernel refuses to write more than 4 kB, as a full disk would."""
    script = f"""
        import resource, signal
        from pathlib import Path
        from recurra.runtime.store.cache import Store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        Store(Path({str(tmp_path)!r})).get_or_create("k", lambda: {{"big.py": "#" * 100_000}})
    """
    done = _python(script)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "StoreError" in last and str(tmp_path) in last and "RECURRA_CACHE" in last
    assert Store(tmp_path).entries() == []


def test_a_file_in_the_folders_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(StoreError, match="RECURRA_CACHE"):
        Store(tmp_path / "cache").get_or_create("k", lambda: FILES)


def test_threads_write_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def files() -> dict[str, str]:
        calls.append(1)
        time.sleep(0.1)
        return FILES

    threads = [threading.Thread(target=Store(tmp_path).get_or_create, args=("k", files)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1] and is_intact(tmp_path / "k")


def test_processes_write_once(tmp_path: Path) -> None:
    script = f"""
        import time
        from pathlib import Path
        from recurra.runtime.store.cache import Store, is_intact
        root = Path({str(tmp_path)!r})
        def files():
            with open(root / "calls", "a") as out:
                out.write("x")
            time.sleep(0.3)
            return {{"kernels.py": "X = 1\\n"}}
        entry = Store(root / "cache").get_or_create("k", files)
        assert is_intact(entry)
    """
    running = [_start(script) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert (tmp_path / "calls").read_text() == "x"


def test_a_killed_writer_leaves_a_usable_cache(tmp_path: Path) -> None:
    script = f"""
        import time
        from pathlib import Path
        from recurra.runtime.store import cache
        def slow(entry, files, write=cache._write):
            class Files(dict):
                def items(self):
                    yield "kernels.py", "X = 1\\n"
                    (Path({str(tmp_path)!r}) / "half-way").touch()
                    time.sleep(60)
            write(entry, Files())
        cache._write = slow
        cache.Store(Path({str(tmp_path)!r}) / "cache").get_or_create("k", dict)
    """
    process = _start(script)
    deadline = time.monotonic() + 30
    while not (tmp_path / "half-way").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    store = Store(tmp_path / "cache")
    assert store.entries() == []
    (draft,) = store.folder.glob(".draft-*")
    os.utime(draft, (0, 0))  # long ago: it is swept up
    assert is_intact(store.get_or_create("k", lambda: FILES))
    assert list(store.folder.glob(".draft-*")) == []


def _start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stderr=subprocess.PIPE, text=True)


def _python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
