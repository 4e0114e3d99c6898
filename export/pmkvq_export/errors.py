class ExportError(Exception):
    """Something that the user can put right. The text names the thing and the way out; the command prints it and ends
    with exit code 1."""
