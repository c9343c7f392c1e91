"""The example task: find the centre of a notched disc in a photograph, among discs that are not it."""
