"""Runs experiments with TensorFlow Federated."""

from collections.abc import Iterator
import functools
import os
import pathlib
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from absl import logging
import numpy as np
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl import context_stack

from binaries import experiment as experiment_lib
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import registry as aggregators
from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import registry as attacks
from fedaot_tff.learning import fed_avg
from fedaot_tff.runtime import execution_context
from fedaot_tff.simulation import client_datasets
from fedaot_tff.simulation import cohort
from fedaot_tff.simulation import evaluation
from fedaot_tff.simulation import logging_release
from fedaot_tff.simulation import tensorboard_release
from fedaot_tff.simulation import training
from tasks import registry as task_registry
from tasks import task as task_lib

_NUM_EXAMPLE_IMAGES = 8

_SERVER_OPTIMIZERS = {
    'sgd': tff.learning.optimizers.build_sgdm,
    'adam': tff.learning.optimizers.build_adam,
    'yogi': tff.learning.optimizers.build_yogi,
}


class Runner:
  """Runs experiments one after another.

  What experiments share is made once: the task, its evaluation and, for those
  that differ only in what happens to the data, the learning process with its
  compilation. Those with the same task, task options and seed should therefore
  follow each other, and of these, those with the same aggregator: what it needs
  is kept until there is another one.
  """

  def __init__(self):
    # TFF's own, if it were there still, would print a traceback at exit.
    context_stack.set_default_context.set_no_default_context()
    self._context: Optional[str] = None
    self._task_key: Any = None
    # What experiments on the task share, and those with the same rule as well.
    self._made: Dict[Any, Any] = {}
    self._rule_key: Any = None
    self._made_for_rule: Dict[Any, Any] = {}

  def run(
      self,
      experiment: experiment_lib.Experiment,
      *,
      tensorboard_folder: Optional[pathlib.Path] = None,
      release_managers: Sequence[Any] = (),
      note: Callable[[str], None] = logging.info,
      **options: Any,
  ) -> Iterator[training.RoundRecord]:
    """Runs an experiment; the next round when it is asked for.

    Args:
      experiment: The settings.
      tensorboard_folder: Where event files for TensorBoard are written.
      release_managers: See `training.train_rounds`. A round comes to them last.
      note: Told in a line which devices an in-process context runs on, and if
        the model sees only a small part of a trigger.
      **options: On checkpoints, as `training.train_rounds` takes them.

    Raises:
      OSError: If the task's data cannot be read.
      ValueError: If the settings do not fit together.
    """
    e = experiment
    # First of all, as TensorFlow can no longer be told how to use its devices
    # once it has run something.
    self._enter_context(e.context, note)
    task = self._load_task(e)
    attack = attacks.get_attack(e.attack)
    self._make_once(
        ('trigger', e.attack),
        _check_trigger,
        attack,
        task,
        functools.partial(self._make_once, 'seen', backdoor.seen_features),
        note,
    )
    datasets = self._make_once(
        'datasets', _make_datasets, task, e.seed
    ).poisoned_by(attack.data_poisoning)
    managers = [logging_release.LoggingReleaseManager(), *release_managers]
    if tensorboard_folder is not None:
      images = _example_images(task, attack)
      managers.insert(
          0,
          tensorboard_release.TensorBoardReleaseManager(
              tensorboard_folder, images=images
          ),
      )
    cohorts = cohort.CohortSampler(
        task.client_data.client_ids,
        cohort_size=task.cohort_size,
        byzantine_fraction=e.attacker_fraction,
        byzantine_sampling=e.byzantine_sampling,
        seed=e.seed,
    )
    return training.train_rounds(
        self._load_process(e, attack, task, datasets),
        cohorts=cohorts,
        datasets=_ReadInActors(e) if e.context == 'ray' else datasets,
        num_rounds=task.rounds,
        evaluate=self._evaluation(e.attack, attack, task),
        evaluate_every=e.evaluate_every,
        release_managers=managers,
        **options,
    )

  def _enter_context(self, name: str, note: Callable[[str], None]) -> None:
    """Makes an execution context the default, unless it is already."""
    if name == self._context:
      return
    if name == 'native':
      context = execution_context.set_native_execution_context()
    elif name == 'ray':
      context = execution_context.set_ray_execution_context()
    else:
      context = execution_context.set_in_process_execution_context()
    note(f'context: {name}, {context.placement}')
    self._context = name

  def _make_once(
      self,
      key: Any,
      make: Callable[..., Any],
      *arguments: Any,
      for_rule: bool = False,
  ) -> Any:
    made = self._made_for_rule if for_rule else self._made
    if key not in made:
      made[key] = make(*arguments)
    return made[key]

  def _load_task(self, experiment: experiment_lib.Experiment) -> task_lib.Task:
    options = {**experiment.task_options, 'seed': experiment.seed}
    if self._task_key != (experiment.task, options):
      self._made.clear()
      self._made_for_rule.clear()
      self._task_key = experiment.task, options
    return self._make_once(
        'task', lambda: task_registry.load_task(experiment.task, **options)
    )

  def _evaluation(
      self, name: str, attack: attacks.Attack, task: task_lib.Task
  ) -> Callable[[Any], Dict[str, float]]:
    """Test accuracy and loss, and the attack's success rate if it has one."""
    evaluate = self._make_once(
        'evaluate', evaluation.build_evaluation, task.model, task.test
    )
    success_rate = self._make_once(
        ('success', name), _build_success_rate, attack, task
    )
    if success_rate is None:
      return evaluate
    return lambda model_weights: {
        **evaluate(model_weights),
        'attack_success_rate': success_rate(model_weights),
    }

  def _load_process(
      self,
      experiment: experiment_lib.Experiment,
      attack: attacks.Attack,
      task: task_lib.Task,
      datasets: client_datasets.ClientDatasets,
  ) -> tff.learning.templates.LearningProcess:
    e = experiment
    rule_key = (
        e.aggregator,
        e.byzantine_fraction,
        e.forged_examples,
        e.server_optimizer,
        e.server_learning_rate,
    )
    if self._rule_key != rule_key:
      # Compiled, a process takes tens of megabytes.
      self._made_for_rule.clear()
      self._rule_key = rule_key
    arguments = e, attack, task, datasets
    if attack.training_poisoning or attack.update_poisoning:
      return self._build_process(*arguments)
    return self._make_once(
        'process', self._build_process, *arguments, for_rule=True
    )

  def _build_process(
      self,
      experiment: experiment_lib.Experiment,
      attack: attacks.Attack,
      task: task_lib.Task,
      datasets: client_datasets.ClientDatasets,
  ) -> tff.learning.templates.LearningProcess:
    aggregator = aggregators.get_aggregator(experiment.aggregator)
    # What `build_attacked_fed_avg` is given again, it need not trace again.
    client_optimizer = self._make_once(
        'client_optimizer', _client_optimizer, task
    )
    factory = self._make_once(
        'aggregator',
        self._create_aggregator,
        aggregator,
        experiment,
        task,
        datasets,
        client_optimizer,
        for_rule=True,
    )
    return fed_avg.build_attacked_fed_avg(
        task.model,
        client_optimizer,
        _SERVER_OPTIMIZERS[experiment.server_optimizer](
            learning_rate=experiment.server_learning_rate
        ),
        model_aggregator=factory,
        update_poisoning=attack.update_poisoning,
        training_poisoning=attack.training_poisoning,
        forged_examples=experiment.forged_examples,
        discard_attackers=aggregator.discard_attackers,
        seed=experiment.seed,
        # Attackers who train in a way of their own do so on datasets.
        array_batch_size=None if attack.training_poisoning else task.batch_size,
        client_weighting=tff.learning.ClientWeighting.UNIFORM
        if experiment.forged_examples is None
        else tff.learning.ClientWeighting.NUM_EXAMPLES,
    )

  def _create_aggregator(
      self, aggregator, experiment, task, datasets, client_optimizer
  ) -> tff.aggregators.AggregationFactory:
    holdout = None
    if aggregator.needs_holdout:
      # Trained like a typical client, as its update is the measure of theirs.
      holdout = self._make_once(
          'holdout',
          lambda: holdout_lib.HoldOut(
              task.model,
              task.holdout,
              client_optimizer=client_optimizer,
              batch_size=task.batch_size,
              num_steps=datasets.mean_num_batches(),
          ),
      )
    context = aggregators.AggregatorContext(
        holdout=holdout,
        # As many as a cohort has with exact sampling.
        num_byzantine=round(experiment.byzantine_fraction * task.cohort_size),
        seed=experiment.seed,
    )
    return aggregator.create(context)


