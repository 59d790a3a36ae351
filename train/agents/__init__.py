"""Rollouts of agents: functions of a user's own are called with tasks, and what the model said to them is gathered."""
