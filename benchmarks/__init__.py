"""Measurements a user can repeat, side by side with peers.

The command `lstm-research benchmark` runs them. In a checkout this folder is beside the package, in an installed wheel
it is inside it; so its modules import one another by relative names.
"""
