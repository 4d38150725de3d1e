"""Accounts, passwords, sessions and signing keys."""
