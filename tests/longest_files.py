"""Which files of tests begin first."""

# Files that take longest, by the time of their processors: whoever begins with one of these last lets the others wait.
LONGEST = (
    "test_agent_trainer", "test_steps", "test_prompt_distillation_trainer", "test_language_model_trainer",
    "test_recommend_command", "test_loader_faults", "test_first_check", "test_step_fallbacks", "test_crashes",
    "test_distributed", "test_similarity_transformer_trainer", "test_model_auto_encoder_trainer", "test_callbacks",
    "test_own_loop", "test_interruptions", "test_image_classifier_trainer", "test_tune_command", "test_chat",
)  # fmt: skip
