"""Networks: they return logits and know nothing of training."""
