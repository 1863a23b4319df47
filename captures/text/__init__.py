"""Trace text: what tracefs, trace-cmd report and perf script print."""
