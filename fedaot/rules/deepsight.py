"""DeepSight: clusters by the output layer, judged by whom they train."""

import functools
import math

from fedaot import checks
from fedaot.rules import geometry
from fedaot.rules import rule
from fedaot.rules.flame import linkage_heights


def output_layer(cohort):
  """What updates do to the outputs: bias `[n, C]` and energy `[n, C]`.

  Bias and kernel are the last two tensors, of shapes [..., C] and [C]. Where
  there are none, the entries of the last tensor are both.
  """
  xp, (shape, begin) = cohort.xp, cohort.tensors[-1]
  num_outputs = math.prod(shape)
  bias = xp.asarray(cohort.block(begin, num_outputs), dtype=xp.float64)
  energy = xp.abs(bias)
  if len(cohort.tensors) > 1 and len(shape) == 1:
    kernel_shape, kernel_begin = cohort.tensors[-2]
    if len(kernel_shape) > 1 and kernel_shape[-1] == num_outputs:
      size = math.prod(kernel_shape)
      kernel = xp.reshape(
          cohort.block(kernel_begin, size),
          [-1, size // num_outputs, num_outputs],
      )
      kernel = xp.asarray(kernel, dtype=xp.float64)
      energy = energy + xp.sum(xp.abs(kernel), axis=1)
  return bias, energy


def same_cluster(points, xp):
  """Whether rows are in one cluster of single linkage, `[n, n]`.

  It is cut at the widest gap between the heights at which it joins clusters.
  """
  products = xp.matmul(points, xp.transpose(points))
  products = 0.5 * (products + xp.transpose(products))
  distances = xp.sqrt(geometry.squared_distances(products, xp))
  # Rounding must not tell copies apart.
  distances = xp.where(distances < 1e-7, 0.0, distances)
  heights = linkage_heights(distances, xp)
  n = xp.size(points)
  is_own = xp.eye(n, dtype=bool)
  largest = xp.amax(heights)
  ordered = xp.sort(xp.reshape(xp.where(is_own, largest, heights), [-1]))
  gaps = xp.concatenate([ordered[1:], ordered[-1:]], axis=0) - ordered
  return heights <= xp.take(ordered, xp.argmax(gaps), axis=0)


@rule.rule(
    suspicious_share=functools.partial(checks.check_number, above=0, maximum=1)
)
def deepsight(cohort, *, suspicious_share=1 / 3):
  """The clipped mean of clusters that seem to train all outputs.

  With b_i and w_ih an update's bias and kernel of output i, it has the energies

    e_i = |b_i| + sum_h |w_ih|,   NEUP_i = e_i^2 / sum_j e_j^2,

  and exceeds the threshold max(0.01, 1 / C) max_i NEUP_i on so many of the C
  outputs. It is suspicious if they are no more than half of the median number:
  it trains few outputs, as a backdoor does. Updates are clustered, and those of
  a cluster with fewer than a share tau of suspicious ones are scaled down to
  the median norm of all and averaged (Rieger, Nguyen, Miettinen and Sadeghi,
  "DeepSight: Mitigating Backdoor Attacks in Federated Learning Through Deep
  Model Inspection", NDSS 2022, arXiv:2201.00763). Unlike the paper clusters are
  where cosines of biases and NEUPs agree; it joins these to a third clustering,
  by what models answer to random inputs, which updates do not show. And for
  HDBSCAN there is single linkage, cut at its widest gap. If no cluster is
  accepted, the aggregate is zero.

  Tensors are those of the structure in TFF, on arrays those of `shapes`; the
  last two are taken for the output layer's kernel [..., C] and bias [C], or
  else the last for both.

  Breakdown point: none proved. It means to find backdoors trained on few
  outputs; others are only clipped. Cost: O(N^2 d + N^3).

  Args:
    suspicious_share: tau, in (0, 1].

  Returns:
    A `rule.Rule` that measures `weights` (the clipping counted),
    `threshold_exceedings` (how many outputs exceed), `norm_bound` (the median
    norm), `num_accepted` and `num_non_finite`.
  """
  xp, norms = cohort.xp, cohort.norms
  bias, energy = output_layer(cohort)
  # Large energies have squares still.
  neup = geometry.divide(energy, xp.amax(energy, axis=1)[:, None], xp) ** 2
  neup = geometry.divide(neup, xp.sum(neup, axis=1)[:, None], xp)
  threshold = max(0.01, 1 / neup.shape[1]) * xp.amax(neup, axis=1)[:, None]
  exceedings = xp.sum(xp.asarray(neup > threshold, dtype=xp.float64), axis=1)
  is_suspicious = exceedings <= 0.5 * geometry.median(exceedings, xp)

  lengths = xp.sqrt(xp.sum(bias**2, axis=1))[:, None]
  directions = geometry.divide(bias, lengths, xp)
  together = same_cluster(directions, xp) & same_cluster(neup, xp)
  together = xp.asarray(together, dtype=xp.float64)
  suspicious = xp.asarray(is_suspicious, dtype=xp.float64)[:, None]
  num_suspicious = xp.matmul(together, suspicious)[:, 0]
  is_accepted = num_suspicious < suspicious_share * xp.sum(together, axis=1)
  bound = geometry.median(norms, xp)
  return rule.Decision(
      geometry.mean_of(is_accepted, xp)
      * geometry.clipping_scales(norms, bound, xp),
      measurements={'norm_bound': bound, 'num_accepted': xp.sum(is_accepted)},
      row_measurements={'threshold_exceedings': exceedings},
  )
