"""FedAOT on lists of arrays, for any framework."""

import dataclasses
import math
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import numpy as np

from fedaot import checks
from fedaot import config as config_lib
from fedaot import equations
from fedaot import holdout as holdout_lib
from fedaot import sketch
from fedaot.namespace import NUMPY

Arrays = Sequence[np.ndarray]
# A client's model, or a function that reads it; None if there is none to read.
Client = Union[None, Arrays, Callable[[], Optional[Arrays]]]

# Purposes of the secret seed, so that they share no random numbers.
_SIGNS, _SPLIT = range(2)
# Coordinates that are handled at a time, so that they stay in a core's cache.
_BLOCK = 2**16


@dataclasses.dataclass(frozen=True)
class Round:
  """What a round of N clients, in the order given, was like.

  Attributes:
    weights: [N], the weights; they sum to 1, or are 0 if no client is usable.
    coefficients: [N], weight times clip factor: what the update counts.
    statistics: [N, K], named by `FedAOTAggregator.statistics`; higher is more
      trustworthy.
    z: [N, K], standardized over the cohort.
    norms: [N], Euclidean norms of the updates; 0 if not usable.
    norm_bound: The norm of a typical update.
    num_non_finite: Clients that are missing, not finite or huge.
    num_empty: The other clients without a positive example count.
    num_clipped: Usable clients whose norm was reduced.
    num_attenuated: Usable clients with less than half of a fair share.
    effective_clients: 1 / sum of squared weights; 0 if no client is usable.
    root_norm: With a hold-out, the norm of the root update. Far from the norms
      of honest clients it tells that the hold-out does not train like them.
    holdout_loss_before: With a hold-out, its loss before the round.
  """

  weights: np.ndarray
  coefficients: np.ndarray
  statistics: np.ndarray
  z: np.ndarray
  norms: np.ndarray
  norm_bound: float
  num_non_finite: int
  num_empty: int
  num_clipped: int
  num_attenuated: int
  effective_clients: float
  root_norm: Optional[float] = None
  holdout_loss_before: Optional[float] = None


