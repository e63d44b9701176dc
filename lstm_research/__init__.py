"""Research on recurrent sequence models in JAX and Flax, driven by config files."""
