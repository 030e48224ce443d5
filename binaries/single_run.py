"""One run of an experiment: its folder and what is reported meanwhile."""

import contextlib
import pathlib
from typing import Any, Dict, List

from binaries import application
from binaries import csv_log
from binaries import experiment as experiment_lib
from binaries import progress as progress_lib
from binaries import run_metrics


def run(
    runner: Any,
    experiment: experiment_lib.Experiment,
    folder: pathlib.Path,
    progress: progress_lib.Progress,
) -> List[Dict[str, Any]]:
  """Runs an experiment.

  Args:
    runner: A `runner.Runner`.
    experiment: The settings.
    folder: Where `metrics.csv` and, if the aggregator measures its weights,
      `weights.csv` are written, anew and a round at a time, and `error.txt`
      with the traceback if the run fails.
    progress: Told each round of the run.

  Returns:
    The rows of `metrics.csv`.

  Raises:
    UserError: If the run fails.
  """
  num_rounds = experiment.task_options['rounds']
  accuracy = 'not evaluated yet'
  rows = []
  try:
    application.remove_error(folder)
    with contextlib.ExitStack() as stack:
      log = stack.enter_context(
          csv_log.CsvLog(
              folder / run_metrics.FILE_NAME, run_metrics.COLUMNS, keep=False
          )
      )
      weights_log = None
      for record in runner.run(experiment):
        row = run_metrics.make_row(record)
        log.append(row)
        if record.weights is not None:
          weights_log = weights_log or stack.enter_context(
              csv_log.CsvLog(
                  folder / run_metrics.WEIGHTS_FILE_NAME,
                  run_metrics.WEIGHTS_COLUMNS,
                  keep=False,
              )
          )
          for client_row in run_metrics.make_client_rows(record):
            weights_log.append(client_row)
        if row['test_accuracy'] is not None:
          accuracy = f'test accuracy {row["test_accuracy"]:.4f}'
        progress.advance(f'round {row["round"]}/{num_rounds}, {accuracy}')
        if not row['model_is_finite'] and (
            not rows or rows[-1]['model_is_finite']
        ):
          progress.warn(f'the model is not finite from round {row["round"]} on')
        rows.append(row)
  except application.UserError:
    raise
  except Exception as error:
    raise application.UserError(
        application.write_error(folder, error)
    ) from error
  return rows
