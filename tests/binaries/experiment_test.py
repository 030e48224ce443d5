"""Tests for experiment."""

import re

import pytest

from binaries import experiment
from tasks import registry as tasks


def test_defaults_are_those_of_the_task():
  options = experiment.Experiment(task='mnist5k').task_options
  expected = dict(tasks.TASKS['mnist5k'].defaults)
  del expected['seed']
  assert options == expected


def test_given_options_go_before_the_defaults():
  options = experiment.Experiment(task_options={'rounds': 3}).task_options
  assert options['rounds'] == 3
  assert options['model'] == tasks.TASKS['mnist5k'].defaults['model']


@pytest.mark.parametrize(
    'settings, error, message',
    [
        ({'task': 'nope'}, ValueError, 'nope'),
        ({'aggregator': 'nope'}, ValueError, "aggregator 'nope'; known: mean"),
        ({'aggregator': 'krum:f=1'}, ValueError, "'f'"),
        ({'aggregator': None}, TypeError, 'aggregator'),
        ({'attack': 'nope'}, ValueError, "unknown attack 'nope'; known"),
        ({'byzantine_fraction': 1.0}, ValueError, 'less than 1, found 1.0'),
        ({'byzantine_fraction': -0.1}, ValueError, 'at least 0, found -0.1'),
        ({'byzantine_fraction': float('nan')}, ValueError, 'finite, found nan'),
        ({'byzantine_fraction': '0.4'}, TypeError, "found '0.4'"),
        ({'byzantine_sampling': 'some'}, ValueError, 'exact, random'),
        ({'server_optimizer': 'lbfgs'}, ValueError, 'sgd, adam, yogi'),
        ({'server_learning_rate': 0.0}, ValueError, 'server_learning_rate'),
        ({'evaluate_every': 0}, ValueError, 'evaluate_every.*at least 1'),
        ({'context': 'gpu'}, ValueError, 'context.*native, in_process'),
        ({'seed': -1}, ValueError, 'seed.*at least 0'),
        ({'seed': 1.5}, TypeError, 'seed'),
        ({'task_options': {'rounds': 0}}, ValueError, 'rounds.*at least 1'),
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
  assert experiment.Experiment(attack='none').attacker_fraction == 0
  assert (
      experiment.Experiment(
          attack='sign_flip:scale=2', byzantine_fraction=0.3
      ).attacker_fraction
      == 0.3
  )


def test_names_tell_the_runs_of_a_comparison_apart():
  names = {
      experiment.Experiment(
          aggregator=aggregator,
          attack=attack,
          byzantine_fraction=fraction,
          seed=seed,
      ).name
      for aggregator in ('krum', 'krum:num_byzantine=1', 'krum:num_byzantine=2')
      for attack in ('none', 'sign_flip', 'sign_flip:scale=2.5')
      for fraction in (0.1, 0.25)
      for seed in (0, 1)
  }
  assert len(names) == 36
  assert all(re.fullmatch(r'[A-Za-z0-9_.=-]+', name) for name in names)
  assert 'mnist5k-krum_num_byzantine=1-sign_flip_scale=2.5-0.25-1' in names


def test_to_dict_holds_every_setting():
  settings = experiment.Experiment(seed=3, task_options={'rounds': 4}).to_dict()
  assert set(settings) == {
      *experiment.SETTINGS,
      *tasks.TASKS['mnist5k'].defaults,
  }
  assert settings['seed'] == 3
  assert settings['rounds'] == 4


def test_settings_from_before_there_was_a_choice_of_context_were_native():
  settings = experiment.Experiment(seed=3, context='native').to_dict()
  old = {name: settings[name] for name in settings if name != 'context'}
  assert experiment.complete_settings(old) == settings
  new = experiment.Experiment(context='in_process').to_dict()
  assert experiment.complete_settings(new) == new


def test_every_setting_is_a_field_with_an_allowed_default():
  for name, option in experiment.SETTINGS.items():
    default = getattr(experiment.Experiment, name)
    if name == 'forged_examples':
      assert default is None
    else:
      option.check(name, default)
