"""What a run costs: parameters, operations, time, memory."""
