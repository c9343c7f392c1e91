"""The network and the meaning of its int8; the front door `litehrnet_stage2` offers what users need of it."""
