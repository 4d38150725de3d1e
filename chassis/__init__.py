"""What every service of the suite stands on. Knows no service."""
