"""The conventions of TS 29.500/29.501: server, client, problems, headers, tokens."""
