"""Offline calibration of pmkvq from a Hugging Face checkpoint: gradient sensitivities and key scales (docs/export.md)."""
