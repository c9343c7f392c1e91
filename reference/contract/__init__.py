"""What those who write a bundle and those who run it agree on: the artifacts and the manifest (numpy at most)."""
