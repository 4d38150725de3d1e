"""The `insta` command: runs the suite, or one service, and operates it. Only it knows all of them."""
