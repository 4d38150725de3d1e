"""Accounts, passwords and signing keys."""
