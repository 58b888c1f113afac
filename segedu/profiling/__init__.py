"""Where time and memory go: FLOPs, bytes, the machine's ceilings, and what each setting gains.

Chapter 20 derives it; `segedu bench` runs it.
"""
