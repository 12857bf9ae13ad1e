"""What users type and import."""
