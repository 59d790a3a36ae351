"""What a round may have suffered from: each finding with its evidence, a proposal, what it should bring and cost."""