class FedAOTAggregator:
  """Averages client models with learned weights, robust against attackers.

  ```
  aggregator = fedaot.FedAOTAggregator(holdout)
  for each round:
    new_model = aggregator.aggregate(model, client_models)
    model = ...  # new_model, or what a server optimizer makes of it
    aggregator.learn(model)
  ```

  Without a hold-out the majority of the clients must be honest; with one, a
  majority of attackers can be withstood. One client's model is read at a time:
  memory beside models is N (m + B) floats for N clients and B blocks of the
  profile, N (p + m + B) with a hold-out.

  Source: Das & Sen, arXiv 2603.16846, as extended in `equations`.

  Attributes:
    config: The `FedAOTConfig`.
    statistics: The names of the K statistics.
    last_round: The `Round` of the last `aggregate`; None before.
    holdout_loss_after: The loss in the last `learn`; None before.
  """

  def __init__(
      self,
      holdout: Optional[holdout_lib.HoldOut] = None,
      *,
      config: Optional[config_lib.FedAOTConfig] = None,
      seed: Optional[int] = None,
  ):
    """Initializes `FedAOTAggregator`.

    Args:
      holdout: The clean examples at the server, or None for agreement mode.
      config: The constants of the algorithm; None for the defaults.
      seed: The seed of the sketch and of the hold-out's split, in [0, 2^63),
        unknown to clients; None draws one at random.

    Raises:
      TypeError: If an argument is of another kind.
      ValueError: If `seed` is out of range or the hold-out is empty.
    """
    if holdout is not None:
      if not isinstance(holdout, holdout_lib.HoldOut):
        raise TypeError(
            'holdout must have num_examples, train and loss_and_gradient, see'
            f' fedaot.HoldOut; found {type(holdout).__name__}.'
        )
      checks.check_int('holdout.num_examples', holdout.num_examples, minimum=1)
    if config is None:
      config = config_lib.FedAOTConfig()
    if not isinstance(config, config_lib.FedAOTConfig):
      raise TypeError(
          'config must be a fedaot.FedAOTConfig or None; found'
          f' {type(config).__name__}.'
      )
    self.config = config
    self._holdout = holdout
    self.statistics = (
        equations.AGREEMENT_STATISTICS
        if holdout is None
        else equations.HOLDOUT_STATISTICS
    )
    self.last_round: Optional[Round] = None
    self.holdout_loss_after: Optional[float] = None
    self._seed = checks.check_seed(seed)
    self._round = 0
    self._weighting = equations.initial_weighting(
        NUMPY, config, has_holdout=holdout is not None
    )
    self._optimizer = equations.initial_meta_optimizer(NUMPY, self._weighting)
    # With a hold-out the reference [p], without `equations.Memory`; made when
    # the model is known.
    self._known: Any = None
    # Between rounds. Agreement mode: what last round's updates were like.
    # Hold-out mode: what `learn` needs of the round; empty once it has learned.
    self._memory: Dict[str, np.ndarray] = {}
    # Made when the model is known.
    self._groups: Sequence[sketch.Group] = ()
    self._signs: Sequence[sketch.Signs] = ()

  def aggregate(
      self,
      model: Arrays,
      client_models: Sequence[Client],
      num_examples: Optional[Sequence[float]] = None,
  ) -> List[np.ndarray]:
    """The new model from those that the clients trained.

    A client that is None, or has an entry that is not finite or a norm of its
    update not below `config.max_norm`, has no weight; `last_round` counts them.
    A client with an example count that is not positive has nothing to say: it
    is no vote, and is counted, too. If none is left, the model stays as it is
    and nothing is learned.

    Args:
      model: The global model that the clients started from: float arrays.
      client_models: The clients' models, each a sequence of arrays like
        `model`, a function without arguments that returns one, which is called
        twice so that one client at a time is in memory, or None.
      num_examples: The example counts that clients report. Beyond whether they
        are positive they are of use with `config.max_example_ratio` only.

    Returns:
      A list of arrays with the shapes and dtypes of `model`.

    Raises:
      TypeError: If arrays are not of floats.
      ValueError: If shapes differ, or the model is not finite.
      RuntimeError: With a hold-out, if the last round was not learned.
    """
    if self._holdout is not None and self._memory:
      raise RuntimeError(
          'The last round was not learned; call learn(model) with the model'
          ' that came out of it first.'
      )
    model = _check_model(model)
    if num_examples is not None and len(num_examples) != len(client_models):
      raise ValueError(
          f'num_examples must have an entry for each of {len(client_models)}'
          f' clients; found {len(num_examples)}.'
      )
    self._prepare(model)
    root = self._root(model)
    energies, sketches, projections = self._summarize(model, client_models)
    table = self._table(energies, sketches, projections, num_examples, root)
    decision = equations.decide(
        NUMPY,
        self._weighting,
        table,
        self._known,
        root and {name: root[name] for name in ('norm', 'profile')},
        self.config,
    )
    coefficients = decision.weights * decision.clip
    new_model = _weighted_update(model, client_models, coefficients)
    self.last_round = _describe(table, decision, coefficients, root)
    if root is not None:
      self._memory = {
          'z': decision.z,
          'log_base': decision.log_base,
          'finite': table['finite'],
          'clip': decision.clip,
          'norm_bound': np.asarray(decision.norm_bound),
          'projections': projections,
          'aggregate': coefficients @ projections,
          'evaluation': root['evaluation'],
      }
    else:
      self._round += 1
      if table['finite'].any():
        self._learn_from_agreement(table, decision)
    return new_model

  def learn(self, model: Arrays) -> None:
    """With a hold-out: learns from the round, at the model that came out of it.

    Whatever made that model of the aggregate (a server optimizer, noise) is
    taken into account. Without a hold-out, or with nothing to learn from, this
    does nothing.

    Args:
      model: The global model after the round.

    Raises:
      TypeError: If arrays are not of floats.
      ValueError: If the model is not finite.
    """
    if self._holdout is None or not self._memory:
      return
    model, memory = _check_model(model), self._memory
    self._prepare(model)
    loss, gradient = self._holdout.loss_and_gradient(
        model, memory['evaluation']
    )
    norm, _, projection = self._project(gradient)
    self._memory = {}
    self._round += 1
    self.holdout_loss_after = float(loss)
    if not memory['finite'].any():
      return
    self._step(
        equations.Judgement(
            memory['z'],
            memory['log_base'],
            memory['finite'],
            equations.holdout_alignments(
                NUMPY,
                memory['projections']
                @ equations.without_overshoot(
                    NUMPY, projection, memory['aggregate']
                ),
                memory['clip'],
                norm,
                memory['norm_bound'],
            ),
            penalty=0.0,
        )
    )
    self._known = equations.follow(
        self._known, memory['aggregate'], self.config.reference_decay
    )

  def state_dict(self) -> Dict[str, np.ndarray]:
    """What goes from round to round, as arrays by name.

    `numpy.savez(path, **state)` writes it. It holds the secret seed.
    """
    state = {
        'mode': np.array('agreement' if self._holdout is None else 'holdout'),
        'seed': np.asarray(self._seed),
        'round': np.asarray(self._round),
        'meta_optimizer.step': np.asarray(self._optimizer['step']),
    }
    if self._holdout is not None and self._known is not None:
      state['reference'] = self._known
    elif self._known is not None:
      state.update(self._known._asdict())
    for prefix, arrays in self._named_state().items():
      state.update((f'{prefix}.{name}', v) for name, v in arrays.items())
    return {name: np.array(array) for name, array in state.items()}

  def load_state_dict(self, state: Dict[str, Any]) -> None:
    """Goes on where `state_dict` was taken.

    Args:
      state: What `state_dict` returned, or `numpy.load` of what was saved.

    Raises:
      ValueError: If it is not the state of an aggregator in this mode.
    """
    state = {name: np.array(state[name]) for name in state}
    mode = 'agreement' if self._holdout is None else 'holdout'
    if str(state.get('mode')) != mode:
      raise ValueError(
          f'The state must be of {mode} mode; found {state.get("mode")!s}.'
      )
    needed = self.__class__(
        self._holdout, config=self.config, seed=0
    ).state_dict()
    for name, array in needed.items():
      if name not in state or state[name].shape != array.shape:
        raise ValueError(
            f'The state must have {name!r} of shape {array.shape}; found'
            f' {state[name].shape if name in state else "none"}.'
        )
    for name, array in state.items():
      if array.dtype.kind == 'f' and not np.all(np.isfinite(array)):
        raise ValueError(f'The state has {name!r} that is not finite.')
    self._seed, self._round = int(state['seed']), int(state['round'])
    if 'reference' not in state:
      self._known = None
    elif self._holdout is not None:
      self._known = state['reference']
    else:
      self._known = equations.Memory(
          *(state[name] for name in equations.Memory._fields)
      )
    self._optimizer['step'] = state['meta_optimizer.step']
    self._memory = {}
    self._signs = ()
    for name, array in state.items():
      prefix, dot, rest = name.rpartition('.')
      if dot and name != 'meta_optimizer.step':
        self._named_state()[prefix][rest] = array

  def _named_state(self) -> Dict[str, Dict[str, np.ndarray]]:
    return {
        'weighting': self._weighting,
        'meta_optimizer.first_moment': self._optimizer['first_moment'],
        'meta_optimizer.second_moment': self._optimizer['second_moment'],
        'memory': self._memory,
    }

  # --- The steps of a round ---

  def _prepare(self, model: Arrays) -> None:
    has_holdout = self._holdout is not None
    known: Any
    groups = sketch.group_tensors(
        [array.shape for array in model], self.config, has_holdout=has_holdout
    )
    if has_holdout:
      known = np.zeros(groups[0].length)
    else:
      zeros = np.zeros([len(groups), groups[0].sketch_length])
      known = equations.Memory(zeros, zeros, np.array(1.0), np.array(0.0))
    if self._known is None:
      self._known = known
    if not self._signs:
      self._groups, self._signs = groups, self._draw_signs(groups)
    is_like = np.shape(self._known[0]) == np.shape(known[0])
    if groups != self._groups or not is_like:
      size = sum(group.num_coordinates for group in groups)
      raise ValueError(
          f'The model has {size} floats, which does not fit what was learned so'
          ' far; make a new FedAOTAggregator for another model.'
      )

  def _draw_signs(self, groups: Sequence[sketch.Group]) -> List[sketch.Signs]:
    generator = np.random.default_rng([self._seed, _SIGNS])
    return [
        sketch.draw_signs(generator, group.num_coordinates, group.length)
        for group in groups
    ]

  def _draw_order(self) -> np.ndarray:
    """The hold-out's examples in this round's random order."""
    generator = np.random.default_rng([self._seed, _SPLIT, self._round])
    return generator.permutation(self._holdout.num_examples)

  def _root(self, model: Arrays) -> Optional[Dict[str, Any]]:
    """The update that training on half of the hold-out gives."""
    if self._holdout is None:
      return None
    order = self._draw_order()
    half = (len(order) + 1) // 2
    training, evaluation = order[:half], order[half:]
    if len(order) < self.config.min_examples_to_split:
      training = evaluation = order
    trained = self._holdout.train(model, training)
    _check_like(model, trained, "The hold-out's trained model")
    norm, profile, projection = self._project(
        before - after for before, after in zip(model, trained)
    )
    loss, _ = self._holdout.loss_and_gradient(model, evaluation)
    return {
        'norm': norm,
        'profile': profile,
        'projection': projection,
        'loss': float(loss),
        'evaluation': evaluation,
    }

  def _project(self, arrays):
    """Norm, profile, projection; 0, which says nothing, if not finite."""
    energies, (projection,) = self._see(arrays)
    norm, profile = _norm_and_profile(energies)
    usable = np.isfinite(norm)
    return tuple(
        np.where(usable, seen, 0.0) for seen in (norm, profile, projection)
    )

  def _see(self, arrays):
    return sketch.energies_and_projections(
        (_flat(array) for array in arrays),
        self._groups,
        self._signs,
        sketch.block_size(self._groups, self.config),
    )

  def _summarize(self, model: Arrays, client_models: Sequence[Client]):
    """Energies [N, B], NaN for a missing client, sketches, projections [N, p].

    Without a hold-out no projections are kept.
    """
    num_clients, groups = len(client_models), self._groups
    size = sketch.block_size(groups, self.config)
    num_blocks = sum(math.ceil(array.size / size) for array in model)
    energies = np.full([num_clients, num_blocks], np.nan)
    sketches = np.zeros([num_clients, len(groups), groups[0].sketch_length])
    length = 0 if self._holdout is None else groups[0].length
    projections = np.zeros([num_clients, length], np.float32)
    for i, client in enumerate(client_models):
      arrays = _read(client)
      if arrays is None:
        continue
      _check_like(model, arrays, f'The model of client {i}')
      with np.errstate(all='ignore'):  # Forged updates overflow.
        energies[i], parts = self._see(
            before - after for before, after in zip(model, arrays)
        )
        # A projection folds into a sketch, whose length divides its own.
        sketches[i] = [
            part.reshape(-1, group.sketch_length).sum(axis=0, dtype=float)
            for part, group in zip(parts, groups)
        ]
      projections[i] = parts[0][:length]
    return energies, sketches, projections

  def _table(
      self, energies, sketches, projections, num_examples, root
  ) -> equations.Table:
    norms, profiles = _norm_and_profile(energies)
    usable = norms < self.config.max_norm  # A NaN compares false.
    counts = np.ones_like(norms)
    if num_examples is not None:
      counts = np.asarray(num_examples, float)
    has_vote = counts > 0
    usable &= has_vote
    use_counts = (
        num_examples is not None and self.config.max_example_ratio is not None
    )
    if use_counts:
      usable &= np.isfinite(counts)
    sketches[~usable] = projections[~usable] = profiles[~usable] = 0.0
    table = {
        'finite': usable.astype(float),
        'is_empty': 1.0 - has_vote,
        'norm': np.where(usable, norms, 0.0),
        'sketch': sketches,
        'profile': profiles,
    }
    if use_counts:
      table['num_examples'] = np.where(usable, counts, 0.0)
    if root is not None:
      table['dot_reference'] = projections @ self._known
      table['dot_root'] = projections @ root['projection'].astype(float)
    return table

  def _learn_from_agreement(self, table, decision) -> None:
    """The meta step, and what the next rounds know of this one."""
    clipped = table['sketch'] * decision.clip[:, None, None]
    if self._memory:
      previous = self._memory
      self._step(
          equations.Judgement(
              previous['z'],
              previous['log_base'],
              previous['finite'],
              equations.agreement_alignments(
                  NUMPY,
                  previous['sketches'],
                  np.tensordot(decision.weights, clipped, 1),
              ),
              penalty=self.config.concentration_penalty,
          )
      )
    self._known = decision.memory
    self._memory = {
        'sketches': equations.divide(NUMPY, clipped, decision.norm_bound),
        'z': decision.z,
        'log_base': decision.log_base,
        'finite': table['finite'],
    }

  def _step(self, judgement: equations.Judgement) -> None:
    self._weighting, self._optimizer = equations.learn(
        NUMPY,
        self._weighting,
        self._optimizer,
        equations.objective_gradient(NUMPY, self._weighting, judgement),
        has_holdout=self._holdout is not None,
        config=self.config,
    )


