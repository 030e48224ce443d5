"""The flags that describe experiments, with the defaults of `Experiment`.

Programs that import this share them; `define_settings` adds what some have.
"""

import dataclasses
from typing import Any

from absl import flags

from binaries import application
from binaries import experiment
from tasks import registry as tasks

_TASK_OPTIONS = tuple(n for n in tasks.OPTIONS if n not in experiment.AXES)
_DEFINE = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define_settings(*names: str) -> None:
  """Defines flags for settings of `Experiment`."""
  for name in names:
    default = getattr(experiment.Experiment, name)
    _define(name, experiment.SETTINGS[name], default)


def make_experiment(**axes: Any) -> experiment.Experiment:
  """The experiment that the flags describe, but for these; or UserError."""

  def given(names):
    values = {n: flags.FLAGS[n].value for n in names if n not in axes}
    return {n: v for n, v in values.items() if v is not None}

  try:
    return experiment.Experiment(
        **given(experiment.SETTINGS), **axes, task_options=given(_TASK_OPTIONS)
    )
  except (TypeError, ValueError) as error:
    raise application.UserError(application.describe_error(error)) from error


def _define(name: str, option: tasks.Option, default: Any) -> None:
  if option.choices and option.kind is str:
    flags.DEFINE_enum(name, default, option.choices, option.help)
  else:
    _DEFINE[option.kind](name, default, option.help)


def _describe_defaults(name: str) -> str:
  """The defaults of tasks and models, as in ' Default: 30 (a, b with cnn).'."""
  by_value = {}
  for task, entry in tasks.TASKS.items():
    places = {task: entry.defaults}
    for model, differing in entry.model_defaults.items():
      places[f'{task} with {model}'] = differing
    for place, defaults in places.items():
      if defaults.get(name) is not None:
        by_value.setdefault(defaults[name], []).append(place)
  defaults = '; '.join(
      f'{value} ({", ".join(names)})' for value, names in by_value.items()
  )
  return f' Default: {defaults}.' if defaults else ''


define_settings(*(n for n in experiment.SETTINGS if n not in experiment.AXES))
for _name in _TASK_OPTIONS:
  _option = tasks.OPTIONS[_name]
  _help = f'{_option.help}{_describe_defaults(_name)}'
  _define(_name, dataclasses.replace(_option, help=_help), None)
flags.DEFINE_string(
    'output_dir', None, 'The folder for the results. By default one below out/.'
)
flags.DEFINE_bool('quiet', False, 'Report no progress.')
flags.DEFINE_string(
    'ray_address',
    None,
    'HOST:PORT of a Ray cluster, for the rounds of --context=ray or else for'
    ' the workers of a comparison. By default, they are on this machine.',
)
