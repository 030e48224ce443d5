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
    self.quiet = quiet
    self.rounds_per_run = rounds_per_run
    self.rounds_left = (num_runs - num_finished) * rounds_per_run
    self.last_line = time.monotonic()
    self.notes: Set[str] = set()
    self._first_round_end: Optional[float] = None
    self._rounds_measured = 0
    self.bar = tqdm.tqdm(
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
    """What a run is to be reported to; its reports begin with the label."""
    self.bar.set_description_str(label)
    return RunProgress(self, label)

  def measure_round(self) -> None:
    """Takes the time at the end of a round."""
    if self._first_round_end is None:
      # No measure: imports and compilation come before it.
      self._first_round_end = time.monotonic()
    else:
      self._rounds_measured += 1

  def pace(self) -> str:
    """The rate and the time left over all runs, once they are known."""
    if not self._rounds_measured or not self.rounds_left:
      return ''
    elapsed = time.monotonic() - self._first_round_end
    seconds = max(elapsed / self._rounds_measured, 1e-9)
    rate = (
        f'{seconds:.1f} s/round' if seconds > 1 else f'{1/seconds:.1f} rounds/s'
    )
    left = tqdm.tqdm.format_interval(seconds * self.rounds_left)
    return f'{rate}, {left} left'

  def print(self, line: str) -> None:
    """Prints a line that stays."""
    self.last_line = time.monotonic()
    tqdm.tqdm.write(line, file=self._stream)

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.bar.close()


class RunProgress:
  """Reports on one of the runs of a `Progress`, which may be side by side."""

  def __init__(self, progress: Progress, label: str):
    self._progress = progress
    self._label = label
    self._rounds_left = progress.rounds_per_run

  def skip(self, num_rounds: int) -> None:
    """Counts rounds that are done; if some are repeated, no harm is done."""
    self._rounds_left -= num_rounds
    self._progress.rounds_left -= num_rounds
    self._progress.bar.update(num_rounds)

  def advance(self, text: str) -> None:
    """Reports that a round is done, and what came of it."""
    progress = self._progress
    progress.measure_round()
    if self._rounds_left > 0:
      self.skip(1)
    if not progress.bar.disable:
      # The pace first, as a narrow terminal cuts the end off.
      parts = filter(None, (progress.pace(), f'{self._label}: {text}'))
      progress.bar.set_description_str('; '.join(parts))
    elif time.monotonic() - progress.last_line >= _SECONDS_BETWEEN_LINES:
      self._tell(text)

  def end(self, text: str) -> None:
    """Reports the end of the run, before its last round maybe."""
    progress = self._progress
    progress.rounds_left -= self._rounds_left
    progress.bar.total = progress.bar.n + progress.rounds_left
    self._tell(text)

  def warn(self, text: str) -> None:
    """Reports a problem, quiet or not."""
    self._progress.print(f'{self._label}: {text}')

  def remark(self, text: str) -> None:
    """Reports what is worth knowing of the run, unless quiet."""
    if not self._progress.quiet:
      self.warn(text)

  def note(self, text: str) -> None:
    """Reports what concerns all runs, unless it has been reported before."""
    if not self._progress.quiet and text not in self._progress.notes:
      self._progress.notes.add(text)
      self._progress.print(text)

  def _tell(self, text: str) -> None:
    pace = self._progress.pace() if self._progress.bar.disable else ''
    self.remark(f'{text} ({pace})' if pace else text)