def _make_datasets(
    task: task_lib.Task, seed: int
) -> client_datasets.ClientDatasets:
  return client_datasets.ClientDatasets(
      task.client_data,
      num_classes=task.num_classes,
      batch_size=task.batch_size,
      client_epochs=task.client_epochs,
      seed=seed,
  )


class _ReadInActors:
  """An experiment's datasets that Ray's actors read, of arrays alone."""

  def __init__(self, experiment: experiment_lib.Experiment):
    options = dict(experiment.task_options, seed=experiment.seed)
    if options.get('data_dir') is not None:
      options['data_dir'] = os.path.abspath(options['data_dir'])
    self._key = experiment.task, tuple(options.items()), experiment.attack

  def arrays_for_cohort(
      self, members: cohort.Cohort, round_num: int
  ) -> List[functools.partial]:
    return [
        functools.partial(_read_client, self._key, member, round_num)
        for member in zip(*members)
    ]

  # Which the context refuses.
  for_cohort = arrays_for_cohort


def _read_client(
    key: Tuple[Any, ...], member: Tuple[str, int], round_num: int
) -> Dict[str, Any]:
  """A client's data in a round; run by an actor."""
  members = cohort.Cohort(*((value,) for value in member))
  return _load_datasets(*key).arrays_for_cohort(members, round_num)[0]


