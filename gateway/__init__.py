"""The public API: validates tokens and composes the services."""
