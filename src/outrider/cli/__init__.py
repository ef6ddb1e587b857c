"""The command line: nouns and verbs, one module per noun."""
