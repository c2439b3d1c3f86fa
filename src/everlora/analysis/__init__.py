"""What a finished or half-finished run tells: read from its folder alone, no base model is loaded."""
