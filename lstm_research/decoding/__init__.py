"""Floor 4: from a model's predictions to sequences."""