def _describe(table, decision, coefficients, root) -> Round:
  finite, weights = table['finite'], decision.weights
  num_finite, num_empty = int(finite.sum()), int(table['is_empty'].sum())
  return Round(
      weights=weights,
      coefficients=coefficients,
      statistics=decision.values,
      z=decision.z,
      norms=table['norm'],
      norm_bound=float(decision.norm_bound),
      num_non_finite=len(finite) - num_finite - num_empty,
      num_empty=num_empty,
      num_clipped=int(np.sum((finite > 0) & (decision.clip < 1))),
      num_attenuated=int(
          np.sum((finite > 0) & (weights < 0.5 / max(num_finite, 1)))
      ),
      effective_clients=1.0 / float(weights @ weights) if num_finite else 0.0,
      root_norm=root and float(root['norm']),
      holdout_loss_before=root and root['loss'],
  )


def _read(client: Client) -> Optional[Arrays]:
  return client() if callable(client) else client


def _norm_and_profile(energies):
  """Norms [] or [N] and shares of the energies [B] or [N, B] of blocks."""
  with np.errstate(invalid='ignore'):  # What is infinite has no shares.
    total = energies.sum(axis=-1, dtype=float)
    return (
        np.sqrt(total),
        equations.divide(NUMPY, energies, total[..., None]),
    )


