"""Programs that can be sampled but have no density: generators of adversarial games."""
