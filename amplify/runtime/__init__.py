"""The running program: its processes and devices, progress reports, and counts of calls."""