def _flat(array: np.ndarray) -> np.ndarray:
  return array.reshape(-1).astype(np.float32, copy=False)


def _check_model(model: Arrays) -> List[np.ndarray]:
  """The model's arrays, if they are of floats and finite."""
  arrays = [np.asarray(array) for array in model]
  if not sum(array.size for array in arrays):
    raise ValueError('The model has no floats; give at least one array.')
  for i, array in enumerate(arrays):
    if array.dtype.kind != 'f':
      raise TypeError(
          f'Array {i} of the model must be of floats; found {array.dtype}. Keep'
          ' counters and the like out of it.'
      )
    if not np.all(np.isfinite(array)):
      raise ValueError(f'Array {i} of the model is not finite.')
  return arrays


def _check_like(model: Arrays, arrays: Arrays, what: str) -> None:
  """Raises ValueError unless `arrays` are numbers in the model's shapes."""
  arrays = [np.asarray(array) for array in arrays]
  expected = [array.shape for array in model]
  found = [array.shape for array in arrays]
  if expected != found:
    raise ValueError(
        f'{what} must have arrays of the shapes {expected}; found {found}.'
    )
  for array in arrays:
    if array.dtype.kind not in 'fiu':
      raise ValueError(f'{what} must be of numbers; found {array.dtype}.')


def _weighted_update(
    model: Arrays, client_models: Sequence[Client], coefficients: np.ndarray
) -> List[np.ndarray]:
  """model - sum_i c_i (model - client_i), in the dtypes of the model."""
  totals = [np.zeros(array.size, _sum_dtype(array)) for array in model]
  for client, coefficient in zip(client_models, coefficients):
    if not coefficient:  # What is not finite is never multiplied.
      continue
    for before, after, total in zip(model, _read(client), totals):
      before, after = before.reshape(-1), np.asarray(after).reshape(-1)
      for low in range(0, before.size, _BLOCK):
        block = slice(low, low + _BLOCK)
        update = np.subtract(before[block], after[block], dtype=total.dtype)
        update *= total.dtype.type(coefficient)
        total[block] += update
  return [
      (array - total.reshape(array.shape)).astype(array.dtype)
      for array, total in zip(model, totals)
  ]


def _sum_dtype(array: np.ndarray) -> np.dtype:
  """Half precision is added up in single precision, others in their own."""
  return np.promote_types(array.dtype, np.float32)
