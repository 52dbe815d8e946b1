"""Many runs: a grid becomes a plan, and its cells are run, one by one or several at once."""
