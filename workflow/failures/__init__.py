"""A step that failed, told as somebody who has seen it before would."""
