"""A file arrives whole and checked, or not at all; what an interruption leaves is continued."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from lamella.errors import FetchError, InputError
from lamella.remote import download as module
from lamella.remote.download import Fetched, Remote, fetch
from remote.file_server import Host, serving

CONTENT = np.random.default_rng(0).bytes(1_200_007)
OTHER = np.random.default_rng(1).bytes(len(CONTENT))
PART = ".model.pt.part"


def model(*addresses: str) -> Remote:
    return Remote("M", "model.pt", addresses, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start():
    """Start a server; all end with the test."""
    with ExitStack() as stack:
        yield lambda host: stack.enter_context(serving(host))


def left(folder: Path) -> set[str]:
    """What a fetch leaves behind, the lock aside."""
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_whole_file_arrives_with_its_name_and_nothing_else(start, tmp_path):
    host = start(Host(CONTENT))
    seen: list[tuple[int, int | None]] = []
    result = fetch(model(host.url), tmp_path / "new" / "folder", on_bytes=lambda *state: seen.append(state))
    assert result == Fetched(
        tmp_path / "new" / "folder" / "model.pt", len(CONTENT), False, hashlib.sha256(CONTENT).hexdigest()
    )
    assert result.path.read_bytes() == CONTENT
    assert left(result.path.parent) == {"model.pt"}
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(seen) == seen


def test_file_that_is_there_is_not_fetched_again(start, tmp_path):
    host = start(Host(CONTENT))
    (tmp_path / "model.pt").write_bytes(CONTENT)
    assert fetch(model(host.url), tmp_path).was_there
    assert host.asked == []


@pytest.mark.parametrize("etag", ['"first"', 'W/"weak"', None])
def test_cut_connection_is_taken_up_where_it_ended(start, tmp_path, etag):
    host = start(Host(CONTENT, etag=etag, cuts=[400_000, 300_001]))
    assert fetch(model(host.url), tmp_path).path.read_bytes() == CONTENT
    assert [request.get("Range") for request in host.asked] == [None, "bytes=400000-", "bytes=700001-"]
    assert [request.get("If-Range") for request in host.asked[1:]] == ['"first"' if etag == '"first"' else None] * 2
    assert host.sent == len(CONTENT)


def test_next_command_goes_on_where_the_last_one_gave_up(start, tmp_path):
    with serving(Host(CONTENT, cuts=[500_000, 0, 0, 0])) as host:
        with pytest.raises(FetchError, match=r"cut after 0\.5 of 1\.2 MB.*0\.5 MB are kept"):
            fetch(model(host.url), tmp_path)
        assert left(tmp_path) == {PART, f"{PART}.origin"}
    again = start(Host(CONTENT))
    assert fetch(model(again.url), tmp_path).path.read_bytes() == CONTENT
    assert again.sent == len(CONTENT) - 500_000
    assert left(tmp_path) == {"model.pt"}


def test_host_that_ignores_ranges_sends_the_file_from_the_beginning(start, tmp_path):
    (tmp_path / PART).write_bytes(CONTENT[:500_000])
    host = start(Host(CONTENT, ranges=False))
    assert fetch(model(host.url), tmp_path).path.read_bytes() == CONTENT
    assert host.asked[0]["Range"] == "bytes=500000-"
    assert host.sent == len(CONTENT)


def test_host_that_ignores_ranges_and_always_cuts_is_given_up(start, tmp_path):
    host = start(Host(CONTENT, ranges=False, cuts=[500_000] * 20))
    with pytest.raises(FetchError, match="connection was cut"):
        fetch(model(host.url), tmp_path)
    assert len(host.asked) < 8


def test_offer_that_changed_meanwhile_is_fetched_from_the_beginning(start, tmp_path):
    host = start(Host(OTHER, etag='"old"', cuts=[300_000, 0, 0, 0]))
    with pytest.raises(FetchError):
        fetch(model(host.url), tmp_path)
    host.content, host.etag = CONTENT, '"new"'
    assert fetch(model(host.url), tmp_path).path.read_bytes() == CONTENT
    assert host.asked[-1]["If-Range"] == '"old"'


def test_wrong_beginning_costs_time_and_nothing_else(start, tmp_path):
    (tmp_path / PART).write_bytes(OTHER[:300_000])
    host = start(Host(CONTENT))
    assert fetch(model(host.url), tmp_path).path.read_bytes() == CONTENT
    assert [request.get("Range") for request in host.asked] == ["bytes=300000-", None]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5])
def test_part_that_is_as_long_as_the_file_or_longer_ends_well(start, tmp_path, size):
    (tmp_path / PART).write_bytes((OTHER + OTHER)[:size])
    host = start(Host(CONTENT))
    assert fetch(model(host.url), tmp_path).path.read_bytes() == CONTENT


def test_complete_part_needs_no_network(tmp_path):
    (tmp_path / PART).write_bytes(CONTENT)
    assert fetch(model("https://nowhere.invalid/model.pt"), tmp_path).path.read_bytes() == CONTENT


def test_wrong_bytes_are_refused_and_not_kept(start, tmp_path):
    host = start(Host(OTHER))
    with pytest.raises(
        FetchError, match=r"M could not be fetched .*what it sent is not the published file \(sha256 .*--from"
    ):
        fetch(model(host.url), tmp_path)
    assert left(tmp_path) == set()


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b""])
def test_file_of_another_size_is_refused(start, tmp_path, content):
    host = start(Host(content))
    with pytest.raises(FetchError, match="not the published file"):
        fetch(model(host.url), tmp_path)
    assert left(tmp_path) == set()


def test_length_that_is_not_kept_is_a_cut_connection(start, tmp_path):
    host = start(Host(CONTENT, claimed=len(CONTENT) + 1000, ranges=False))
    with pytest.raises(FetchError, match=r"cut after 1\.2 of 1\.2 MB"):
        fetch(model(host.url), tmp_path)
    assert not (tmp_path / "model.pt").exists()


def test_file_without_an_announced_length_arrives_too(start, tmp_path):
    host = start(Host(CONTENT, chunked=True))
    seen: list[int | None] = []
    fetch(model(host.url), tmp_path, on_bytes=lambda done, total: seen.append(total))
    assert set(seen) == {None}


def test_more_than_fits_on_the_disk_is_refused_before_it_comes(start, tmp_path, monkeypatch):
    host = start(Host(CONTENT, claimed=10**16))
    with pytest.raises(InputError, match=r"10000000000.0 MB are to come .* --to .*LAMELLA_CACHE"):
        fetch(model(host.url), tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=700_000))
    host.claimed = None
    with pytest.raises(InputError, match=r"1\.2 MB are to come and 0\.7 MB are free"):
        fetch(model(host.url), tmp_path)
    (tmp_path / PART).write_bytes(CONTENT[:600_000])
    assert fetch(model(host.url), tmp_path).path.read_bytes() == CONTENT, "what is there already needs no room"


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (401, 1), (503, module.ATTEMPTS)])
def test_refusals_are_told_and_only_busy_hosts_asked_again(start, tmp_path, status, requests):
    host = start(Host(CONTENT, status=status))
    with pytest.raises(FetchError, match=f"it answers {status} "):
        fetch(model(host.url), tmp_path)
    assert len(host.asked) == requests


def test_mirrors_are_tried_in_order_and_continue_each_other(start, tmp_path):
    hosts = [Host(CONTENT, status=404), Host(OTHER), Host(CONTENT, cuts=[700_000, 0, 0, 0]), Host(CONTENT), Host(CONTENT)]
    notes: list[str] = []
    addresses = [start(host).url for host in hosts]
    assert fetch(model(*addresses), tmp_path, on_note=notes.append).path.read_bytes() == CONTENT
    assert [len(host.asked) for host in hosts] == [1, 1, 4, 1, 0]
    assert hosts[3].sent == len(CONTENT) - 700_000
    assert ["404" in notes[0], "not the published" in notes[1], "cut" in notes[2], len(notes)] == [True, True, True, 3]


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    def offline(*arguments: object, **options: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.create_connection", offline)
    with pytest.raises(FetchError) as caught:
        fetch(model("https://a.example/model.pt", "https://b.example/model.pt"), tmp_path)
    message = str(caught.value)
    assert "a.example: Network is unreachable; b.example: Network is unreachable" in message
    for advice in ("HTTPS_PROXY", "--from", "https://a.example/model.pt on another machine", str(tmp_path / "model.pt")):
        assert advice in message


def test_redirects_are_followed_and_never_out_of_encryption(start, tmp_path):
    host = start(Host(CONTENT))
    first = start(Host(b"", redirect=host.url))
    (tmp_path / PART).write_bytes(CONTENT[:1000])
    assert fetch(model(first.url), tmp_path).path.read_bytes() == CONTENT
    assert host.asked[0]["Range"] == "bytes=1000-"
    guard = module._StayEncrypted()
    request = module.urllib.request.Request("https://a.example/x")
    with pytest.raises(OSError, match="without encryption"):
        guard.redirect_request(request, None, 302, "Found", {}, "http://a.example/y")
    assert guard.redirect_request(request, None, 302, "Found", {}, "https://b.example/y").full_url == "https://b.example/y"


def test_redirect_without_end_is_told_in_one_plain_line(start, tmp_path):
    host = start(Host(b""))
    host.redirect = host.url
    notes: list[str] = []
    with pytest.raises(FetchError, match="infinite loop") as caught:
        fetch(model(host.url), tmp_path, on_note=notes.append)
    assert str(caught.value).isprintable()
    assert all(note.isprintable() for note in notes)


def test_address_given_by_hand_replaces_the_known_ones(start, tmp_path):
    known, other = start(Host(CONTENT)), start(Host(CONTENT))
    fetch(model(known.url), tmp_path, source=other.url)
    assert (len(known.asked), len(other.asked)) == (0, 1)
    for bad in ("file:///etc/hosts", "model.pt", "ftp://a/b", "https://"):
        with pytest.raises(InputError, match="no address"):
            fetch(model(known.url), tmp_path, source=bad)


def test_other_file_of_that_name_is_kept_unless_told_otherwise(start, tmp_path):
    host = start(Host(CONTENT))
    mine = tmp_path / "model.pt"
    mine.write_bytes(b"mine")
    with pytest.raises(FetchError, match=r"model.pt: it is there but is not the published M .*--overwrite"):
        fetch(model(host.url), tmp_path)
    assert mine.read_bytes() == b"mine"
    host.status = 404
    with pytest.raises(FetchError, match="404"):
        fetch(model(host.url), tmp_path, overwrite=True)
    assert mine.read_bytes() == b"mine", "replaced only by the right one"
    host.status = 200
    assert fetch(model(host.url), tmp_path, overwrite=True).path.read_bytes() == CONTENT


def test_folder_that_cannot_be_made_is_named(start, tmp_path):
    (tmp_path / "file").write_text("")
    host = start(Host(CONTENT))
    with pytest.raises(InputError, match=r"file/folder: cannot be written .* --to"):
        fetch(model(host.url), tmp_path / "file" / "folder")


PROGRAM = """
import sys
from pathlib import Path
from lamella.remote.download import Remote, fetch
result = fetch(Remote("M", "model.pt", (sys.argv[2],), f"sha256:{sys.argv[1]}"), Path(sys.argv[3]), on_note=print)
print("there" if result.was_there else "fetched")
"""


def process(address: str, folder: Path) -> subprocess.Popen[str]:
    arguments = [hashlib.sha256(CONTENT).hexdigest(), address, str(folder)]
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True)


def test_two_processes_fetch_once(start, tmp_path):
    host = start(Host(CONTENT, hold=threading.Event()))
    first = process(host.url, tmp_path)
    assert host.begun.wait(20)
    second = process(host.url, tmp_path)
    assert second.stdout is not None
    assert "waiting" in second.stdout.readline()
    host.hold.set()
    said = [each.communicate(timeout=20)[0] for each in (first, second)]
    assert said == ["fetched\n", "there\n"]
    assert len(host.asked) == 1
    assert (tmp_path / "model.pt").read_bytes() == CONTENT
    assert left(tmp_path) == {"model.pt"}


def test_killed_process_leaves_what_the_next_one_continues(start, tmp_path):
    host = start(Host(CONTENT, hold=threading.Event()))
    first = process(host.url, tmp_path)
    assert host.begun.wait(20)
    while not (tmp_path / PART).exists() or (tmp_path / PART).stat().st_size < 250_000:
        assert first.poll() is None
    first.kill()
    first.communicate()
    host.hold.set()
    kept = (tmp_path / PART).stat().st_size
    again = start(Host(CONTENT, etag=None))
    assert fetch(model(again.url), tmp_path).path.read_bytes() == CONTENT
    assert again.sent == len(CONTENT) - kept


def unknown(*addresses: str) -> Remote:
    """The same file where nobody knows its checksum."""
    return model(*addresses)._replace(checksum=None)


def test_md5_is_a_checksum_where_nothing_better_is_published(start, tmp_path):
    host = start(Host(CONTENT))
    right = model(host.url)._replace(checksum=f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    assert fetch(right, tmp_path / "a").sha256 == hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(FetchError, match=r"not the published file \(md5 .* instead of 00000000"):
        fetch(model(host.url)._replace(checksum="md5:" + "0" * 32), tmp_path / "b")


def test_known_size_is_checked_where_no_checksum_is(start, tmp_path):
    host = start(Host(CONTENT))
    assert fetch(unknown(host.url)._replace(size=len(CONTENT)), tmp_path / "a").size == len(CONTENT)
    with pytest.raises(FetchError, match=f"has {len(CONTENT)} bytes instead of 5"):
        fetch(unknown(host.url)._replace(size=5), tmp_path / "b")


def test_without_a_checksum_only_the_same_offer_is_continued(start, tmp_path):
    host = start(Host(CONTENT, cuts=[400_000]))
    assert fetch(unknown(host.url), tmp_path / "a").path.read_bytes() == CONTENT
    assert [request.get("If-Range") for request in host.asked] == [None, '"first"']
    weak = start(Host(CONTENT, etag=None, cuts=[400_000]))
    assert fetch(unknown(weak.url), tmp_path / "b").path.read_bytes() == CONTENT
    assert [request.get("Range") for request in weak.asked] == [None, None]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / PART).write_bytes(OTHER[:300_000])
    assert fetch(unknown(start(Host(CONTENT)).url), tmp_path / "c").path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (Host(b"<html>Please log in</html>", kind="text/html; charset=utf-8"), "web page"),
        (Host(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"), "Git LFS pointer"),
    ],
    ids=["login page", "LFS pointer"],
)
def test_what_stands_in_for_the_file_is_refused(start, tmp_path, host, words):
    with pytest.raises(FetchError, match=words):
        fetch(unknown(start(host).url), tmp_path)
    assert left(tmp_path) == set()
