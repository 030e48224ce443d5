"""What a program reports on the standard error while it runs."""

import sys
import time
from typing import Optional, TextIO

import tqdm

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
  """A bar on a terminal; elsewhere, a line every ten seconds."""

  def __init__(
      self,
      num_runs: int,
      rounds_per_run: int,
      *,
      quiet: bool = False,
      stream: Optional[TextIO] = None,
  ):
    """Initializes `Progress`.

    Args:
      num_runs: How many runs there will be.
      rounds_per_run: How many rounds each has.
      quiet: Whether to report nothing but problems.
      stream: Where to; None for the standard error.
    """
    self._stream = sys.stderr if stream is None else stream
    self._quiet = quiet
    self._rounds_per_run = rounds_per_run
    self._rounds_left = num_runs * rounds_per_run
    self._rounds_left_in_run = 0
    self._rounds_done = 0
    self._label = ''
    self._first_round_end = None
    self._last_line = time.monotonic()
    self._bar = None
    if not quiet and self._stream.isatty():
      self._bar = tqdm.tqdm(
          desc='starting',
          total=self._rounds_left,
          dynamic_ncols=True,
          leave=False,
          file=self._stream,
          bar_format='{percentage:3.0f}%|{bar:20}| {remaining} left {desc}',
      )

  def start_run(self, label: str) -> None:
    """Reports that a run begins; its reports begin with the label."""
    self._label = label
    self._rounds_left_in_run = self._rounds_per_run
    if self._bar is not None:
      self._bar.set_description_str(label)

  def advance(self, text: str) -> None:
    """Reports that a round of the run is done, and what came of it."""
    self._rounds_done += 1
    self._rounds_left -= 1
    self._rounds_left_in_run -= 1
    if self._first_round_end is None:
      self._first_round_end = time.monotonic()
    if self._bar is not None:
      self._bar.set_description_str(f'{self._label}: {text}', refresh=False)
      self._bar.update()
    elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
      self._print_line(text)

  def end_run(self, text: str) -> None:
    """Reports the end of a run, before its last round maybe."""
    self._rounds_left -= self._rounds_left_in_run
    self._rounds_left_in_run = 0
    if self._bar is not None:
      self._bar.total = self._rounds_done + self._rounds_left
    self._print_line(text)

  def warn(self, text: str) -> None:
    """Reports a problem, quiet or not."""
    self._print_line(text, force=True)

  def close(self) -> None:
    """Takes the bar away."""
    if self._bar is not None:
      self._bar.close()

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def _print_line(self, text: str, force: bool = False) -> None:
    """Prints a line that stays."""
    self._last_line = time.monotonic()
    line = f'{self._label}: {text}'
    if self._bar is not None:
      self._bar.write(line, file=self._stream)
    elif force:
      print(line, file=self._stream, flush=True)
    elif not self._quiet:
      print(f'{line}{self._time_left()}', file=self._stream, flush=True)

  def _time_left(self) -> str:
    # The first round is no measure: imports and compilation come before it.
    num_measured = self._rounds_done - 1
    if num_measured < 1 or not self._rounds_left:
      return ''
    elapsed = time.monotonic() - self._first_round_end
    seconds = elapsed / num_measured * self._rounds_left
    return f' ({tqdm.tqdm.format_interval(seconds)} left)'
