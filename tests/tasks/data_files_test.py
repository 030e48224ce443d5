"""Tests for data_files, with a server in a thread of the test process."""

import functools
import hashlib
import http.server
import os
import threading
import tracemalloc
import urllib.request

import pytest

from tasks import data_files

_URLOPEN = urllib.request.urlopen
_CONTENT = hashlib.sha512(b'seed').digest() * 5000
_MD5 = hashlib.md5(_CONTENT).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
  """Serves `_CONTENT` at /whole, half of it at /half and errors elsewhere."""

  def do_GET(self):
    self.server.requests.append(self.path)
    self.send_response(200 if self.path in ('/whole', '/half') else 404)
    self.send_header('Content-Length', str(len(_CONTENT)))
    self.end_headers()
    sent = len(_CONTENT) // (1 if self.path == '/whole' else 2)
    self.wfile.write(_CONTENT[:sent])

  def log_message(self, *args):
    pass


@pytest.fixture(name='server')
def _server(monkeypatch):
  monkeypatch.setenv('no_proxy', '*')
  monkeypatch.setattr('urllib.request.urlopen', _URLOPEN)
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler) as server:
    server.requests = []
    # The polling interval is what a shutdown has to wait for.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def _url(server, name='whole'):
  # Nobody listens at the other port.
  port = 9 if name is None else server.server_port
  return f'http://127.0.0.1:{port}/{name}'


def _ensure(server, path, name='whole', md5=_MD5):
  url = _url(server, name)
  data_files.ensure_whole(
      os.fspath(path),
      url=url,
      fetch=functools.partial(data_files.download, url),
      find_problem=functools.partial(data_files.compare_md5, md5=md5),
  )


@pytest.mark.parametrize(
    'argument, variable, expected',
    [
        (None, None, None),
        (None, '', None),
        (None, '/env', '/env'),
        ('/mine', '/env', '/mine'),
        ('~/mine', None, '/home/me/mine'),
        (None, '~/env', '/home/me/env'),
    ],
)
def test_find_folder(monkeypatch, argument, variable, expected):
  monkeypatch.setenv('HOME', '/home/me')
  if variable is not None:
    monkeypatch.setenv('FEDAOT_DATA_DIR', variable)
  assert data_files.find_folder(argument) == expected


def test_downloads_once(server, tmp_path):
  path = tmp_path / 'new' / 'folder' / 'data.bin'
  for _ in range(2):
    _ensure(server, path)
  assert server.requests == ['/whole']
  assert path.read_bytes() == _CONTENT
  assert os.listdir(path.parent) == ['data.bin']


@pytest.mark.parametrize(
    'name, md5, reason',
    [
        ('half', _MD5, '160000 bytes read'),
        ('other', _MD5, '404'),
        (None, _MD5, 'refused'),
        ('whole', '0' * 32, f'{_MD5}, not {"0" * 32}'),
    ],
)
def test_a_download_that_fails_leaves_nothing(
    server, tmp_path, name, md5, reason
):
  path = tmp_path / 'data.bin'
  with pytest.raises(FileNotFoundError, match=reason) as error:
    _ensure(server, path, name, md5)
  message = str(error.value)
  for part in (os.fspath(path), _url(server, name), 'by hand'):
    assert part in message
  assert '\n' not in message
  assert not os.listdir(tmp_path)
  _ensure(server, path)


def test_an_unsound_file_is_left_alone(server, tmp_path):
  path = tmp_path / 'data.bin'
  path.write_bytes(b'mine')
  with pytest.raises(ValueError, match=f'{path}.*not {_MD5}; delete it'):
    _ensure(server, path)
  assert not server.requests
  assert path.read_bytes() == b'mine'


def test_checksum_of_a_large_file(tmp_path):
  path = tmp_path / 'file'
  path.touch()
  os.truncate(path, 2**25)
  md5 = hashlib.md5(bytes(2**25)).hexdigest()
  tracemalloc.start()
  try:
    assert not data_files.compare_md5(os.fspath(path), md5)
    assert md5 in data_files.compare_md5(os.fspath(path), 'other')
    assert tracemalloc.get_traced_memory()[1] < 2**23
  finally:
    tracemalloc.stop()


def test_check_server(server):
  # That it knows no HEAD request does not matter.
  data_files.check_server(_url(server))
  with pytest.raises(OSError, match='refused'):
    data_files.check_server(_url(server, None))
