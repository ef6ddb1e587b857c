"""Group coordination: an example of a communication service that moves with its UEs."""
