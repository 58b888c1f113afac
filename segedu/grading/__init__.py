"""Assignments: released to students, answered in notebooks that nobody can trust, marked safely.

Students' code runs in a sandbox only, and what comes out of it is plain values; the tests run
outside. Nothing here imports torch.
"""
