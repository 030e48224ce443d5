"""What a program reports on the standard error while it runs."""

import sys
from typing import Optional, Set, TextIO

import tqdm

_SECONDS_BETWEEN_LINES = 10.0


class _Lines(tqdm.tqdm):
  """Lines instead of a bar."""

  def display(self, msg=None, pos=None) -> None:
    # It closes with an empty message.
    if msg is None:
      print(self, file=self.fp, flush=True)


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
    """Initializes `Progress` on `num_runs` runs, finished ones included.

    If quiet, it reports nothing but problems.
    """
    self._stream = stream or sys.stderr
    self._is_terminal = self._stream.isatty()
    self._is_measuring = False
    self.quiet = quiet
    self.rounds_per_run = rounds_per_run
    self.notes: Set[str] = set()
    self.bar = (tqdm.tqdm if self._is_terminal else _Lines)(
        desc='starting',
        total=num_runs * rounds_per_run,
        initial=num_finished * rounds_per_run,
        bar_format='{desc}',
        mininterval=0.1 if self._is_terminal else _SECONDS_BETWEEN_LINES,
        # No line before the first round.
        delay=0 if self._is_terminal else 1e-3,
        miniters=1,
        smoothing=0,
        unit='round',
        dynamic_ncols=True,
        leave=False,
        file=self._stream,
        disable=quiet,
    )

  def start_run(self, label: str) -> 'RunProgress':
    """What a run is to be reported to; its reports begin with the label."""
    return RunProgress(self, label)

  def measure(self) -> None:
    """Takes the time from the first end of a round on.

    That round is no measure: imports and compilation come before it.
    """
    if not self._is_measuring and not self.quiet:
      self._is_measuring = True
      self.bar.initial, self.bar.start_t = self.bar.n, self.bar._time()
      pace = '{rate_fmt}, {remaining} left'
      # First, as a narrow terminal cuts the end off.
      bar = f'{{percentage:3.0f}}%|{{bar:20}}| {pace}; {{desc}}'
      self.bar.bar_format = bar if self._is_terminal else f'{{desc}} ({pace})'

  def print(self, line: str) -> None:
    """Prints a line that stays."""
    if self._is_terminal:
      self.bar.write(line, file=self._stream)
    else:
      print(line, file=self._stream, flush=True)

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
    """Counts the first rounds as done, unless they are counted already.

    If some are repeated, no harm is done.
    """
    bar, rounds_per_run = self._progress.bar, self._progress.rounds_per_run
    num_new = max(0, num_rounds - (rounds_per_run - self._rounds_left))
    self._rounds_left -= num_new
    if not bar.disable:
      bar.n, bar.initial = bar.n + num_new, bar.initial + num_new

  def advance(self, text: str) -> None:
    """Reports that a round is done, and what came of it."""
    progress = self._progress
    num_new = min(1, self._rounds_left)
    self._rounds_left -= num_new
    progress.bar.set_description_str(f'{self._label}: {text}', refresh=False)
    progress.bar.update(num_new)
    progress.measure()

  def end(self, text: str) -> None:
    """Reports the end of the run, before its last round maybe."""
    if not self._progress.quiet:
      self._progress.bar.total -= self._rounds_left
    self.remark(text)

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
