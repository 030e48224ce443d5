"""Byzantine-robust aggregation rules, on arrays or any namespace.

Each function makes a `rule.Rule`, which aggregates a table of updates, one a
row: `krum(num_byzantine=2)(updates)`. A wrapper takes a rule first:
`nnm(krum(num_byzantine=2))(updates)`. Common to all:

* A client whose count among `num_examples` is not positive has nothing to say:
  the result is that of the others alone, and `num_empty` counts it. A zero
  update of a client with examples, or without a count, is a vote for zero. If
  nobody has anything to say, the aggregate is zero.
* An update with a NaN, an infinity or an entry of magnitude 1e15 or more is
  left out; n counts the others, and `num_non_finite` the former. If none is
  left, the aggregate is zero.
* `num_byzantine`, f, is a number of clients (int >= 0) or a fraction of the
  round's clients (float in [0, 1)), rounded down, those left out included:
  attackers need not be among these.
* `weights` `[N]` are the coefficients of the updates, whose weighted sum is the
  aggregate; a rule on coordinates measures none.

A Gram rule knows the updates by their inner products only and returns the
coefficients; a coordinate rule makes an entry of the aggregate of a column of
the table. No second table is made either way: the products are a pass over
blocks of columns, the sum or the entries another.
"""

from fedaot.rules.adaptive_clipping import arc
from fedaot.rules.auror import auror
from fedaot.rules.bucketing import bucketing
from fedaot.rules.bulyan import bulyan
from fedaot.rules.caf import caf
from fedaot.rules.centered_clipping import centered_clipping
from fedaot.rules.coordinate_median import coordinate_median
from fedaot.rules.crfl import crfl
from fedaot.rules.deepsight import deepsight
from fedaot.rules.divide_and_conquer import dnc
from fedaot.rules.fedrdf import fedrdf
from fedaot.rules.flame import flame
from fedaot.rules.fltrust import fltrust
from fedaot.rules.foolsgold import foolsgold
from fedaot.rules.geometric_median import geometric_median
from fedaot.rules.krum import krum
from fedaot.rules.lasa import lasa
from fedaot.rules.meamed import meamed
from fedaot.rules.median_norm_bounding import median_norm_bounding
from fedaot.rules.minimum_diameter_averaging import minimum_diameter_averaging
from fedaot.rules.monna import monna
from fedaot.rules.nearest_neighbor_mixing import nnm
from fedaot.rules.robust_learning_rate import robust_learning_rate
from fedaot.rules.rule import Rule
from fedaot.rules.sign_guard import sign_guard
from fedaot.rules.smea import smea
from fedaot.rules.trimmed_mean import trimmed_mean

# Rules by name.
RULES = {
    function.__name__: function
    for function in (
        coordinate_median,
        trimmed_mean,
        krum,
        bulyan,
        geometric_median,
        centered_clipping,
        minimum_diameter_averaging,
        dnc,
        sign_guard,
        foolsgold,
        flame,
        meamed,
        monna,
        caf,
        smea,
        robust_learning_rate,
        crfl,
        auror,
        fedrdf,
        lasa,
        deepsight,
        fltrust,
    )
}
# Wrappers by name.
WRAPPERS = {
    function.__name__: function
    for function in (nnm, bucketing, median_norm_bounding, arc)
}
