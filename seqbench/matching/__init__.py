"""Equal budgets: sizes of encoders solved so that parameters, operations or latency come to a target."""
