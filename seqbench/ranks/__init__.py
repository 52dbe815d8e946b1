"""The ranks of one run: who starts them, what they tell each other, how they share a model, and how they end."""
