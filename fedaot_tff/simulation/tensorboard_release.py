"""Releases rounds to TensorBoard."""

import collections
from collections.abc import Iterable, Mapping
import os
import pathlib
from typing import Any, Dict, Optional, Tuple, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.simulation import round_summary
from fedaot_tff.simulation import training

_EVENT_FILES = 'events.out.tfevents.*'
_IMAGES_SUFFIX = '.images'
_MAX_IMAGES = 8


class TensorBoardReleaseManager(tff.program.ReleaseManager):
  """Writes each round to TensorBoard's event files, in a folder that it makes.

  Scalars are those of `round_summary.scalars`. Histograms: `weights/honest` and
  `weights/attackers`, the aggregation weights, where the aggregator measures
  them; and in rounds with evaluation `model/trainable/0` and so on, the weights
  of the global model. Values that are not finite are left out of histograms.

  `images` are float arrays [n, h, w] or [n, h, w, c] with 1 or 3 channels, by
  name, shown as those of round 0: the first eight of each, scaled so that the
  least and the largest value among them are black and white.

  In a folder with event files, the rounds from the first that is released on
  are removed from them, so that a training that goes on after a checkpoint has
  each round once.
  """

  def __init__(
      self,
      folder: Union[str, os.PathLike],
      *,
      images: Optional[Mapping[str, Any]] = None,
  ):
    checks.check_kind('folder', folder, str, os.PathLike)
    self._folder = pathlib.Path(folder)
    self._images = _check_images(
        checks.check_kind('images', images or {}, Mapping)
    )
    self._manager = None

  async def release(self, value: training.RoundRecord, key: int) -> None:
    """Writes the round `key`; raises OSError if it cannot be written."""
    try:
      if self._manager is None:
        _remove_rounds(self._folder, key)
        self._write_images()
        self._manager = tff.program.TensorBoardReleaseManager(self._folder)
      await self._manager.release(_summarize(value), key)
    except tf.errors.OpError as error:
      raise OSError(
          f'cannot write to {self._folder}: {error.message}'
      ) from error

  def _write_images(self) -> None:
    # TFF's manager shows arrays as histograms. The images are in a file of
    # their own, so that they are there once however often a training goes on.
    for path in self._folder.glob(f'{_EVENT_FILES}{_IMAGES_SUFFIX}'):
      path.unlink()
    if not self._images:
      return
    writer = tf.summary.create_file_writer(
        os.fspath(self._folder), filename_suffix=_IMAGES_SUFFIX
    )
    with writer.as_default():
      for name, images in self._images.items():
        tf.summary.image(
            f'examples/{name}', images, step=0, max_outputs=len(images)
        )
    writer.close()


def _summarize(record: training.RoundRecord) -> Dict[str, Any]:
  """What TFF's manager takes: scalars, and vectors for histograms."""
  summary = round_summary.scalars(record)
  if record.weights is not None:
    weights = np.asarray(record.weights)
    is_byzantine = np.asarray(record.is_byzantine)
    summary['weights'] = _only_finite(
        [
            ('honest', weights[~is_byzantine]),
            ('attackers', weights[is_byzantine]),
        ]
    )
  if record.evaluation is not None:
    model = record.state.global_model_weights
    summary['model'] = collections.OrderedDict(
        trainable=_only_finite(enumerate(model.trainable)),
        non_trainable=_only_finite(enumerate(model.non_trainable)),
    )
  return summary


def _only_finite(arrays: Iterable[Tuple[Any, Any]]) -> Dict[str, Any]:
  """The finite values of each named array that has any, as vectors."""
  found = collections.OrderedDict()
  for name, array in arrays:
    array = np.asarray(array)
    if np.isfinite(array).any():
      found[str(name)] = array[np.isfinite(array)]
  return found


def _check_images(images: Mapping[str, Any]) -> Dict[str, np.ndarray]:
  """The first images of each array, float [n, h, w, c] in [0, 1]."""
  checked = {}
  for name, array in images.items():
    array = np.asarray(array, np.float64)
    if array.ndim == 3:
      array = array[..., np.newaxis]
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or not array.size:
      raise ValueError(
          f'images[{name!r}] must have the shape [n, h, w] or [n, h, w, c] with'
          f' 1 or 3 channels; found {np.shape(images[name])}.'
      )
    checked[name] = array[:_MAX_IMAGES]
  low = min((a.min() for a in checked.values()), default=0.0)
  high = max((a.max() for a in checked.values()), default=0.0)
  scale = high - low or 1.0
  return {name: (a - low) / scale for name, a in checked.items()}


def _remove_rounds(folder: pathlib.Path, first_round: int) -> None:
  """Removes the rounds from one on from the event files of a folder."""
  for path in sorted(folder.glob(_EVENT_FILES)):
    kept = []
    try:
      for record in tf.data.TFRecordDataset(os.fspath(path)):
        record = record.numpy()
        if tf.compat.v1.Event.FromString(record).step < first_round:
          kept.append(record)
    except tf.errors.DataLossError:
      # The end that a killed process left half-written.
      pass
    unfinished = path.with_name(f'unfinished.{path.name}')
    with tf.io.TFRecordWriter(os.fspath(unfinished)) as writer:
      for record in kept:
        writer.write(record)
    os.replace(unfinished, path)
