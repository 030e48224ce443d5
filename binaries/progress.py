"""What a program reports on the standard error while it runs."""

import sys
import time
from typing import Dict, Optional, Set, TextIO

import tqdm

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
  """A bar on a terminal; elsewhere, a line every ten seconds.

  Runs may go on side by side: what is reported is of the run that was started
  or selected last.
  """

  def __init__(
      self,
      num_runs: int,
      rounds_per_run: int,
      *,
      rounds_done: int = 0,
      quiet: bool = False,
      stream: Optional[TextIO] = None,
  ):
    """Initializes `Progress`.

    Args:
      num_runs: How many runs there are, finished ones included.
      rounds_per_run: How many rounds each has.
      rounds_done: How many rounds of all runs are done already.
      quiet: Whether to report nothing but problems.
      stream: Where to; None for the standard error.
    """
    self._stream = sys.stderr if stream is None else stream
    self._quiet = quiet
    self._rounds_per_run = rounds_per_run
    self._rounds_left = num_runs * rounds_per_run - rounds_done
    self._rounds_left_in_run: Dict[str, int] = {}
    self._rounds_measured = 0
    self._label = ''
    self._notes: Set[str] = set()
    self._first_round_end = None
    self._last_line = time.monotonic()
    self._bar = None
    if not quiet and self._stream.isatty():
      self._bar = tqdm.tqdm(
          desc='starting',
          total=num_runs * rounds_per_run,
          initial=rounds_done,
          dynamic_ncols=True,
          leave=False,
          file=self._stream,
          bar_format='{percentage:3.0f}%|{bar:20}| {desc}',
      )

  def start_run(self, label: str, rounds_done: int = 0) -> None:
    """Reports that a run begins, and selects it.

    Args:
      label: What its reports begin with, another one for each run.
      rounds_done: After how many rounds it goes on where an earlier program
        was stopped. If it turns out to repeat some, no harm is done.
    """
    self._label = label
    self._rounds_left_in_run[label] = self._rounds_per_run - rounds_done
    if self._bar is not None:
      self._bar.set_description_str(label)

  def select_run(self, label: str) -> None:
    """Makes a run that was started the one that is reported on."""
    self._label = label

  def advance(self, text: str) -> None:
    """Reports that a round of the run is done, and what came of it."""
    is_new = self._rounds_left_in_run[self._label] > 0
    if is_new:
      self._rounds_left -= 1
      self._rounds_left_in_run[self._label] -= 1
    if self._first_round_end is None:
      # No measure: imports and compilation come before it.
      self._first_round_end = time.monotonic()
    else:
      self._rounds_measured += 1
    if self._bar is not None:
      # The pace first, as a narrow terminal cuts the end off.
      parts = filter(None, (self._pace(), f'{self._label}: {text}'))
      self._bar.set_description_str('; '.join(parts), refresh=False)
      self._bar.update(int(is_new))
    elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
      self._print_line(text)

  def end_run(self, text: str) -> None:
    """Reports the end of a run, before its last round maybe."""
    self._rounds_left -= self._rounds_left_in_run.pop(self._label)
    if self._bar is not None:
      self._bar.total = self._bar.n + self._rounds_left
    self._print_line(text)

  def warn(self, text: str) -> None:
    """Reports a problem of the run, quiet or not."""
    self._print_line(text, force=True)

  def remark(self, text: str) -> None:
    """Reports what is worth knowing of the run, unless quiet."""
    if not self._quiet:
      self._print_line(text, force=True)

  def note(self, text: str) -> None:
    """Reports what concerns all runs, unless it has been reported before."""
    if self._quiet or text in self._notes:
      return
    self._notes.add(text)
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    else:
      print(text, file=self._stream, flush=True)

  def close(self) -> None:
    """Takes the bar away."""
    if self._bar is not None:
      self._bar.close()
      self._bar = None

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
      pace = self._pace()
      if pace:
        line += f' ({pace})'
      print(line, file=self._stream, flush=True)

  def _pace(self) -> str:
    """The rate and the time left over all runs, once they are known."""
    if not self._rounds_measured or not self._rounds_left:
      return ''
    elapsed = time.monotonic() - self._first_round_end
    seconds_per_round = elapsed / self._rounds_measured
    if seconds_per_round <= 0:
      return ''
    rate = (
        f'{seconds_per_round:.1f} s/round'
        if seconds_per_round > 1
        else f'{1 / seconds_per_round:.1f} rounds/s'
    )
    left = tqdm.tqdm.format_interval(seconds_per_round * self._rounds_left)
    return f'{rate}, {left} left'
