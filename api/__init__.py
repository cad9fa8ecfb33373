"""Doors: HTTP, event streams, WebSockets and the `cellshell` command."""
