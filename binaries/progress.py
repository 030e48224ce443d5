"""What a program reports on the standard error while it runs."""

import sys
import time
from typing import Optional, Set, TextIO

import tqdm

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
  """A bar on a terminal; elsewhere, a line every ten seconds."""

  def __init__(
      self,
      num_runs: int,
      rounds_per_run: int,
      *,
      num_finished: int = 0,
      quiet: bool = False,
      stream: Optional[TextIO] = None,
  ):
    """Initializes `Progress`.

    Args:
      num_runs: How many runs there are, finished ones included.
      rounds_per_run: How many rounds each has.
      num_finished: How many runs are finished already.
      quiet: Whether to report nothing but problems.
      stream: Where to; None for the standard error.
    """
    self._stream = sys.stderr if stream is None else stream
    self._quiet = quiet
    self._rounds_per_run = rounds_per_run
    self._rounds_left = (num_runs - num_finished) * rounds_per_run
    # The first round is no measure: imports and compilation come before it.
    self._first_round_end: Optional[float] = None
    self._rounds_measured = 0
    self._last_line = time.monotonic()
    self._notes: Set[str] = set()
    self._bar = tqdm.tqdm(
        desc='starting',
        total=num_runs * rounds_per_run,
        initial=num_finished * rounds_per_run,
        dynamic_ncols=True,
        leave=False,
        file=self._stream,
        bar_format='{percentage:3.0f}%|{bar:20}| {desc}',
        disable=quiet or not self._stream.isatty(),
    )

  def start_run(self, label: str) -> 'RunProgress':
    """Begins to report on a run.

    Args:
      label: What its reports begin with, another one for each run.

    Returns:
      What it is to be told to. Runs may go on side by side.
    """
    self._bar.set_description_str(label)
    return RunProgress(self, label)

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *unused_exception) -> None:
    self._bar.close()

  def _count(self, num_rounds: int) -> None:
    """Counts rounds that are done."""
    self._rounds_left -= num_rounds
    self._bar.update(num_rounds)

  def _measure_round(self) -> None:
    if self._first_round_end is None:
      self._first_round_end = time.monotonic()
    else:
      self._rounds_measured += 1

  def _print(self, line: str, *, with_pace: bool = False) -> None:
    """Prints a line that stays."""
    self._last_line = time.monotonic()
    if with_pace and self._bar.disable and self._pace():
      line += f' ({self._pace()})'
    tqdm.tqdm.write(line, file=self._stream)
    self._stream.flush()

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


class RunProgress:
  """Reports on one run of a `Progress`."""

  # pylint: disable=protected-access

  def __init__(self, progress: Progress, label: str):
    self._progress = progress
    self._label = label
    self._rounds_left = progress._rounds_per_run

  def skip(self, num_rounds: int) -> None:
    """Tells that an earlier program did the first rounds.

    If it turns out that the run repeats some, no harm is done.
    """
    self._rounds_left -= num_rounds
    self._progress._count(num_rounds)

  def advance(self, text: str) -> None:
    """Reports that a round is done, and what came of it."""
    progress = self._progress
    progress._measure_round()
    if self._rounds_left > 0:
      self.skip(1)
    if not progress._bar.disable:
      # The pace first, as a narrow terminal cuts the end off.
      parts = filter(None, (progress._pace(), f'{self._label}: {text}'))
      progress._bar.set_description_str('; '.join(parts))
    elif time.monotonic() - progress._last_line >= _SECONDS_BETWEEN_LINES:
      self._report(text)

  def end(self, text: str) -> None:
    """Reports the end of the run, before its last round maybe."""
    self._progress._rounds_left -= self._rounds_left
    self._progress._bar.total = (
        self._progress._bar.n + self._progress._rounds_left
    )
    self._report(text)

  def warn(self, text: str) -> None:
    """Reports a problem, quiet or not."""
    self._progress._print(f'{self._label}: {text}')

  def remark(self, text: str) -> None:
    """Reports what is worth knowing of the run, unless quiet."""
    if not self._progress._quiet:
      self.warn(text)

  def note(self, text: str) -> None:
    """Reports what concerns all runs, unless it has been reported before."""
    if not self._progress._quiet and text not in self._progress._notes:
      self._progress._notes.add(text)
      self._progress._print(text)

  def _report(self, text: str) -> None:
    if not self._progress._quiet:
      self._progress._print(f'{self._label}: {text}', with_pace=True)
