"""Downloads of data files: resumed where they broke off, and checked."""

from collections.abc import Iterator
import contextlib
import fcntl
import hashlib
import http.client
import os
from typing import BinaryIO, Optional
import urllib.error
import urllib.request

import tqdm

_CHUNK_BYTES = 1 << 16
_TIMEOUT_SECONDS = 30.0


def checked_file(path: str, *, url: str, md5: str) -> str:
  """Returns `path` after downloading the file unless it is there already.

  The bytes go to `path` + '.part', which is renamed when all of it is there and
  has the right checksum: a file at `path` is never incomplete. A download that
  was interrupted goes on where it stopped, if the server supports ranges. Of
  several processes that need the same file one downloads it while the others
  wait. Progress is shown on standard error.

  Args:
    path: Where the file is or is to be; missing folders are made.
    url: The address to get it from.
    md5: The MD5 checksum of the file in hexadecimal.

  Returns:
    `path`.

  Raises:
    FileNotFoundError: If the file is missing and cannot be downloaded now; what
      was received is kept.
    ValueError: If the file, or what was downloaded for it, has another
      checksum; an existing file is left alone.
  """
  if not os.path.exists(path):
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with _exclusive(path + '.part') as part:
      # Another process may have finished while this one waited.
      if os.path.exists(path):
        os.remove(part.name)
      else:
        _complete(part, path, url, md5)
  with open(path, 'rb') as file:
    found = _md5(file)
  if found != md5:
    raise ValueError(
        f'the file {path} has the MD5 checksum {found} instead of {md5}; delete'
        f' it to download it anew from {url}.'
    )
  return path


def probe(url: str) -> None:
  """Raises `OSError` at once unless there is a file at an address.

  For libraries that, without a network, try again for minutes before they give
  up.

  Args:
    url: The address of a file.
  """
  request = urllib.request.Request(url, method='HEAD')
  urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()


@contextlib.contextmanager
def _exclusive(path: str) -> Iterator[BinaryIO]:
  """Opens a file for appending that no other process has open like this."""
  while True:
    with open(path, 'a+b') as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      # The file may have been renamed or deleted while this process waited; the
      # lock is only worth something on the one that bears the name now.
      if _names(path, file):
        yield file
        return


def _names(path: str, file: BinaryIO) -> bool:
  """Whether `path` is the name of an open file."""
  try:
    return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
  except FileNotFoundError:
    return False


def _complete(part: BinaryIO, path: str, url: str, md5: str) -> None:
  """Downloads what is missing in `part` and renames it to `path`."""
  if _md5(part) != md5:
    try:
      _receive(part, path, url)
    except (OSError, http.client.HTTPException) as error:
      if not part.seek(0, os.SEEK_END):
        os.remove(part.name)
      reason = ' '.join(str(error).split()) or type(error).__name__
      raise FileNotFoundError(
          f'the file {path} does not exist and could not be downloaded from'
          f' {url} ({reason}); try again to go on, or get it by hand and put'
          ' it there.'
      ) from error
    found = _md5(part)
    if found != md5:
      os.remove(part.name)
      raise ValueError(
          f'what was downloaded from {url} for {path} has the MD5 checksum'
          f' {found} instead of {md5} and was deleted; try again, or get it by'
          ' hand and put it there.'
      )
  os.replace(part.name, path)


def _receive(part: BinaryIO, path: str, url: str) -> None:
  """Appends the rest of the file to `part`; raises `OSError` if it ends early.

  Args:
    part: What was received so far.
    path: The name of the whole file, for the progress bar.
    url: The address of the whole file.
  """
  offset = part.seek(0, os.SEEK_END)
  with _open(url, offset) as response:
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
      # The answer is the whole file, whatever was asked for.
      offset = 0
      part.truncate(part.seek(offset))
    total = _total_bytes(response, offset)
    with tqdm.tqdm(
        desc=os.path.basename(path),
        initial=offset,
        total=total,
        unit='B',
        unit_scale=True,
    ) as progress:
      for chunk in iter(lambda: response.read(_CHUNK_BYTES), b''):
        part.write(chunk)
        progress.update(len(chunk))
  received = part.seek(0, os.SEEK_END)
  if total is not None and received < total:
    raise OSError(f'the connection ended after {received} of {total} bytes')


def _open(url: str, offset: int) -> http.client.HTTPResponse:
  """Requests a file from a byte onwards; from 0 if there are no more bytes."""
  headers = {'Range': f'bytes={offset}-'} if offset else {}
  request = urllib.request.Request(url, headers=headers)
  try:
    return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
  except urllib.error.HTTPError as error:
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
      return urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS)
    raise


def _total_bytes(
    response: http.client.HTTPResponse, offset: int
) -> Optional[int]:
  """Returns the size of the whole file, or `None` if the server is silent."""
  length = response.headers.get('Content-Length')
  return None if length is None else offset + int(length)


def _md5(file: BinaryIO) -> str:
  """Returns the MD5 checksum of all that the file holds."""
  file.seek(0)
  digest = hashlib.md5()
  for chunk in iter(lambda: file.read(_CHUNK_BYTES), b''):
    digest.update(chunk)
  return digest.hexdigest()
