"""Devices, processes and costs: all code that depends on the machine."""
