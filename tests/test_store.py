"""Files kept between processes: read back whole or not at all, and never from a folder that others may write to."""

import os
import threading
from pathlib import Path

import pytest

from graphopt import store
from graphopt.errors import StoreWarning


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "graphopt" / "things"


def test_what_is_written_is_read_and_the_folder_is_private(place: Path) -> None:
    assert store.read("things", "a") is None
    for data in (b"", b"one", bytes(range(256)) * 999):
        store.write("things", "a", data)
        assert store.read("things", "a") == data
    assert place.stat().st_mode & 0o777 == 0o700
    assert sorted(p.name for p in place.iterdir()) == ["a"]


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d[:20], lambda d: b"", lambda d: d[:-1] + b"?"])
def test_damage_is_a_miss_with_a_warning(place: Path, damage: object) -> None:
    store.write("things", "a", b"something")
    (place / "a").write_bytes(damage((place / "a").read_bytes()))
    with pytest.warns(StoreWarning, match="is damaged and will be made anew"):
        assert store.read("things", "a") is None
    store.write("things", "a", b"anew")
    assert store.read("things", "a") == b"anew"


def test_a_folder_that_others_may_write_to_is_not_used(place: Path) -> None:
    store.write("things", "a", b"mine")
    os.chmod(place, 0o770)
    with pytest.warns(StoreWarning, match="chmod 700"):
        assert store.read("things", "a") is None
    with pytest.warns(StoreWarning):
        store.write("things", "b", b"not written")
    os.chmod(place, 0o700)
    assert store.read("things", "a") == b"mine" and store.read("things", "b") is None


def test_without_a_folder_nothing_is_kept_and_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    store.write("things", "a", b"lost")
    assert store.read("things", "a") is None


def test_the_longest_unread_goes_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LIMIT", 3500)
    for number, name in enumerate("abc"):
        store.write("things", name, bytes(1000))
        os.utime(place / name, (number, number))
    store.read("things", "a")
    store.write("things", "d", bytes(1000))
    assert sorted(p.name for p in place.iterdir()) == ["a", "c", "d"]


def test_readers_beside_writers_never_see_half_of_a_file() -> None:
    values = [bytes([n]) * 100_000 for n in range(4)]
    store.write("things", "a", values[0])
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(store.read("things", "a"))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        for value in values:
            store.write("things", "a", value)
    stop.set()
    reader.join()
    assert seen <= set(values)
