"""One file a library: how it opens an artifact and runs it. `contract.artifacts.LIBRARIES` names the modules."""
