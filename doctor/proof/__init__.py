"""Trying a change where nothing is lost: in a scratch environment the fault must show, and be mended by it."""
