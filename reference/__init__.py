"""The network and the meaning of its int8."""
