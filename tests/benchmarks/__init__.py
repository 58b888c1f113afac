"""Ratios against the peers that practitioners use, taken side by side: `make bench`."""
