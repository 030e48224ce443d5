"""Tests for download, with a server in a thread of the test process."""

import concurrent.futures
import hashlib
import http.server
import os
import re
import threading

import pytest

from tasks import download

_CONTENT = hashlib.sha512(b'seed').digest() * 5000
_MD5 = hashlib.md5(_CONTENT).hexdigest()


class _Server(http.server.ThreadingHTTPServer):
  """Serves `_CONTENT`, well or badly.

  Attributes:
    ranges: Whether requests for a range are granted.
    send_at_most: How many bytes an answer has, whatever its header says.
    requested: The value of the header Range in every request so far.
  """

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.ranges = True
    self.send_at_most = len(_CONTENT)
    self.requested = []

  @property
  def url(self):
    return f'http://127.0.0.1:{self.server_port}/data.bin'


class _Handler(http.server.BaseHTTPRequestHandler):

  def do_GET(self):
    wanted = self.headers['Range']
    self.server.requested.append(wanted)
    start = 0
    if self.path != '/data.bin':
      self.send_error(404)
      return
    if wanted and self.server.ranges:
      start = int(re.fullmatch(r'bytes=(\d+)-', wanted).group(1))
      if start >= len(_CONTENT):
        self.send_error(416)
        return
      self.send_response(206)
    else:
      self.send_response(200)
    self.send_header('Content-Length', str(len(_CONTENT) - start))
    self.end_headers()
    self.wfile.write(_CONTENT[start : start + self.server.send_at_most])

  def do_HEAD(self):
    self.server.requested.append('HEAD')
    self.send_response(200 if self.path == '/data.bin' else 404)
    self.end_headers()

  def log_message(self, *args):
    pass


@pytest.fixture(name='server')
def _server(monkeypatch):
  monkeypatch.setenv('no_proxy', '*')
  with _Server() as server:
    # The polling interval is what a shutdown has to wait for.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


@pytest.fixture(name='path')
def _path(tmp_path):
  return os.fspath(tmp_path / 'new' / 'folder' / 'data.bin')


def _get(server, path, md5=_MD5):
  assert download.checked_file(path, url=server.url, md5=md5) == path
  with open(path, 'rb') as file:
    assert file.read() == _CONTENT
  assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def _start(path, content):
  """Leaves the traces of a download that was interrupted."""
  os.makedirs(os.path.dirname(path))
  with open(path + '.part', 'wb') as file:
    file.write(content)


def _error(kind, server, path, md5=_MD5):
  with pytest.raises(kind) as error:
    download.checked_file(path, url=server.url, md5=md5)
  message = str(error.value)
  assert '\n' not in message
  assert path in message
  assert server.url in message
  return message


def test_downloads_once(server, path, capsys):
  _get(server, path)
  _get(server, path)
  assert server.requested == [None]
  captured = capsys.readouterr()
  assert not captured.out
  assert 'data.bin: 100%' in captured.err


def test_broken_off_download_is_resumed(server, path):
  server.send_at_most = 100000
  message = _error(FileNotFoundError, server, path)
  assert f'100000 of {len(_CONTENT)} bytes' in message
  assert not os.path.exists(path)
  message = _error(FileNotFoundError, server, path)
  assert f'200000 of {len(_CONTENT)} bytes' in message
  server.send_at_most = len(_CONTENT)
  _get(server, path)
  assert server.requested == [None, 'bytes=100000-', 'bytes=200000-']


def test_server_without_ranges_sends_all_again(server, path):
  server.ranges = False
  _start(path, _CONTENT[:100000])
  server.send_at_most = 50000
  message = _error(FileNotFoundError, server, path)
  assert f'50000 of {len(_CONTENT)} bytes' in message
  server.send_at_most = len(_CONTENT)
  _get(server, path)
  assert server.requested == ['bytes=100000-', 'bytes=50000-']


def test_complete_part_needs_no_server(server, path):
  _start(path, _CONTENT)
  _get(server, path)
  assert not server.requested


def test_part_that_is_too_long_is_replaced(server, path):
  _start(path, _CONTENT + b'?')
  _get(server, path)
  assert server.requested == [f'bytes={len(_CONTENT) + 1}-', None]


def test_wrong_part_is_deleted(server, path):
  _start(path, b'?' * 1000)
  assert _MD5 in _error(ValueError, server, path)
  assert not os.listdir(os.path.dirname(path))
  _get(server, path)


def test_wrong_checksum_of_the_download(server, path):
  message = _error(ValueError, server, path, md5='0' * 32)
  assert f'{_MD5} instead of {"0" * 32}' in message
  assert not os.listdir(os.path.dirname(path))


def test_wrong_checksum_of_an_existing_file(server, path):
  os.makedirs(os.path.dirname(path))
  with open(path, 'wb') as file:
    file.write(b'mine')
  message = _error(ValueError, server, path)
  assert hashlib.md5(b'mine').hexdigest() in message
  assert not server.requested
  with open(path, 'rb') as file:
    assert file.read() == b'mine'


def test_no_such_file_on_the_server(server, path):
  url = server.url.replace('data', 'other')
  with pytest.raises(FileNotFoundError, match='404') as error:
    download.checked_file(path, url=url, md5=_MD5)
  assert path in str(error.value)
  assert not os.listdir(os.path.dirname(path))


def test_offline(path, monkeypatch):
  monkeypatch.setenv('no_proxy', '*')
  with _Server() as server:
    pass
  message = _error(FileNotFoundError, server, path)
  assert 'refused' in message
  assert 'by hand' in message
  assert not os.listdir(os.path.dirname(path))


def test_several_at_once_download_once(server, path):
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    calls = [pool.submit(_download, server.url, path) for _ in range(8)]
    assert [call.result(timeout=30) for call in calls] == [path] * 8
  assert server.requested == [None]
  _get(server, path)


def _download(url, path):
  return download.checked_file(path, url=url, md5=_MD5)


def test_probe(server):
  download.probe(server.url)
  assert server.requested == ['HEAD']
  with pytest.raises(OSError, match='404'):
    download.probe(server.url + '.other')


def test_probe_offline(monkeypatch):
  monkeypatch.setenv('no_proxy', '*')
  with _Server() as server:
    pass
  with pytest.raises(OSError, match='refused'):
    download.probe(server.url)
