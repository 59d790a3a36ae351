"""Connections: what every request goes through, whatever protocol it speaks."""
