"""Floor 7: pictures and pages of what models do."""
