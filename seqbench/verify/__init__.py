"""Runs again from their records: rebuilt, compared score by score and prediction by prediction, judged."""
