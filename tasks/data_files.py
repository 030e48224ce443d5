"""Data files: where they are, and downloads that are whole or leave nothing."""

import contextlib
import functools
import hashlib
import os
import tempfile
from typing import Callable, Optional
import urllib.error
import urllib.request

_TIMEOUT_SECONDS = 30.0
_READ_AT_ONCE = 2**20


def find_folder(data_dir: Optional[str]) -> Optional[str]:
  """`data_dir`, or what `FEDAOT_DATA_DIR` names, `~` expanded; else None."""
  if data_dir is None:
    # An empty variable is the same as none.
    data_dir = os.environ.get('FEDAOT_DATA_DIR') or None
  return None if data_dir is None else os.path.expanduser(data_dir)


def ensure_whole(
    path: str,
    *,
    url: str,
    fetch: Callable[[str], None],
    find_problem: Callable[[str], str],
) -> None:
  """Downloads a file unless it is there, and checks it either way.

  What is fetched gets its name only when it is whole: a file at `path`, whose
  folders are made, is never incomplete, whoever else downloads it at the time.
  Raises FileNotFoundError if it is missing and cannot be downloaded, ValueError
  if an existing file is unsound; it is left alone.

  Args:
    path: The file.
    url: Where it comes from, for messages.
    fetch: Writes the file to the path it is given, in an empty folder.
    find_problem: Returns what is wrong with a file, '' if nothing is.
  """
  if _is_there(path, url, find_problem):
    return
  folder, name = os.path.split(path)
  with _obtained(path, url):
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f'{name}.part-', dir=folder
    ) as temporary:
      received = os.path.join(temporary, name)
      fetch(received)
      problem = find_problem(received)
      if problem:
        raise OSError(f'what came is not whole: {problem}')
      os.replace(received, path)


def check(path: str, *, url: str, find_problem: Callable[[str], str]) -> None:
  """Raises as `ensure_whole` does where that is clear without a download."""
  if not _is_there(path, url, find_problem):
    with _obtained(path, url):
      check_server(url)


def _is_there(path, url, find_problem) -> bool:
  """Whether a file is there; ValueError if it is unsound."""
  if not os.path.exists(path):
    return False
  problem = find_problem(path) if os.path.isfile(path) else 'it is no file'
  if problem:
    raise ValueError(
        f'cannot use the file {path}: {problem}; delete it to download it'
        f' anew from {url}.'
    )
  return True


@contextlib.contextmanager
def _obtained(path, url):
  """Raises what goes wrong in a download as FileNotFoundError."""
  try:
    yield
  # Connections, compressed data and databases break in many ways.
  except Exception as error:  # pylint: disable=broad-exception-caught
    raise FileNotFoundError(
        f'the file {path} does not exist and could not be downloaded from'
        f' {url} ({one_line(error)}); try again, or get it by hand, decompress'
        ' it if it is compressed, and put it there.'
    ) from error


def download(url: str, path: str) -> None:
  """Writes what is at an address to a file."""
  with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
    content = response.read()
  with open(path, 'wb') as file:
    file.write(content)


def check_server(url: str) -> None:
  """Raises `OSError` at once if no server answers.

  For libraries that, without a network, try for minutes before they give up.
  """
  request = urllib.request.Request(url, method='HEAD')
  try:
    urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()
  except urllib.error.HTTPError:
    pass  # The server answered; whether it has the file will show.


def compare_md5(path: str, md5: str) -> str:
  """What is wrong with a file that should have a checksum; '' if nothing is."""
  digest = hashlib.md5()
  with open(path, 'rb') as file:
    # In parts, since an unsound file may be larger than the memory.
    for part in iter(functools.partial(file.read, _READ_AT_ONCE), b''):
      digest.update(part)
  found = digest.hexdigest()
  return '' if found == md5 else f'its MD5 checksum is {found}, not {md5}'


def one_line(error: Exception) -> str:
  """The message of an error without its line breaks."""
  return ' '.join(str(error).split()) or type(error).__name__
