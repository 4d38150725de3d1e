"""Follows, likes, comments, and their counters."""
