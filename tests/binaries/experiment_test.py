"""Tests for experiment."""

import math
import pickle
import re

import pytest

from binaries import experiment
from tasks import registry as tasks


def test_given_options_go_before_the_defaults_of_the_task():
  defaults = dict(tasks.TASKS['mnist5k'].defaults)
  del defaults['seed']
  assert experiment.Experiment(task='mnist5k').task_options == defaults
  options = experiment.Experiment(task_options={'rounds': 3}).task_options
  assert options == {**defaults, 'rounds': 3}


def test_settings_have_the_defaults_of_the_model():
  settings = experiment.Experiment('cifar10', {'model': 'cnn'}).to_dict()
  assert settings['client_learning_rate'] == 0.03


@pytest.mark.parametrize(
    'settings, error, message',
    [
        ({'task': 'nope'}, ValueError, 'nope'),
        ({'aggregator': 'nope'}, ValueError, "aggregator 'nope'; known: mean"),
        ({'aggregator': 'krum:f=1'}, ValueError, "'f'"),
        ({'aggregator': None}, TypeError, 'aggregator'),
        ({'byzantine_fraction': 1.0}, ValueError, 'less than 1, found 1.0'),
        ({'byzantine_fraction': math.nan}, ValueError, 'fraction.*found nan'),
        ({'byzantine_fraction': '0.4'}, TypeError, "found '0.4'"),
        ({'evaluate_every': 0}, ValueError, 'evaluate_every.*found 0'),
        ({'context': 'gpu'}, ValueError, 'context.*native, in_process'),
        ({'seed': -1}, ValueError, 'seed.*found -1'),
        ({'seed': 1.5}, TypeError, 'seed'),
        ({'task_options': {'rounds': 0}}, ValueError, 'rounds.*found 0'),
        ({'task_options': {'nope': 1}}, ValueError, "no option 'nope'"),
        (
            {'task_options': {'cohort_size': 9, 'num_clients': 8}},
            ValueError,
            'only 8 clients',
        ),
    ],
)
def test_wrong_settings_are_told_in_one_line(settings, error, message):
  with pytest.raises(error, match=message) as raised:
    experiment.Experiment(**settings)
  assert '\n' not in str(raised.value)


def test_attackers():
  for attack, fraction in (('none', 0), ('sign_flip:scale=2', 0.3)):
    made = experiment.Experiment(attack=attack, byzantine_fraction=0.3)
    assert made.attacker_fraction == fraction


def test_names_tell_the_runs_of_a_comparison_apart():
  names = {
      experiment.Experiment('mnist5k', {}, aggregator, attack, fraction).name
      for aggregator in ('krum', 'krum:num_byzantine=1', 'krum:num_byzantine=2')
      for attack in ('none', 'sign_flip', 'sign_flip:scale=2.5')
      for fraction in (0.1, 0.25)
  }
  assert len(names) == 18
  assert all(re.fullmatch(r'[A-Za-z0-9_.=-]+', name) for name in names)
  assert 'mnist5k-krum_num_byzantine=1-sign_flip_scale=2.5-0.25-0' in names


def test_to_dict_holds_every_setting():
  settings = experiment.Experiment(seed=3, task_options={'rounds': 4}).to_dict()
  assert set(settings) == {
      *experiment.SETTINGS,
      *tasks.TASKS['mnist5k'].defaults,
  }
  assert settings['seed'] == 3
  assert settings['rounds'] == 4


def test_settings_reach_another_process_unchanged():
  settings = experiment.Experiment(
      aggregator='krum', task_options={'rounds': 7, 'model': 'cnn'}, seed=3
  )
  assert pickle.loads(pickle.dumps(settings)) == settings
