"""What a step is held to: declared in workflow.yaml, answered with figures."""
