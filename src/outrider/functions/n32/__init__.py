"""The border: the only thing that faces partners; mutual TLS, one listener and one CA per partner."""
