"""Running computations in this process, on its accelerators.

Results agree with those of the native context but for rounding, also on CPUs.
Its worker process is another build of TensorFlow, in which some kernels, those
of exponentials and of matrix products among them, round differently. Over many
steps of training the differences grow.
"""
