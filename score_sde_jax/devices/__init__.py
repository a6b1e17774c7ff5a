"""Devices, processes and costs: all that knows machines."""
