"""Where computations run: in this process or in TFF's worker process."""
