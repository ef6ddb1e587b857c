"""A host runs one communication service at one network: a keeper process and its sandboxed workers."""
