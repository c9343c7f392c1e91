"""QAT fine-tuning: `stage2 qat`, and what a training loop of one's own can use of it."""
