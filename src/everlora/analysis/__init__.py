"""Reads what a finished or half-finished run tells from its folder alone; no base model is loaded."""
