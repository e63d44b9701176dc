"""Floor 0: array types, building from config, errors."""
