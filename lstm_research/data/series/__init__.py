"""Series of numbers over time: datasets, the time grid, scaling, windows to forecast."""
