"""What ``replay inspect`` says, as text, Markdown and JSON."""
