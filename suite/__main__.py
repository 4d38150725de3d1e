"""`python -m suite` is the `insta` command."""

from suite.main import main

main()