@functools.lru_cache(maxsize=1)
def _load_datasets(
    name: str, options: Sequence[Tuple[str, Any]], attack: str
) -> client_datasets.ClientDatasets:
  """The datasets of an experiment, once in an actor."""
  options = dict(options)
  datasets = _make_datasets(
      task_registry.load_task(name, **options), options['seed']
  )
  return datasets.poisoned_by(attacks.get_attack(attack).data_poisoning)


def _build_success_rate(
    attack: attacks.Attack, task: task_lib.Task
) -> Optional[Callable[[Any], float]]:
  """The function that measures an attack's success; None if it has none."""
  if attack.training_poisoning is not None:
    return attack.training_poisoning.build_success(
        task.model,
        _client_optimizer(task),
        task.test['x'],
        task.test['y'],
        num_classes=task.num_classes,
    )
  examples = _success_examples(task, attack)
  if examples is None:
    return None
  evaluate = evaluation.build_evaluation(task.model, examples)
  return lambda model_weights: evaluate(model_weights)['accuracy']


def _client_optimizer(
    task: task_lib.Task,
) -> tff.learning.optimizers.Optimizer:
  return tff.learning.optimizers.build_sgdm(
      learning_rate=task.client_learning_rate
  )


def _check_trigger(
    attack: attacks.Attack,
    task: task_lib.Task,
    seen_features: Callable[[Any], np.ndarray],
    note: Callable[[str], None],
) -> None:
  """ValueError if the model cannot see a trigger; a note if most is hidden."""
  poisoning = attack.data_poisoning or attack.training_poisoning
  if poisoning is None:
    return
  trigger = poisoning.trigger(task.test['x'].shape[1:])
  if trigger is None:
    return
  seen = seen_features(task.model)[trigger]
  found = (
      f'the model sees {np.count_nonzero(seen)} of the {seen.size} values of'
      f' the trigger of attack {attack.name!r}'
  )
  if not seen.any():
    raise ValueError(f'{found}: give it a larger size, or take another model.')
  if np.mean(seen) < 0.5:
    note(f'warning: {found}, and may not learn to obey it.')


def _success_examples(
    task: task_lib.Task, attack: attacks.Attack
) -> Optional[Dict[str, np.ndarray]]:
  """Test examples x, y as the attack presents them; None if it has none."""
  if attack.data_poisoning is None:
    return None
  examples = attack.data_poisoning.success_examples(
      task.test['x'], task.test['y'], num_classes=task.num_classes
  )
  return None if examples is None else dict(x=examples[0], y=examples[1])


def _example_images(
    task: task_lib.Task, attack: attacks.Attack
) -> Dict[str, np.ndarray]:
  """Test images and, if the attack presents its own, those; {} if no images."""
  x = task.test['x']
  if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] not in (1, 3)):
    return {}
  images = {'clean': x[:_NUM_EXAMPLE_IMAGES]}
  examples = _success_examples(task, attack)
  if examples is not None and len(examples['x']):
    images['attack'] = examples['x'][:_NUM_EXAMPLE_IMAGES]
  return images
