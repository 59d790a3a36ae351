"""How good answers are: by a metric of ours, a function of the user's, or a judge whose agreement is known."""
