"""Options of the benchmarks, rounds in turns and the tables at the end."""

import collections
import os
import time

import pytest

from benchmarks import turns
from fedaot_tff.aggregators import registry

# TensorFlow reads it when it is imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

# The first round compiles; in the second, rules that look back do so for the
# first time.
_WARM_UP_ROUNDS = 2


def pytest_addoption(parser):
  add = parser.getgroup('fedaot').addoption
  add('--num-clients', default='10', help='N, comma-separated [%(default)s]')
  add('--dimension', default='100000', help='d, comma-separated [%(default)s]')
  add(
      '--aggregators',
      default='mean,tff_robust,fedaot,fedaot_no_holdout',
      help=(
          'NAME, NAME:OPTION=VALUE,... or WRAPPER+NAME, comma-separated; all'
          f' stands for {", ".join(registry.aggregator_names())} [%(default)s]'
      ),
  )
  add(
      '--context',
      choices=['in_process', 'native'],
      default='in_process',
      help='where computations of TFF run [%(default)s]',
  )


def pytest_configure(config):
  try:
    aggregators = registry.split_list(config.getoption('aggregators'))
    for name in aggregators:
      registry.get_aggregator(name)
  except ValueError as error:
    raise pytest.UsageError(f'--aggregators: {error}') from None
  # From the one that varies fastest to the one that varies slowest.
  config.parameters = {
      'aggregator': aggregators,
      'num_clients': _parse_sizes(config, '--num-clients', minimum=1),
      'dimension': _parse_sizes(config, '--dimension', minimum=2),
  }


def _parse_sizes(config, option, minimum):
  text = config.getoption(option)
  sizes = text.split(',')
  if not all(size.isdecimal() and int(size) >= minimum for size in sizes):
    raise pytest.UsageError(
        f'{option} must be comma-separated integers >= {minimum}; found'
        f' {text!r}.'
    )
  return [int(size) for size in sizes]


def pytest_generate_tests(metafunc):
  for name, values in metafunc.config.parameters.items():
    if name in metafunc.fixturenames:
      metafunc.parametrize(name, values)


def pytest_terminal_summary(terminalreporter):
  """Prints what the benchmarks noted, a table a group."""
  tables = collections.defaultdict(list)
  for report in terminalreporter.getreports('passed'):
    noted = dict(report.user_properties)
    if report.when == 'call' and noted:
      tables[noted.pop('group')].append((noted.pop('name'), noted))
  for group, rows in tables.items():
    terminalreporter.section(group)
    width = max(len(name) for name, _ in rows)
    for name, noted in rows:
      figures = ''.join(f'  {k} {v:10.4g}' for k, v in noted.items())
      terminalreporter.line(name.ljust(width) + figures)


@pytest.fixture(name='note')
def _note(benchmark, request):
  """A function that adds figures to the JSON file and the last tables."""

  def note(**figures):
    benchmark.extra_info.update(figures)
    labels = {'group': benchmark.group, 'name': request.node.name}
    request.node.user_properties.extend({**labels, **figures}.items())

  return note


@pytest.fixture(name='time_in_turns')
def _time_in_turns(benchmark, note, pytestconfig):
  """A function that times rounds in turns with rounds of a mean.

  A machine that grows faster or slower meanwhile does so for both. Arguments:
  `play`, a round of what is benchmarked; `mean`, a round of the mean;
  `generate`, what both contain and is not measured; and the number of clients.
  Notes what `turns.summarize` returns.
  """
  num_rounds = pytestconfig.getoption('benchmark_min_rounds')

  def time_in_turns(play, mean, generate=lambda: None, *, num_clients=None):
    references = []

    def play_references():
      references.append((_seconds(mean), _seconds(generate)))

    counts = {'rounds': num_rounds, 'warmup_rounds': _WARM_UP_ROUNDS}
    benchmark.pedantic(play, setup=play_references, **counts)
    if benchmark.enabled:
      times = (benchmark.stats.stats.data, *zip(*references[-num_rounds:]))
      note(**turns.summarize(*times, num_clients))

  return time_in_turns


def _seconds(play):
  start = time.perf_counter()
  play()
  return time.perf_counter() - start


@pytest.fixture(name='context', scope='session')
def _context(pytestconfig):
  """The name of the execution context, which is made TFF's default."""
  # pylint: disable-next=g-import-not-at-top
  from fedaot_tff.runtime import execution_context

  name = pytestconfig.getoption('context')
  context = getattr(execution_context, f'set_{name}_execution_context')()
  yield name
  context.close()
