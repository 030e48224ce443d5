"""The cells of a grid: experiments to run, and how they end."""

from collections.abc import Iterator
import os
import pathlib
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from binaries import application
from binaries import experiment as experiment_lib
from binaries import progress as progress_lib
from binaries import single_run


class Outcome(NamedTuple):
  """The end of a run: its rows or, in one line, why it failed."""

  experiment: experiment_lib.Experiment
  progress: progress_lib.RunProgress
  rows: Optional[List[Dict[str, Any]]]
  error: Optional[str]


class Cell(NamedTuple):
  """An experiment to run, the label of its reports and the folder for it."""

  label: str
  experiment: experiment_lib.Experiment
  folder: pathlib.Path

  @property
  def group(self) -> Any:
    """Equal for cells that a `Runner` shares a learning process for."""
    e = self.experiment
    return e.seed, e.byzantine_fraction, e.aggregator


def run(
    cells: Sequence[Cell],
    progress: progress_lib.Progress,
    *,
    num_workers: int = 1,
    ray_address: Optional[str] = None,
) -> Iterator[Outcome]:
  """Yields the outcomes as the runs end.

  Several workers, and those at an address, are Ray's; their number changes
  nothing but times. A single one is this process, without Ray, and so is that
  of rounds on Ray. Closing the generator stops all. `progress` is told all but
  the runs' ends. UserError or
  ModuleNotFoundError if no run can be.
  """
  if cells[0].experiment.context == 'ray':
    # Workers would hold the cores that the rounds' actors wait for.
    if num_workers > 1:
      raise application.UserError(
          'with --context=ray a round has all cores, and --num_workers must be'
          f' 1; found {num_workers}.'
      )
    if ray_address is not None:
      os.environ['RAY_ADDRESS'] = ray_address
  elif num_workers > 1 or ray_address is not None:
    from binaries import ray_workers  # pylint: disable=g-import-not-at-top

    yield from ray_workers.run(cells, progress, num_workers, ray_address)
    return
  for cell in cells:
    of_run, rows, error = progress.start_run(cell.label), None, None
    try:
      rows = single_run.run(cell.experiment, cell.folder, of_run)
    except application.UserError as failure:
      error = str(failure)
    yield Outcome(cell.experiment, of_run, rows, error)
