import io

import pytest
import requests

from segedu.data import fetch
from segedu.data.fetch import Resuming
from segedu.errors import InputError

BODY = bytes(range(256)) * 4096


@pytest.fixture
def download(server, tmp_path):
    """Downloads /a of the server; gives what was written."""
    server.content["/a"] = BODY

    def run(*, most=10**9, progress=False):
        with requests.Session() as session:
            resuming = Resuming(tmp_path, session, most, progress)
            resuming(f"{server.address}/a", str(tmp_path / "out"))
        return (tmp_path / "out").read_bytes()

    return run


def test_an_undisturbed_download_is_one_request(download, server, tmp_path):
    assert download() == BODY
    assert server.asked == [("/a", None)]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_cut_download_asks_for_the_rest_only(download, server):
    server.cuts["/a"] = [294_912, 409_600]
    assert download() == BODY
    assert server.asked == [("/a", None), ("/a", "bytes=294912-"), ("/a", "bytes=704512-")]
    assert server.sent == len(BODY)


def test_what_arrived_is_kept_for_the_next_time(download, server):
    server.cuts["/a"] = [98_304] * 3
    with pytest.raises(fetch.BROKEN):
        download()
    assert download() == BODY
    assert server.asked[-1] == ("/a", "bytes=294912-")
    assert server.sent == len(BODY)


def test_a_server_that_sends_no_parts_sends_all_again(download, server):
    server.ranges = False
    server.cuts["/a"] = [294_912]
    assert download() == BODY
    assert server.asked == [("/a", None), ("/a", "bytes=294912-")]
    assert server.sent == 294_912 + len(BODY)


def test_a_download_that_was_complete_is_not_sent_again(download, server, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            download()
    assert download() == BODY
    assert server.sent == len(BODY)


def test_a_file_that_shrank_on_the_server_is_sent_again(download, server):
    server.cuts["/a"] = [294_912] * 3
    server.ranges = False
    with pytest.raises(fetch.BROKEN):
        download()
    server.ranges = True
    server.content["/a"] = b"short"
    assert download() == b"short"


def test_a_refusal_is_not_tried_again(download, server):
    del server.content["/a"]
    with pytest.raises(requests.HTTPError, match="404"):
        download()
    assert len(server.asked) == 1


def test_more_bytes_than_expected_are_given_up(download, tmp_path):
    with pytest.raises(InputError, match="sends more than the 70,000 bytes"):
        download(most=70_000)
    assert list(tmp_path.iterdir()) == []


def test_the_bar_counts_what_was_there_before(download, server, capsys):
    server.cuts["/a"] = [1 << 19]
    download(progress=True)
    assert "50%" in capsys.readouterr().err


def test_an_empty_file_is_a_file(download, server):
    server.content["/a"] = b""
    assert download() == b""


def test_a_connection_that_ends_early_without_a_word_is_taken_for_broken(
    download, monkeypatch, tmp_path
):
    """Older versions of urllib3 do not compare what arrived with what was promised."""

    def ends_early(*_, **__):
        answer = requests.Response()
        answer.status_code = 200
        answer.headers["Content-Length"] = "10"
        answer.raw = io.BytesIO(b"12345")
        return answer

    monkeypatch.setattr(requests.Session, "get", ends_early)
    with pytest.raises(requests.ConnectionError, match="broke"):
        download()
    assert not (tmp_path / "out").exists()


def test_an_endless_file_is_given_up_as_soon_as_there_are_too_many_bytes(download, monkeypatch):
    def endless(*_):
        yield from [b"0" * 400] * 3
        pytest.fail("went on after 1,200 of at most 1,000 bytes")

    monkeypatch.setattr(requests.Response, "iter_content", endless)
    with pytest.raises(InputError, match="sends more than the 1,000 bytes"):
        download(most=1000)
