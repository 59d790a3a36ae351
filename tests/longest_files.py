"""Which files of tests begin first."""

# Files that take longest, by the time of their processors: whoever begins with one of these last lets the others wait.
LONGEST = (
    "test_steps", "test_agent_trainer", "test_similarity_transformer_trainer", "test_recommend_command",
    "test_language_model_trainer", "test_distributed", "test_menagerie", "test_model_auto_encoder_trainer",
    "test_training_command", "test_evaluate", "test_crashes", "test_model_zoo_trainer", "test_run_folder",
)  # fmt: skip
